"""Which workers have said nothing for a while, though they may keep results: those before a job that takes long.

A worker sends results when it is through with what it was sent, or after some milliseconds, but never in the middle of
a job. What it has finished by then is in its journal, where the dispatcher takes it from. One look at each silence is
enough: results that are kept after it come from jobs that end later, and by then what is kept is due to be sent.
"""

from __future__ import annotations

import time

from rigger_mp.engine.supervisor import Seat

SILENCE = 0.02
"""Seconds: several times as many as a worker keeps results while it goes from job to job."""


class Silence:
    """See the module."""

    def __init__(self) -> None:
        self._due: dict[Seat, float] = {}  # in the order of time

    def note(self, seat: Seat) -> None:
        """Note that a seat was just sent something, or has just said something."""
        self._due.pop(seat, None)
        tasks = seat.slot.outstanding
        if len(tasks) > 1 or any(task.activity.count > 1 for task in tasks.values()):
            self._due[seat] = time.monotonic() + SILENCE

    def limit(self, seconds: float | None) -> float | None:
        """Return how long to wait at most, where it were ``seconds`` otherwise (``None``: for ever)."""
        for due in self._due.values():
            remaining = max(0.0, due - time.monotonic())
            return remaining if seconds is None else min(seconds, remaining)
        return seconds

    def take_silent(self) -> list[Seat]:
        """Return, once for each silence, the seats that have been silent for long enough."""
        if not self._due:
            return []
        now = time.monotonic()
        silent = [seat for seat, due in self._due.items() if due <= now]
        for seat in silent:
            del self._due[seat]
        return silent
