"""The functions that every peer runs. Each takes one value, returns nothing, and counts its call."""

from __future__ import annotations

import time
from typing import Any

from bench import tally

PAGE = 4096


def noop(value: int) -> None:
    """Do nothing."""
    tally.add(value)


def burn(value: int) -> None:
    """Compute ``value`` rounds of something that no cache or sleep can shorten; count the result."""
    tally.add(churn(value))


def stamp(value: int) -> None:
    """Note when the call ran."""
    tally.stamp(value)


def measure(value: Any) -> None:
    """Touch every page of a large value: ``bytes`` or a NumPy array of bytes."""
    tally.add(checksum(value))


def churn(rounds: int) -> int:
    """Return the end of a chain of ``rounds`` dependent integer operations."""
    state = 1
    for _ in range(rounds):
        state = (state * 1103515245 + 12345) & 0x7FFFFFFF
    return state


def checksum(value: Any) -> int:
    """Return length plus the first byte of every page."""
    strided = value[::PAGE]
    return len(value) + int(strided.sum() if hasattr(strided, "sum") else sum(strided))


def calibrate(seconds: float = 0.3) -> int:
    """Return how many rounds of :func:`churn` take one millisecond of CPU time here and now."""
    rounds, best = 20_000, float("inf")
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        start = time.thread_time()
        churn(rounds)
        best = min(best, time.thread_time() - start)
    return max(1, round(rounds * 0.001 / best))


BY_NAME = {"noop": noop, "stamp": stamp, "burn": burn, "measure": measure}
"""The functions by the names that peers with named tasks know them by."""
