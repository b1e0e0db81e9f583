"""The way into the engine: a ``multiprocessing.Queue`` with one writing and one reading process.

Messages are gathered in a list; what is put into the queue is a token that, when the queue's feeder thread
pickles it, turns into everything gathered by then. One message alone travels at once; a burst travels in
few large frames.

The queue's locks stay in the user's process: the dispatcher reads the pipe itself, so that no lock is shared
with a process that can die.
"""

from __future__ import annotations

import marshal
import multiprocessing
import threading
from collections.abc import Callable
from multiprocessing.queues import Queue
from typing import TYPE_CHECKING, Any

from rigger_mp.engine import messages as m

if TYPE_CHECKING:
    _Queue = Queue[Any]
else:
    _Queue = Queue


class _EventQueue(_Queue):
    """A queue whose reader may die: what then cannot be written is somebody else's to report."""

    def _on_queue_feeder_error(self, error: BaseException, obj: object) -> None:
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
        self._queue = _EventQueue(ctx=multiprocessing.get_context("fork"))
        self._lock = threading.Lock()
        self._gathered: list[Any] = []
        self._token_put = False
        self._token = _Token(self._take)

    @property
    def reading_fd(self) -> int:
        """The end of the pipe for the dispatcher."""
        fd: int = self._queue._reader.fileno()  # type: ignore[attr-defined]
        return fd

    def close_reader(self) -> None:
        """Close the reading end here, once the dispatcher has it."""
        self._queue._reader.close()  # type: ignore[attr-defined]

    def put(self, message: Any) -> None:
        """Send a message after those put before."""
        with self._lock:
            self._gathered.append(message)
            if self._token_put:
                return
            self._token_put = True
        self._queue.put(self._token)

    def _take(self) -> bytes:
        with self._lock:
            gathered, self._gathered = self._gathered, []
            self._token_put = False
        return marshal.dumps((self._floor(), m.pack(gathered)))

    def close(self) -> None:
        """Let go of the queue; what is not written by now never will be."""
        self._queue.close()
        self._queue.cancel_join_thread()
