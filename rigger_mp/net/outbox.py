"""The replies of one connection on their way out; one that does not read them is held, then dropped, alone.

Used in the server's loop, but for :meth:`Outbox.send_now`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
import threading
from asyncio import StreamWriter
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from rigger_mp.net import protocol
from rigger_mp.net.bodies import BodyMaker, body_of, needs_thread
from rigger_mp.net.limits import Limits
from rigger_mp.net.results import Task

MUCH = 65_536
"""Bytes of replies unread by the other side, from which on it counts as slow."""
MANY = 256
"""Replies made at once."""


class EndedReply(NamedTuple):
    """A reply about a task that has ended, not yet made; ``final``: it is the reply to who waited."""

    task: Task
    reply_id: bytes
    grab: bool
    final: bool


class Outbox:
    """See the module.

    Args:
        writer: of the connection.
        limits: of the server.
        bodies: makes what takes time.
        sent: called with a task and the reply made to who waited for it.
        changed: called when :attr:`is_idle` or :attr:`is_full` may have changed.
    """

    def __init__(
        self,
        writer: StreamWriter,
        limits: Limits,
        bodies: BodyMaker,
        sent: Callable[[Task, bytes], None],
        changed: Callable[[], None],
    ) -> None:
        self._writer = writer
        self._transport = writer.transport
        self._transport.set_write_buffer_limits(high=MUCH)
        self._limits = limits
        self._bodies = bodies
        self._sent = sent
        self._changed = changed
        self._lines: list[bytes] = []
        self._ended: deque[EndedReply] = deque()
        self._making = False
        self._slow: asyncio.Task[None] | None = None
        self._loop = asyncio.get_running_loop()
        self._wire = threading.Lock()
        self._rest = b""
        self._direct: socket.socket | None = None
        self._may_be_direct = writer.get_extra_info("ssl_object") is None

    @property
    def is_full(self) -> bool:
        """Whether the other side should read before it may ask for more."""
        return self._slow is not None or len(self._ended) > self._limits.max_in_flight

    @property
    def is_idle(self) -> bool:
        """Whether everything has been handed to the operating system, or nearly."""
        return not (self._lines or self._ended or self._making or self._slow or self._rest)

    def add(self, line: bytes) -> None:
        """Add a reply; :meth:`flush` sends it."""
        self._lines.append(line)

    def add_ended(self, reply: EndedReply) -> None:
        """Add a reply that is still to be made."""
        self._ended.append(reply)

    def flush(self) -> None:
        """Send what may be sent now."""
        if self._transport.is_closing():
            self._lines.clear()
            self._ended.clear()
            return
        self._write_lines()
        while self._ended and not self._making and self._may_grow():
            self._make_bodies()
            self._write_lines()
        if self._slow is None and self._transport.get_write_buffer_size() > MUCH:
            self._slow = asyncio.create_task(self._wait_until_read())

    def _write_lines(self) -> None:
        with self._wire:
            if self._rest:
                self._writer.write(self._rest)
                self._rest = b""
            if self._lines:
                self._writer.write(b"".join(self._lines))
                self._lines.clear()

    # -- from other threads ------------------------------------------------------------------------------

    def open_direct(self) -> bool:
        """Let :meth:`send_now` be used; tell whether it may."""
        if self._direct is None and self._may_be_direct and not self._transport.is_closing():
            # A descriptor of its own: the transport's may be closed, and its number taken, in the midst of sending.
            fd = os.dup(self._writer.get_extra_info("socket").fileno())
            self._direct = socket.socket(fileno=fd)
        return self._direct is not None

    def send_now(self, line: bytes) -> bool:
        """Send a reply from any thread, if nothing else is on its way; tell whether it was."""
        with self._wire:
            if self._direct is None or not self.is_idle or self._transport.get_write_buffer_size():
                return False
            try:
                sent = self._direct.send(line)
            except OSError:
                return False
            self._rest = line[sent:]
        if sent < len(line):
            with contextlib.suppress(RuntimeError):  # the loop is closed: there is nobody left to send it
                self._loop.call_soon_threadsafe(self.flush)
        return True

    def close(self) -> None:
        """Send nothing from other threads any more."""
        with self._wire:
            if self._direct is not None:
                self._direct.close()
                self._direct = None
                self._may_be_direct = False

    def _may_grow(self) -> bool:
        return self._transport.get_write_buffer_size() < self._limits.max_reply_bytes

    def _make_bodies(self) -> None:
        """Make some replies here, or, once one of them needs it, have them made."""
        while self._ended and len(self._lines) < MANY:
            if needs_thread(self._ended[0].task, self._ended[0].grab):
                self._have_made([self._ended.popleft() for _ in range(min(MANY, len(self._ended)))])
                return
            reply = self._ended.popleft()
            self._take_body(reply, body_of(reply.task, reply.grab, self._limits.max_reply_bytes))

    def _have_made(self, batch: list[EndedReply]) -> None:
        self._making = True
        self._bodies.put(lambda: self._make(batch), lambda bodies: self._take_bodies(batch, bodies))

    def _make(self, batch: list[EndedReply]) -> list[bytes]:
        """Make the first of some bodies, as many as should be in memory at once; not in the loop's thread."""
        bodies: list[bytes] = []
        room = self._limits.max_reply_bytes
        for reply in batch:
            bodies.append(body_of(reply.task, reply.grab, self._limits.max_reply_bytes))
            room -= len(bodies[-1])
            if room <= 0:
                break
        return bodies

    def _take_bodies(self, batch: list[EndedReply], bodies: list[bytes]) -> None:
        self._making = False
        self._ended.extendleft(reversed(batch[len(bodies) :]))
        for reply, body in zip(batch, bodies, strict=False):
            self._take_body(reply, body)
        self.flush()
        self._changed()

    def _take_body(self, reply: EndedReply, body: bytes) -> None:
        self._lines.append(protocol.reply_line(reply.reply_id, body))
        if reply.final and not self._transport.is_closing():
            self._sent(reply.task, body)

    def _drop(self) -> None:
        sock = self._writer.get_extra_info("socket")
        if sock is not None and sock.fileno() >= 0:
            # Closing alone would leave what is unread with the kernel, which goes on offering it.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.abort()

    async def _wait_until_read(self) -> None:
        try:
            async with asyncio.timeout(self._limits.write_timeout):
                await self._writer.drain()
        except (OSError, TimeoutError):
            self._drop()
        self._slow = None
        self.flush()
        self._changed()
