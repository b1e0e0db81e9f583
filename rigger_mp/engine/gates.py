"""Where whoever wants to send something waits until there may be room for it among what is pending."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Gates:
    """See the module. Not locked: the engine is; true while anybody waits.

    A thread waits at a lock of its own: a Condition, interrupted by Ctrl-C while it wakes, may not have its lock.
    """

    def __init__(self) -> None:
        self._shut: list[threading.Lock] = []
        self._callbacks: list[Callable[[], None]] = []

    def __bool__(self) -> bool:
        return bool(self._shut or self._callbacks)

    def add(self) -> threading.Lock:
        """Return a lock that can be acquired once the gates have been opened."""
        gate = threading.Lock()
        gate.acquire()
        self._shut.append(gate)
        return gate

    def add_callback(self, callback: Callable[[], None]) -> None:
        """Have a function called, once, when the gates are opened."""
        self._callbacks.append(callback)

    def open(self) -> None:
        """Let everybody look again."""
        shut, self._shut = self._shut, []
        for gate in shut:
            gate.release()
        callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback()
