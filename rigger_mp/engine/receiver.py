"""Takes what the dispatcher sends: in a thread of its own, or in the thread that waits for it.

::

    dispatcher ──socket──▶ results thread ──▶ futures, callbacks, logs
                    └────▶ caller of a blocking event, while nothing else is pending,
                           or the server's loop, for a moment

A switch of threads takes as long as one of processes. So when one thread fires one blocking event after
another, the results thread *stands by*, and the caller reads the socket itself: it looks at what has come
without taking it, and takes it only if that is the end of its own event, whole and alone. Anything else it leaves
to the results thread, which from then on reads again. A caller that is interrupted has so taken nothing.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from rigger_mp.eager_wait import EagerWait
from rigger_mp.engine import messages as m
from rigger_mp.engine.descriptors import SocketReader
from rigger_mp.engine.endings import Ended, Lost
from rigger_mp.engine.frames import split_frames
from rigger_mp.engine.pending import Call

LOOK_TIME = 0.0005
"""Seconds that a caller looks for its outcome before it sleeps."""
STANDBY = 0.005
"""Seconds after the last event of a caller that reads itself until the results thread reads again."""

MAX_OUTCOME = 16_384
"""Bytes of an outcome that a caller takes itself: more would take longer to make room for than to fill."""


class Receiver:
    """See the module.

    Args:
        deliver: takes a batch of messages; returns whether it was only the outcome of an event whose waiter
            reads itself.
        idle: tells whether nothing is pending.
        gone: called on the results thread when the dispatcher is gone; returns the socket to another one, or
            ``None`` when that was the last.
    """

    def __init__(
        self,
        sock: socket.socket,
        deliver: Callable[[list[Any]], bool],
        idle: Callable[[], bool],
        gone: Callable[[], socket.socket | None],
    ) -> None:
        self._socket = sock
        self._poller = select.poll()
        self._eager = EagerWait(LOOK_TIME)
        self._deliver = deliver
        self._idle = idle
        self._gone = gone
        self._lock = threading.Lock()  # a Condition, interrupted while it is entered, stays locked
        self._changed = threading.Condition(self._lock)
        self._standing_by = False
        self._caller_reads = False
        self._waits_for_caller = False
        self._calls_read = 0
        self.thread = threading.Thread(target=self._run, name="rigger_mp results", daemon=True)

    def start(self) -> None:
        """Start the results thread."""
        self.thread.start()

    # -- the results thread ------------------------------------------------------------------------------

    def _run(self) -> None:
        following: socket.socket | None = self._socket
        while following is not None:
            self._socket = following
            self._read_to_end()
            following = self._gone()

    def _read_to_end(self) -> None:
        self._poller = select.poll()
        self._poller.register(self._socket, select.POLLIN)
        reader = SocketReader(self._socket)
        while not reader.eof:
            alone = False
            for payload in reader.read():
                alone = self._deliver([reader.complete(message) for message in m.unpack(payload)])
            if alone and not reader.buffered:
                self._stand_by()

    def _stand_by(self) -> None:
        with self._lock:
            self._standing_by = True
            if not self._idle():  # whoever made something pending before that does not know
                self._standing_by = False
            while self._standing_by or self._caller_reads:
                before = self._calls_read
                self._waits_for_caller = self._caller_reads
                self._changed.wait(None if self._caller_reads else STANDBY)
                if before == self._calls_read and not self._caller_reads:
                    self._standing_by = False
            self._waits_for_caller = False

    def resume(self) -> None:
        """Have the results thread read: something is pending that nobody waits for by reading."""
        if self._standing_by:
            with self._lock:
                self._standing_by = False
                self._changed.notify()

    # -- a caller ----------------------------------------------------------------------------------------

    def wait_for(self, call: Call, token: int) -> Ended | Lost:
        """Return how an event ended; reads in this thread if the results thread stands by."""
        if self._standing_by:
            with self._reading(lambda: call.has_ended) as may_read:
                if may_read:
                    self._eager.wait(lambda: self._has_come(0), lambda: self._has_come(None))
                    self._take_own(token)
            if not (may_read or call.has_ended):
                self.resume()  # whoever reads takes its own outcome only
        return call.wait()

    def look_for(self, token: int, has_ended: Callable[[], bool], is_wanted: Callable[[], bool]) -> None:
        """Take the outcome of an event, if it comes within a moment; else it is left to the results thread.

        Args:
            token: of an event that was accepted while nothing was pending, with a waiter that reads.
            has_ended: tells whether its waiter was told.
            is_wanted: tells whether this thread has something else to do, and is to look no longer.
        """
        if not self._standing_by:
            return
        with self._reading(has_ended) as may_read:
            if may_read and self._look(is_wanted):
                self._take_own(token)
            elif may_read:
                self._standing_by = False
        if not has_ended():
            self.resume()

    def _look(self, is_wanted: Callable[[], bool]) -> bool:
        until = time.monotonic() + LOOK_TIME
        while not self._has_come(0):
            if is_wanted() or time.monotonic() > until:
                return False
            os.sched_yield()
        return True

    def _has_come(self, timeout: float | None) -> bool:
        return bool(self._poller.poll(timeout))

    @contextlib.contextmanager
    def _reading(self, has_ended: Callable[[], bool]) -> Iterator[bool]:
        mine = False
        try:
            with self._lock:
                # It may have ended already, and that be why the results thread stands by.
                mine = self._standing_by and not self._caller_reads and not has_ended()
                self._caller_reads |= mine
            yield mine
        finally:
            if mine:
                with self._lock:
                    self._caller_reads = False
                    self._calls_read += 1
                    if self._waits_for_caller or not self._standing_by:
                        self._changed.notify()

    def _take_own(self, token: int) -> None:
        """Take the outcome of one event, or leave what came to the results thread."""
        with contextlib.suppress(OSError):  # the dispatcher is gone: the results thread finds that out
            data = self._socket.recv(MAX_OUTCOME, socket.MSG_PEEK)
            buffer = bytearray(data)
            payloads = split_frames(buffer)
            if len(payloads) == 1 and not buffer:
                batch = m.unpack(payloads[0])
                if len(batch) == 1 and _ends_alone(batch[0], token):
                    self._deliver(batch)
                    self._socket.recv(len(data))
                    return
        self._standing_by = False


def _ends_alone(message: Any, token: int) -> bool:
    """Tell whether a message ends an event and nothing has come beside it, which a look would lose."""
    return type(message) is m.Outcome and message.token == token and not message.segments
