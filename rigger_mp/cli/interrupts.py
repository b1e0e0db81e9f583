"""Ctrl-C and SIGTERM, and SIGHUP where it means something, counted: the handler only records."""

from __future__ import annotations

import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Self

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupts:
    """Counts interrupts while it is entered; puts the former handlers back afterwards.

    Args:
        hangups: count SIGHUP, too.

    Attributes:
        count: how many interrupts there were.
        hangups: how many SIGHUP.
    """

    def __init__(self, *, hangups: bool = False) -> None:
        self.count = 0
        self.hangups = 0
        self._signals = (*_SIGNALS, signal.SIGHUP) if hangups else _SIGNALS
        self._former: dict[int, Any] = {}

    def __enter__(self) -> Self:
        for number in self._signals:
            self._former[number] = signal.signal(number, self._record)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)

    def _record(self, number: int, _frame: object) -> None:
        if number == signal.SIGHUP:
            self.hangups += 1
        else:
            self.count += 1

    @contextmanager
    def calling(self, wake: Callable[[], None]) -> Iterator[None]:
        """Call ``wake`` in a thread of its own after each interrupt."""
        ours, theirs = socket.socketpair()
        theirs.setblocking(False)
        former = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
        thread = threading.Thread(target=_relay, args=(ours, wake), daemon=True)
        thread.start()
        try:
            yield
        finally:
            signal.set_wakeup_fd(former)
            theirs.close()
            thread.join()
            ours.close()


def _relay(ours: socket.socket, wake: Callable[[], None]) -> None:
    while ours.recv(64):
        wake()
