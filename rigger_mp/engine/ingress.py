"""The way into the engine: a ``multiprocessing.Queue`` with one writing and one reading process.

Messages are gathered in a list; what is put into the queue is a token that, when the queue's feeder thread
pickles it, turns into everything gathered by then. A burst so travels in few large frames, and in it what nobody
waits for as series (:mod:`rigger_mp.engine.series`). A message that
somebody waits for, while the feeder has nothing to do, is written to the queue's pipe at once, by the caller:
nothing could be gathered with it, and a switch of threads costs as much as one of processes. What the queue writes is
a pickle of a frame, what the caller writes the frame itself.

The queue's locks stay in the user's process: the dispatcher reads the pipe itself, so that no lock is shared
with a process that can die.
"""

from __future__ import annotations

import marshal
import multiprocessing
import os
import select
import threading
from collections.abc import Callable
from multiprocessing.queues import Queue
from typing import TYPE_CHECKING, Any

from rigger_mp.engine import messages as m
from rigger_mp.engine.frames import frame
from rigger_mp.engine.series import gather

if TYPE_CHECKING:
    _Queue = Queue[Any]
else:
    _Queue = Queue


class _EventQueue(_Queue):
    """A queue whose reader may die, and that tells when its feeder thread has written something.

    Args:
        written: called by the feeder thread after each thing put, whether it could be written or not.
    """

    def __init__(self, written: Callable[[], None]) -> None:
        super().__init__(ctx=multiprocessing.get_context("fork"))
        write: Callable[[bytes], None] = self._writer.send_bytes  # type: ignore[attr-defined]

        def send_bytes(data: bytes) -> None:
            try:
                write(data)
            finally:
                written()

        self._send_bytes = send_bytes

    def put_token(self, token: _Token) -> None:
        """Put a token, as ``put`` does; where Ctrl-C interrupts that, it may be tried again, and be put twice.

        Raises:
            ValueError: the queue is closed.
        """
        own: Any = self  # typeshed knows nothing of what is inside
        if own._closed:
            raise ValueError("the queue is closed")
        own._sem.acquire(False)
        with own._notempty._lock:  # not the Condition: interrupted while it is entered, it would stay locked
            if own._thread is None:
                own._start_thread()
            own._buffer.append(token)
            own._notempty.notify()

    def _on_queue_feeder_error(self, error: BaseException, obj: object) -> None:
        # What cannot be written, because the reader is gone, is somebody else's to report.
        if not isinstance(error, OSError):
            super()._on_queue_feeder_error(error, obj)  # type: ignore[misc]


class _Token:
    """Pickles as the frame of everything gathered by then."""

    def __init__(self, take: Callable[[], bytes]) -> None:
        self._take = take

    def __reduce__(self) -> tuple[type[bytes], tuple[bytes]]:
        return bytes, (self._take(),)


class Ingress:
    """See the module.

    Args:
        floor: returns the version below which the globals will not be read again.
    """

    def __init__(self, floor: Callable[[], int]) -> None:
        self._floor = floor
        self._queue = _EventQueue(self._written)
        self._lock = threading.Lock()
        self._gathered: list[Any] = []
        self._token_put = False
        self._writing = False
        self._token = _Token(self._take)
        self._fd: int = self._queue._writer.fileno()  # type: ignore[attr-defined]
        self._room = select.poll()
        self._room.register(self._fd, select.POLLOUT)

    @property
    def reading_fd(self) -> int:
        """The end of the pipe for the dispatcher."""
        fd: int = self._queue._reader.fileno()  # type: ignore[attr-defined]
        return fd

    def close_reader(self) -> None:
        """Close the reading end here, once the dispatcher has it."""
        self._queue._reader.close()  # type: ignore[attr-defined]

    def put(self, message: Any) -> None:
        """Send a message after those put before, together with what follows soon."""
        try:
            with self._lock:
                self._gathered.append(message)
                if self._token_put:
                    return
                self._token_put = True
            self._queue.put_token(self._token)
        except BaseException:  # Ctrl-C: the token may not be in the queue, or the feeder not know of it
            self._token_put = True
            self._queue.put_token(self._token)
            raise

    def put_now(self, message: Any) -> None:
        """Send a message after those put before, at once if nothing is on its way."""
        with self._lock:
            if not (self._token_put or self._writing) and self._write(message):
                return
        self.put(message)

    def _write(self, message: Any) -> bool:
        """Write a message to the pipe if that takes it whole, without waiting; tell whether it did."""
        data = frame(self._frame([message]))
        if len(data) > select.PIPE_BUF or self._room.poll(0) != [(self._fd, select.POLLOUT)]:
            return False
        try:
            os.write(self._fd, data)
        except OSError:
            return False
        return True

    def _take(self) -> bytes:
        with self._lock:
            gathered, self._gathered = self._gathered, []
            self._token_put, self._writing = False, True
        return self._frame(gather(gathered))

    def _frame(self, messages: list[Any]) -> bytes:
        return marshal.dumps((self._floor(), m.pack(messages)))

    def _written(self) -> None:
        self._writing = False

    def close(self) -> None:
        """Let go of the queue; what is not written by now never will be."""
        self._queue.close()
        self._queue.cancel_join_thread()
