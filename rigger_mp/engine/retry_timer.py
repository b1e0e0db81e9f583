"""When tasks that lost their process are run again: exponential backoff with full jitter.

A process that dies because something else is down or overloaded had better not come back at once, nor together with
all others.
"""

from __future__ import annotations

import heapq
import itertools
import time
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")

MOST_GROWTH = 50
"""How many times as long as the first wait the longest may be."""


def pick_between(low: float, high: float) -> float:
    """Return a random number between two others."""
    import random  # noqa: PLC0415 - it would be a tenth of the dispatcher's start

    return random.uniform(low, high)


class RetryTimer(Generic[T]):
    """Keeps what is to be run again until its time has come.

    Args:
        delay: seconds that the first retry waits at most; each further one waits up to twice as long as the one
            before, up to ``MOST_GROWTH`` times this.
        clock: tells the time in seconds.
        pick: returns a number between two others.
    """

    def __init__(
        self,
        delay: float,
        clock: Callable[[], float] = time.monotonic,
        pick: Callable[[float, float], float] = pick_between,
    ) -> None:
        self._delay = delay
        self._clock = clock
        self._pick = pick
        self._numbers = itertools.count()
        self._heap: list[tuple[float, int, T]] = []

    def add(self, item: T, retry: int) -> None:
        """Keep something until its ``retry``-th retry, counted from 1."""
        most = self._delay * min(2 ** min(retry - 1, MOST_GROWTH), MOST_GROWTH)
        heapq.heappush(self._heap, (self._clock() + self._pick(0.0, most), next(self._numbers), item))

    def take_due(self) -> list[T]:
        """Take out everything whose time has come."""
        due: list[T] = []
        while self._heap and self._heap[0][0] <= self._clock():
            due.append(heapq.heappop(self._heap)[2])
        return due

    def limit(self, seconds: float | None) -> float | None:
        """Return how long to wait: ``seconds`` (``None``: for ever), or less if something is due before."""
        if not self._heap:
            return seconds
        remaining = max(0.0, self._heap[0][0] - self._clock())
        return remaining if seconds is None else min(seconds, remaining)
