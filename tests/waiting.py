"""Waiting for a condition, with a deadline."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

DEADLINE = 30.0
"""Seconds: far beyond what even a slow machine needs."""


def wait_for(condition: Callable[[], object], deadline: float = DEADLINE) -> None:
    """Return once the condition holds.

    Raises:
        TimeoutError: it did not in time.
    """
    end = time.monotonic() + deadline
    pause = threading.Event()
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"not within {deadline} s: {condition}")
        pause.wait(0.01)
