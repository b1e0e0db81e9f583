"""A client's connection: made when it is needed, made again when it is lost; used in one loop.

::

    start ─▶ pending ─▶ lines ─▶ server          lost: what may be sent again is, with its keys, after a pause
                │                  │             that doubles; for ``retry_for`` seconds, then it fails. Not to
                │                  │             a server that cannot know the keys: it might run it once more
                ▼                  ▼
             future ◀── take ◀── replies
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import re
import socket
from asyncio import StreamReader, StreamWriter
from collections.abc import Callable, Mapping
from typing import Any

from rigger_mp.errors import (
    AuthenticationError,
    ConnectionLostError,
    LimitError,
    NotRunningError,
    ProtocolError,
    ReplyTimeoutError,
    RiggerError,
    ServerRestartedError,
)
from rigger_mp.net import protocol
from rigger_mp.net.calls import AsyncRemoteFuture, Call, Numbering, delete_keys_line, error_of
from rigger_mp.net.lines import LineSplitter
from rigger_mp.net.opening import CHUNK, MAX_REPLY, connection_error, open_connection
from rigger_mp.net.strict_json import JsonError, check_nesting
from rigger_mp.net.target import Target, as_rigger_error

FIRST_PAUSE, LONGEST_PAUSE = 0.05, 2.0
"""Seconds between attempts to connect; doubling from one to the other."""
DOWN_TIME = 5.0
"""Seconds for which a server that let an attempt to connect time out is not tried again."""
CLOSE_TIME = 1.0
"""Seconds that the server gets to end a TLS connection in its turn."""
KEYS_AT_ONCE = 500
"""Keys whose replies have arrived that are let gather until the server is told."""
_ACCEPTED = re.compile(rb'\{"id":(\d+),"message":"OK","tid":"([\w-]+)"\}').fullmatch
"""The commonest reply, read several times as fast as JSON."""


class Channel:
    """See the module.

    Args:
        target: where to connect.
        numbering: gives calls their numbers.
        blocking_resolver: resolve names in the loop's thread: it is the channel's own.
        changed: called when replies have come.

    Attributes:
        loop: the loop.
        instance: the server connected to last.
    """

    def __init__(
        self, target: Target, numbering: Numbering, *, blocking_resolver: bool, changed: Callable[[], None]
    ) -> None:
        self._target = target
        self._blocking_resolver = blocking_resolver
        self._changed = changed
        self.loop = self._loop = asyncio.get_running_loop()
        self._numbering = numbering
        self._pending: dict[int, Call[Any]] = {}
        self._out: list[bytes] = []
        self._flush_due = False
        self._received_keys: list[str] = []
        self._writer: StreamWriter | None = None
        self._max_line = self._max_nesting = 0
        self._closed = False
        self.instance = ""
        self._direct: socket.socket | None = None
        self._runner: asyncio.Task[None] | None = None
        self._failing_since: float | None = None
        self._reason: RiggerError | None = None
        self._heard_at = 0.0
        self._down_until = 0.0
        self._watch: asyncio.TimerHandle | None = None

    @property
    def pending(self) -> int:
        """How many replies are due."""
        return len(self._pending)

    @property
    def is_hopeful(self) -> bool:
        """Whether there is a connection, or the first attempt to make one is under way."""
        return self._writer is not None or (self._runner is not None and self._failing_since is None)

    @property
    def sockets(self) -> list[Any]:
        """What belongs to the connection."""
        own = self._writer.get_extra_info("socket") if self._writer is not None else None
        return [sock for sock in (own, self._direct) if sock is not None]

    # -- sending -----------------------------------------------------------------------------------------

    def start(self, call: Call[Any]) -> None:
        """Send a call, connecting first if need be; its future gets the result."""
        self._pending[call.number] = call
        if self._writer is not None:
            self._send(call)
        elif self._loop.time() < self._down_until:
            del self._pending[call.number]
            call.fail(
                ConnectionLostError(f"{self._target.address}:{self._target.port} did not answer just now")
            )
        elif self._runner is None:
            self._runner = self._loop.create_task(self._run())

    def _send(self, call: Call[Any]) -> None:
        if problem := self._exceeded(call.line):
            del self._pending[call.number]
            call.fail(LimitError(f"the event {problem}"))
            return
        if call.key:
            call.sent_to = self.instance
        self._write(call.line)

    def takes(self, line: bytes) -> bool:
        """Whether the server takes a line so long and so deeply nested: it could not tell whose line it refused."""
        return not self._exceeded(line)

    def _exceeded(self, line: bytes) -> str:
        if len(line) > self._max_line:
            return f"has {len(line)} bytes, the server takes {self._max_line}"
        try:
            check_nesting(line, self._max_nesting)
        except JsonError as error:
            return f"is {error}, which is all that the server takes"
        return ""

    def _write(self, line: bytes) -> None:
        self._out.append(line)
        if not self._flush_due:
            self._flush_due = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_due = False
        if self._writer is not None and not self._writer.is_closing():
            self._writer.write(b"".join(self._out))
            self._watch_over()
        self._out.clear()

    # -- connecting --------------------------------------------------------------------------------------

    async def _run(self) -> None:
        """Connect, take replies, and begin again while there is something to send."""
        try:
            pause = FIRST_PAUSE
            while self._pending:
                self._reason = None
                try:
                    splitter, reader = await self._connect()
                    pause = FIRST_PAUSE
                    await self._take_replies(splitter, reader)
                except Exception as error:  # noqa: BLE001 - whatever it is, who waits must hear of it
                    if self._reason is None:
                        self._reason = as_rigger_error(error, self._target)
                        self._reason.__cause__ = error if error is not self._reason else None
                finally:
                    self._disconnect()
                if self._pending and self._give_up():
                    return
                if self._pending:
                    await asyncio.sleep(pause * random.uniform(0.5, 1.0))
                    pause = min(2 * pause, LONGEST_PAUSE)
        finally:
            self._runner = None

    async def _connect(self) -> tuple[LineSplitter, StreamReader]:
        opened = await open_connection(self._target, blocking_resolver=self._blocking_resolver)
        self._writer = opened.writer
        self._max_line, self._max_nesting, self.instance = opened.max_line, opened.max_nesting, opened.instance
        self._heard_at = self._loop.time()
        for call in list(self._pending.values()):
            if call.sent_to in ("", self.instance):
                self._send(call)
            else:
                self._fail_unknown(call)
        return opened.splitter, opened.reader

    def _fail_unknown(self, call: Call[Any]) -> None:
        """Fail an event that a server before this one may have run: this one does not know its key."""
        del self._pending[call.number]
        call.fail(
            ServerRestartedError(
                f"the server at {self._target.address}:{self._target.port} was restarted before it replied: the "
                "event may have run, and is not sent again; server_store lets servers remember"
            )
        )

    def _give_up(self) -> bool:
        """After a loss, fail what cannot be sent again; everything, once it has been tried long enough."""
        reason = self._reason or ConnectionLostError("the server closed the connection")
        now = self._loop.time()
        self._failing_since = self._failing_since or now
        fatal = isinstance(reason, AuthenticationError | ProtocolError)
        late = now - self._failing_since >= self._target.retry_for
        for call in list(self._pending.values()):
            if fatal or late or not call.is_repeatable:
                del self._pending[call.number]
                call.fail(reason)
        if fatal or late:
            self._failing_since = None
            if isinstance(reason.__cause__, TimeoutError):
                self._down_until = now + DOWN_TIME
        self._changed()
        return not self._pending

    def _disconnect(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        if self._direct is not None:
            with contextlib.suppress(OSError):
                self._direct.shutdown(socket.SHUT_RD)  # a caller may wait for it
            self._direct.close()
            self._direct = None
        self._out.clear()
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None

    async def close(self) -> None:
        """Fail what is pending and end the connection."""
        writer = self._writer
        self._closed = True
        if self._runner is not None:
            self._runner.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._runner
        for call in list(self._pending.values()):
            call.fail(ConnectionLostError("the client was closed"))
        self._pending.clear()
        self._changed()
        if writer is not None:
            await _end_connection(writer)
        await asyncio.sleep(0)  # transports are closed in the loop's next turn, and it may have none after this

    # -- receiving ---------------------------------------------------------------------------------------

    async def _take_replies(self, splitter: LineSplitter, reader: StreamReader) -> None:
        while data := await reader.read(CHUNK):
            self._heard_at = self._loop.time()
            splitter.append(data)
            while (line := splitter.next(MAX_REPLY)) is not None:
                self._take_line(line)
            self._changed()

    def _take_line(self, line: bytes) -> None:
        accepted = _ACCEPTED(line)
        call = self._pending.get(int(accepted[1])) if accepted is not None else None
        if accepted is None or call is None or call.waits or not call.hook:
            self._take(json.loads(line.decode()))
            return
        call.take_accepted(accepted[2].decode())
        self._finish(call)

    def _take(self, reply: Mapping[str, Any]) -> None:
        number = reply.get("id")
        if number is None:
            self._take_notice(reply)
            return
        call = self._pending.get(number)
        if call is None:
            return
        if self._was_refused(call, reply):
            self._loop.call_later(LONGEST_PAUSE / 4, self._send_again, call)
            return
        call.take(reply)
        self._finish(call)

    def _finish(self, call: Call[Any]) -> None:
        """Forget a call that has its result."""
        del self._pending[call.number]
        self._failing_since = None
        if call.key:
            self._received_keys.append(call.key)
            if len(self._received_keys) >= KEYS_AT_ONCE:
                self._tell_received()

    def _tell_received(self) -> None:
        keys, self._received_keys = self._received_keys, []
        if keys and self._writer is not None:
            self._write(delete_keys_line(keys))

    def _take_notice(self, reply: Mapping[str, Any]) -> None:
        """Take a line that concerns the connection as a whole."""
        if reply.get("message") == "ERROR":
            self._reason = connection_error(error_of(reply, ""))
        elif reply.get("message") == "BYE":  # what has no reply by now was not accepted
            for call in self._pending.values():
                call.sent_to = ""

    def _was_refused(self, call: Call[Any], reply: Mapping[str, Any]) -> bool:
        """Tell whether the server stops, or has not started yet, and the call is to be sent again."""
        if not call.key or "tid" in reply or reply.get("message") != "ERROR":
            return False
        if not isinstance(error_of(reply, call.hook), NotRunningError):
            return False
        now = self._loop.time()
        call.refused_at = call.refused_at or now
        call.sent_to = ""
        return now - call.refused_at < self._target.retry_for

    def _send_again(self, call: Call[Any]) -> None:
        if call.number in self._pending and self._writer is not None:
            self._send(call)

    # -- lending -----------------------------------------------------------------------------------------

    @property
    def connection(self) -> StreamWriter | None:
        """The present connection, ``None`` if there is none."""
        return self._writer

    def lend(self) -> socket.socket | None:
        """Stop reading and return a socket to write and read instead, ``None`` if that cannot be now."""
        writer = self._writer
        if writer is None or self._target.tls is not None or self._pending or self._out:
            return None
        if writer.is_closing() or writer.transport.get_write_buffer_size():
            return None
        if self._direct is None:
            self._direct = socket.socket(fileno=os.dup(writer.get_extra_info("socket").fileno()))
        writer.transport.pause_reading()  # type: ignore[attr-defined]  # typeshed: a StreamWriter need not read
        return self._direct

    def take_back(self) -> None:
        """Read again."""
        if self._writer is not None:
            self._writer.transport.resume_reading()  # type: ignore[attr-defined]  # likewise

    def take_direct(self, call: Call[Any], reply: Mapping[str, Any]) -> None:
        """Take a reply that was read from the lent socket; in any thread."""
        call.take(reply)
        if call.key:
            self._received_keys.append(call.key)
            if len(self._received_keys) >= KEYS_AT_ONCE:
                self._loop.call_soon_threadsafe(self._tell_received)

    def adopt(self, call: Call[Any], connection: StreamWriter | None, *, whole: bool) -> None:
        """Take over a call that was sent, ``whole`` or in part, over a connection that was lent."""
        if self._closed:
            call.fail(ConnectionLostError("the client was closed"))
        elif connection is not None and connection is self._writer:
            self._pending[call.number] = call
            self._watch_over()
            if not whole:
                connection.transport.abort()
        elif not call.is_repeatable:
            call.fail(ConnectionLostError("the connection was lost before the reply came"))
        elif self._writer is not None and call.sent_to not in ("", self.instance):
            self._pending[call.number] = call
            self._fail_unknown(call)
        else:
            self.start(call)

    # -- watching ----------------------------------------------------------------------------------------

    def _watch_over(self) -> None:
        if self._watch is None and self._pending:
            self._heard_at = self._loop.time()
            self._watch = self._loop.call_later(self._target.timeout, self._check)

    def _check(self) -> None:
        """See whether the server is still there: a reply is due, or a ping is answered."""
        self._watch = None
        if not self._pending or self._writer is None:
            return
        silent = self._loop.time() - self._heard_at
        if silent < self._target.timeout:
            self._watch = self._loop.call_later(self._target.timeout - silent, self._check)
        elif all(call.waits for call in self._pending.values()):
            self._ping()
        else:
            self._reason = ReplyTimeoutError(
                f"no reply for {self._target.timeout:g} s; the event may run nevertheless"
            )
            self._writer.transport.abort()

    def _ping(self) -> None:
        ping = Call(AsyncRemoteFuture(), quiet=True)
        self._numbering.number(ping, keyed=False)
        ping.encode(protocol.PING)
        self.start(ping)


async def _end_connection(writer: StreamWriter) -> None:
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(CLOSE_TIME):
            await writer.wait_closed()
    writer.transport.abort()
