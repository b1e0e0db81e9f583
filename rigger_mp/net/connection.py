"""One connection of the server: what its lines do, when it is read, when it ends.

::

    bytes ─▶ lines ─▶ answer ─▶ Service.fire ─▶ engine         reading waits while there is no room, too much
                        │                         │            is under way, or replies are not read
                        ▼                         ▼
                      Outbox ◀── task_ended ── Service
"""

from __future__ import annotations

import asyncio
import contextlib
from asyncio import StreamReader, StreamWriter
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from rigger_mp.errors import AuthenticationError, LimitError, ProtocolError, RiggerError
from rigger_mp.net import protocol
from rigger_mp.net.lines import LineSplitter, LineTooLong
from rigger_mp.net.outbox import EndedReply, Outbox
from rigger_mp.net.results import Task
from rigger_mp.net.security import is_loopback_peer

if TYPE_CHECKING:
    from rigger_mp.net.service import Service

CHUNK = 65_536
"""Bytes read at once."""
LINGER = 2.0
"""Seconds that the other side gets to read the last reply and close."""
QUIET = 0.25
"""Seconds without a line after which no more are expected from a connection when the server stops."""
OK = b'{"message":"OK"}'
BYE = b'{"message":"BYE"}'


class _Closing(Exception):
    """Raised when nothing more is to be read; the last reply says why."""


