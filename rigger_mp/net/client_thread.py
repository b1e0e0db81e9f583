"""The thread of a :class:`~rigger_mp.net.client.RiggerClient`: a loop, and a channel in it."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections import deque
from typing import Any

from rigger_mp.net.calls import Call, Numbering, OwnReply, RemoteFuture
from rigger_mp.net.channel import Channel
from rigger_mp.net.standby import Standby
from rigger_mp.net.target import Target

MAX_PENDING = 10_000
"""Replies that may be due; then whoever sends waits."""


class ClientThread:
    """See the module; made by the first thread that needs it.

    Args:
        target: where to connect.

    Attributes:
        numbering: gives calls their numbers.
    """

    def __init__(self, target: Target) -> None:
        self.numbering = Numbering(keyed=target.retry_for > 0)
        self._target = target
        self._maker: int | None = threading.get_ident()
        self._inbox: deque[Call[Any]] = deque()
        self._woken = True  # there is no loop to wake yet
        self._answered = threading.Condition(threading.Lock())
        self._waiters = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._channel: Channel | None = None
        self._thread: threading.Thread | None = None
        self._standby: Standby | None = None

    def launch(self) -> None:
        """Start the thread."""
        # Here, not in the thread: making a loop logs, and a logging handler that uses this very client holds
        # a lock that the thread would wait for.
        self._loop = asyncio.new_event_loop()
        self._loop.set_exception_handler(lambda _loop, _context: None)  # for the same reason
        started = threading.Event()
        self._thread = threading.Thread(
            target=self._run, args=(started,), name="rigger_mp client", daemon=True
        )
        self._thread.start()
        started.wait()
        self._maker = None

    def _run(self, started: threading.Event) -> None:
        loop = self._loop
        assert loop is not None  # launch made it
        loop.run_until_complete(self._begin())
        started.set()
        loop.run_forever()
        loop.run_until_complete(asyncio.sleep(0))  # what callers put there in the last moment
        loop.close()

    async def _begin(self) -> None:
        self._channel = Channel(
            self._target, self.numbering, blocking_resolver=True, changed=self._tell_answered
        )
        self._standby = Standby(self._channel, self._in_loop, self.make_future)
        self._take_inbox()

    @property
    def is_current(self) -> bool:
        """Whether this is the thread, or one that is just making it."""
        return threading.get_ident() == self._maker or threading.current_thread() is self._thread

    @property
    def _due(self) -> int:
        channel, standby = self._channel, self._standby
        return len(self._inbox) + (channel.pending if channel else 0) + (standby.in_use if standby else 0)

    def make_future(self) -> RemoteFuture:
        """Return the future of a call that the thread is to send."""
        return RemoteFuture(lambda: self.is_current)

    def call(self, call: Call[OwnReply | RemoteFuture]) -> None:
        """Send a call that this thread is going to wait for; its reply may have come then, or it gets a future."""
        standby = self._standby
        if standby is None or self.is_current or not standby.call(call, self._target.timeout):
            call.future = self.make_future()
            self.start_call(call)
        elif self._waiters:
            self._tell_waiters()

    def start_call(self, call: Call[Any]) -> None:
        """Send a call; waits while too many replies are due, but in the thread itself."""
        if self._due >= MAX_PENDING and not self.is_current:
            self._wait_until(lambda: self._due < MAX_PENDING, None)
        self._inbox.append(call)
        if not self._woken:
            self._woken = True
            self._in_loop(self._take_inbox)

    def _in_loop(self, function: Any) -> None:
        assert self._loop is not None  # launch made it
        self._loop.call_soon_threadsafe(function)

    def _take_inbox(self) -> None:
        assert self._channel is not None  # the thread made it before anything else
        self._woken = False
        if self._standby is not None:
            self._standby.end()
        while self._inbox:
            self._channel.start(self._inbox.popleft())

    def _tell_answered(self) -> None:
        if self._standby is not None and not self._due:
            self._standby.offer()
        if self._waiters:
            self._tell_waiters()

    def _tell_waiters(self) -> None:
        with self._answered:
            self._answered.notify_all()

    def _wait_until(self, condition: Any, timeout: float | None) -> None:
        with self._answered:
            self._waiters += 1
            try:
                self._answered.wait_for(condition, timeout)
            finally:
                self._waiters -= 1

    def wait_until_taken(self, deadline: float) -> None:
        """Wait until nothing is due, or the server is not there."""
        channel = self._channel
        if channel is None or self.is_current:
            return

        def is_over() -> bool:
            return not self._due or not (self._inbox or channel.is_hopeful)

        self._wait_until(is_over, max(0.0, deadline - time.monotonic()))

    def close(self, timeout: float | None) -> None:
        """Wait until nothing is due, some seconds at most, then end."""
        if not self.is_current:
            self._wait_until(lambda: not self._due, timeout)
        self._in_loop(self._start_closing)
        if self._thread is not None and not self.is_current:
            self._thread.join()

    def _start_closing(self) -> None:
        self._closing = asyncio.ensure_future(self._close())

    async def _close(self) -> None:
        assert self._channel is not None  # the thread made it before anything else
        await self._channel.close()
        asyncio.get_running_loop().stop()

    def abandon(self) -> None:
        """In a forked process: let go of the connection, which is the parent's."""
        for sock in self._channel.sockets if self._channel is not None else ():
            if sock.fileno() >= 0:
                # Its number stays taken: the objects that hold it would close it some day.
                nothing = os.open(os.devnull, os.O_RDWR)
                os.dup2(nothing, sock.fileno())
                os.close(nothing)
        _abandoned.append(self)


_abandoned: list[ClientThread] = []
"""What a forked process inherited: kept, since taking a running loop apart would warn."""
