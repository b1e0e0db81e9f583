"""Lets a thread that waits for one reply after another write and read the client's connection itself.

::

    usual   caller ─▶ inbox ─▶ client's thread ─▶ socket ─▶ client's thread ─▶ future ─▶ caller
    direct  caller ─────────────────────────────▶ socket ──────────────────────────────▶ caller

A switch of threads takes as long as one of processes. So when a reply has come, nothing else is due, and its
caller waited for it, the client's thread *stands by*: it does not read, and the next caller does. That looks at what
has come without taking it, and takes it only if it is its own reply, whole and alone. Anything else it leaves
to the client's thread, which from then on reads again. A caller that is interrupted has so taken nothing.
"""

from __future__ import annotations

import contextlib
import json
import select
import socket
import threading
from collections.abc import Callable
from typing import Any

from rigger_mp.eager_wait import EagerWait
from rigger_mp.errors import ConnectionLostError
from rigger_mp.net.calls import Call, OwnReply, RemoteFuture
from rigger_mp.net.channel import Channel

LOOK_TIME = 0.0005
"""Seconds that a caller looks for its reply before it sleeps."""
STANDBY = 0.005
"""Seconds after the last direct reply until the client's thread reads again."""
MAX_LINE = 32_768
"""Bytes of a line that a caller sends itself: an idle connection takes so many at once."""

MAX_REPLY = 16_384
"""Bytes of a reply that a caller takes itself."""
_scan = json.JSONDecoder().scan_once  # type: ignore[attr-defined]  # typeshed leaves it out
"""Reads JSON, in half the time of ``json.loads`` for a short text."""


class Standby:
    """See the module.

    Args:
        channel: the connection; its loop is the client's thread's.
        in_loop: has a function called in that loop.
        make_future: makes the future of a call that the client's thread takes over.
    """

    def __init__(
        self,
        channel: Channel,
        in_loop: Callable[[Callable[[], None]], None],
        make_future: Callable[[], RemoteFuture],
    ) -> None:
        self._channel = channel
        self._in_loop = in_loop
        self._make_future = make_future
        self._turn = threading.Lock()
        self._eager = EagerWait(LOOK_TIME)
        self._is_standing_by = False
        self._is_wanted = False
        self._reading_wanted = False
        self._used = False
        self.socket: socket.socket | None = None
        self._poller = select.poll()

    @property
    def in_use(self) -> bool:
        """Whether a caller waits for a reply itself."""
        return self._turn.locked()

    # -- the client's thread -----------------------------------------------------------------------------

    def offer(self) -> None:
        """Stand by, if somebody wanted that: nothing is due."""
        if self._is_wanted and not self._is_standing_by and (sock := self._channel.lend()) is not None:
            self._is_wanted = self._reading_wanted = False
            self.socket = sock
            self._poller = select.poll()
            self._poller.register(sock, select.POLLIN)
            self._is_standing_by = self._used = True
            self._check()

    def _check(self) -> None:
        """Read again if no caller has since the last time."""
        if not self._is_standing_by:
            return
        if self._used or self.in_use:
            self._used = False
            self._channel.loop.call_later(STANDBY, self._check)
        else:
            self.end()

    def end(self) -> None:
        """Read again, now or when the caller who reads has looked."""
        if not self._is_standing_by:
            return
        self._reading_wanted = True
        if self._turn.acquire(blocking=False):
            self._is_standing_by = False
            self._turn.release()
            self._channel.take_back()

    # -- callers -----------------------------------------------------------------------------------------

    def call(self, call: Call[OwnReply | RemoteFuture], timeout: float) -> bool:
        """Send a call and take its reply, if the client's thread stands by; otherwise return false.

        What does not go that way is handed over to the client's thread, and true returned.
        """
        may_go = self._is_standing_by and len(call.line) <= MAX_LINE and self._channel.takes(call.line)
        if not (may_go and self._turn.acquire(blocking=False)):
            self._is_wanted = True
            return False
        try:
            return self._is_standing_by and self._send_and_wait(call, timeout)
        finally:
            self._used = True
            self._turn.release()
            if self._reading_wanted:
                with contextlib.suppress(RuntimeError):  # the loop is closed: there is nothing to read
                    self._in_loop(self.end)

    def _send_and_wait(self, call: Call[OwnReply | RemoteFuture], timeout: float) -> bool:
        sent = 0 if self._has_come(0.0) else self._send(call)
        if not sent:
            self._reading_wanted = True
            return False
        taken = False
        try:
            taken = sent == len(call.line) and self._await_reply(timeout) and self._take(call)
        finally:
            if not taken:
                self._hand_over(call, sent)
        return True

    def _send(self, call: Call[Any]) -> int:
        assert self.socket is not None  # it stands by
        call.sent_to = self._channel.instance if call.key else ""
        try:
            return self.socket.send(call.line)
        except OSError:
            call.sent_to = ""
            return 0

    def _await_reply(self, timeout: float) -> bool:
        return self._eager.wait(lambda: self._has_come(0.0), lambda: self._has_come(timeout))

    def _has_come(self, timeout: float) -> bool:
        return bool(self._poller.poll(timeout * 1000))

    def _take(self, call: Call[Any]) -> bool:
        """Take the reply to a call if it, and nothing else, has come."""
        assert self.socket is not None  # it stands by
        try:
            data = self.socket.recv(MAX_REPLY, socket.MSG_PEEK)
            if data.find(b"\n") != len(data) - 1 or not data.startswith(b'{"id":%d,' % call.number):
                return False
            reply, _ = _scan(data.decode(), 0)
        except (OSError, ValueError, StopIteration):
            return False
        if reply.get("message") != "OK" and "tid" not in reply:
            return False
        self._channel.take_direct(call, reply)
        self.socket.recv(len(data))
        return True

    def _hand_over(self, call: Call[OwnReply | RemoteFuture], sent: int) -> None:
        self._reading_wanted = True
        if call.future.done():  # an interrupt came between the reply and here
            return
        call.future = self._make_future()
        connection = self._channel.connection
        whole = sent == len(call.line)
        try:
            self._in_loop(lambda: self._channel.adopt(call, connection, whole=whole))
        except RuntimeError:  # the loop is closed
            call.fail(ConnectionLostError("the client was closed"))