class Connection:
    """A connection, from the first byte to the last.

    Args:
        service: what all connections share.
        reader: of the connection.
        writer: of the connection.

    Attributes:
        outbox: its replies.
        under_way: its events, and other things asked for, that have not ended.
    """

    def __init__(self, service: Service, reader: StreamReader, writer: StreamWriter) -> None:
        self._service = service
        self._limits = service.limits
        self._reader = reader
        self._writer = writer
        self._loop = asyncio.get_running_loop()
        peer = writer.get_extra_info("peername")
        self._is_local = bool(peer) and is_loopback_peer(str(peer[0]))
        self._authenticated = not service.security.token
        self._splitter = LineSplitter()
        self._changed = asyncio.Event()
        self.outbox = Outbox(writer, service.limits, service.bodies, service.sent, self._changed.set)
        self.under_way = 0
        self._latest = self._loop.time()
        self._is_new = True
        self._awaits_data = False
        self._reading: asyncio.Task[None] | None = None
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._actions: dict[str, Callable[[protocol.Request], None]] = {
            protocol.PING: lambda request: self.reply(request.reply_id, b'{"message":"PONG"}'),
            protocol.HELLO: self._greet,
            protocol.AUTH: self._authenticate,
            protocol.TASK_CHECK: self._check_task,
            protocol.TASK_DELETE: self._delete_task,
            protocol.STATUS: self._ask_stats,
            protocol.SHUTDOWN: self._shut_down,
        }

    # -- life --------------------------------------------------------------------------------------------

    async def serve(self) -> None:
        """Answer lines until the other side or the server ends the connection."""
        self._timers["idle"] = self._loop.call_later(self._limits.idle_timeout, self._check_idle)
        if not self._authenticated:
            self._timers["auth"] = self._loop.call_later(self._limits.auth_timeout, self._check_authenticated)
        self._reading = asyncio.create_task(self._read())
        try:
            await asyncio.wait({self._reading})
            if not self._reading.cancelled():
                await self._end_reading(self._reading.exception())
        finally:
            self._reading.cancel()
            for timer in self._timers.values():
                timer.cancel()
            await self.close()

    async def _end_reading(self, error: BaseException | None) -> None:
        if error is None:
            await self.settle()
        elif not isinstance(error, OSError | _Closing):
            self._service.backend.log(f"TCP server: a connection failed: {error!r}")

    async def _read(self) -> None:
        try:
            while data := await self._next_data():
                self._refuse_other_protocols(data)
                self._splitter.append(data)
                await self._take_lines()
                self.flush()
                await self._until(lambda: not self.outbox.is_full)
            self._splitter.finish()
            await self._take_lines()
        finally:
            self.flush()

    async def _next_data(self) -> bytes:
        self._awaits_data = True
        data = await self._reader.read(CHUNK)
        self._awaits_data = False
        return data

    def take_directly(self, data: bytes) -> bool:
        """Take one event in the transport's callback, if it comes alone; see :mod:`rigger_mp.net.direct`."""
        self._awaits_data = self._awaits_data and self._take_alone(data)
        return self._awaits_data

    def _take_alone(self, data: bytes) -> bool:
        if not data.endswith(b"\n") or data.count(b"\n") > 1 or data.isspace() or b'"event_name"' in data:
            return False
        if not self._authenticated or self._is_new or self._splitter.has_part or len(data) > self._limits.max_line:
            return False
        if self._service.has_ended_some:
            self._service.tell_ended()
        if self.under_way or not self.outbox.is_idle or not self.outbox.open_direct():
            return False
        self._latest = self._loop.time()
        taken = self._take(data[:-1], direct=True)
        self.flush()
        if taken:
            self._service.look_for_end()
        return taken

    def send_now(self, reply_id: bytes, body: bytes) -> bool:
        """Send a reply from any thread, if nothing else is on its way; tell whether it was."""
        return self.outbox.send_now(protocol.reply_line(reply_id, body))

    async def _take_lines(self) -> None:
        while True:
            try:
                line = self._splitter.next(self._max_line())
            except LineTooLong:
                self._refuse_long_line()
                continue
            if line is None:
                return
            self._latest = self._loop.time()
            if self.under_way >= self._limits.max_in_flight:
                self.flush()
                await self._until(lambda: self.under_way < self._limits.max_in_flight)
            if not self._take(line):
                self.flush()
                await self._service.room.retry(partial(self._take, line))

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self._changed.clear()
            await self._changed.wait()

    async def settle(self) -> None:
        """Wait until every event of it has ended and its reply is on its way."""
        await self._until(lambda: not self.under_way and self.outbox.is_idle)

    async def finish(self) -> None:
        """Close after that, once no more lines come: the server stops."""
        await self.settle()
        while (left := self._latest + QUIET - self._loop.time()) > 0:
            await asyncio.sleep(left)
        self.reply(b"", BYE)
        self.flush()
        if self._reading is not None:
            self._reading.cancel()

    async def close(self, *, linger: bool = True) -> None:
        """Close; with ``linger`` so that the last reply arrives: closing with bytes unread would reset it."""
        self.outbox.close()
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(LINGER if linger else 0):
                await self._part()
        self._writer.transport.abort()

    async def _part(self) -> None:
        if self._writer.is_closing():
            return
        await self._writer.drain()
        if self._writer.can_write_eof():
            self._writer.write_eof()
            while await self._reader.read(CHUNK):
                pass
        else:  # TLS: closing sends its own end
            self._writer.close()
            await self._writer.wait_closed()

    def end(self, error: RiggerError) -> None:
        """Say why, and close."""
        self.reply(b"", protocol.error_body(error))
        self.flush()
        if self._reading is not None:
            self._reading.cancel()

    def _check_idle(self) -> None:
        left = self._latest + self._limits.idle_timeout - self._loop.time()
        if left <= 0 and not self.under_way:
            self.end(LimitError(f"no line for {self._limits.idle_timeout:g} s (server_idle_timeout)"))
            return
        delay = left if left > 0 else self._limits.idle_timeout
        self._timers["idle"] = self._loop.call_later(delay, self._check_idle)

    def _check_authenticated(self) -> None:
        if not self._authenticated:
            limit = self._limits.auth_timeout
            self.end(AuthenticationError(f"no auth within {limit:g} s (server_auth_timeout)"))

    # -- replies -----------------------------------------------------------------------------------------

    def reply(self, reply_id: bytes, body: bytes) -> None:
        """Add a reply; :meth:`flush` sends it."""
        self.outbox.add(protocol.reply_line(reply_id, body))

    def flush(self) -> None:
        """Send what may be sent now."""
        self.outbox.flush()
        self._changed.set()

    def task_ended(self, task: Task, reply_id: bytes, replies: bool) -> None:
        """Take a task that has ended; with ``replies``, its reply is sent by the next :meth:`flush`."""
        self.under_way -= 1
        self._latest = self._loop.time()
        if replies:
            self.outbox.add_ended(EndedReply(task, reply_id, task.request.grab, final=True))

    # -- lines -------------------------------------------------------------------------------------------

    def _max_line(self) -> int:
        if self._authenticated:
            return self._limits.max_line
        return min(self._limits.max_line, protocol.MAX_LINE_BEFORE_AUTH)

    def _refuse_other_protocols(self, data: bytes) -> None:
        if self._is_new and (message := protocol.greeting(data)):
            self.reply(b"", protocol.error_body(ProtocolError(message)))
            raise _Closing
        self._is_new = False

    def _refuse_long_line(self) -> None:
        error = LimitError(f"a line has more than {self._max_line()} bytes (server_max_line)")
        self.reply(b"", protocol.error_body(error))

    def _take(self, line: bytes, *, direct: bool = False) -> bool:
        """Answer one line; returns false if it must be tried again when there is room."""
        reply_id = b""
        try:
            request = protocol.parse_line(line, self._limits.max_nesting)
            reply_id = request.reply_id
            if request.event == protocol.FIRE and self._authenticated:
                return self._service.fire(request, self, line, direct=direct)
            self._answer(request)
        except protocol.RefusedLine as refused:
            self.reply(refused.reply_id, protocol.error_body(refused.error))
        except RiggerError as error:
            self.reply(reply_id, protocol.error_body(error))
        return True

    def _answer(self, request: protocol.Request) -> None:
        if not self._authenticated and request.event not in protocol.BEFORE_AUTH:
            raise AuthenticationError(
                f'{request.event}: authenticate first, with {{"event_name": "auth", "token": "..."}}'
            )
        self._actions[request.event](request)

    def _greet(self, request: protocol.Request) -> None:
        self.reply(request.reply_id, self._service.hello_body(authenticate=not self._authenticated))

    def _authenticate(self, request: protocol.Request) -> None:
        security = self._service.security
        if security.token and not security.accepts(request.token):
            self.reply(request.reply_id, protocol.error_body(AuthenticationError("the token is wrong")))
            raise _Closing
        self._authenticated = True
        self.reply(request.reply_id, OK)

    def _check_task(self, request: protocol.Request) -> None:
        task = self._service.find_task(request.tid)
        if task is None:
            self.reply(request.reply_id, b'{"message":"NOT FOUND"}')
        elif task.ended:
            self.outbox.add_ended(EndedReply(task, request.reply_id, request.grab, final=False))
        else:
            self.reply(request.reply_id, protocol.running_body(task.tid))

    def _delete_task(self, request: protocol.Request) -> None:
        self._service.forget(request)
        self.reply(request.reply_id, OK)

    def _ask_stats(self, request: protocol.Request) -> None:
        self.under_way += 1
        self._service.ask_stats(self, request.reply_id)

    def _shut_down(self, request: protocol.Request) -> None:
        if not (self._is_local or self._service.security.token):
            raise AuthenticationError(
                "shutdown is accepted from the server's own machine, or with a token, only"
            )
        self.reply(request.reply_id, OK)
        self.flush()
        self._service.backend.terminate()
