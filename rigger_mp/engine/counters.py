"""What has happened so far, counted: the numbers behind ``Rigger.stats``."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from rigger_mp.engine import messages as m
from rigger_mp.engine.registry import Function


class Counters:
    """Counts of events by hook and of calls by function.

    Attributes:
        accepted: events (and writes and configure calls) accepted.
        succeeded, failed, lost: events that ended so.
    """

    def __init__(self) -> None:
        self.accepted = 0
        self.succeeded = 0
        self.failed = 0
        self.lost = 0
        self._hooks: defaultdict[str, list[Any]] = defaultdict(lambda: [0, 0, 0.0])
        self._functions: dict[str, list[Any]] = {}

    def ended(self, hook: str, status: int) -> None:
        """Count an event that ended with a status."""
        row = self._hooks[hook]
        row[0] += 1
        if status == m.OK:
            self.succeeded += 1
            return
        row[1] += 1
        if status == m.FAILED:
            self.failed += 1
        else:
            self.lost += 1

    def ended_lost(self, hook: str) -> None:
        """Count an event that was refused after it had been accepted."""
        self.ended(hook, m.ENGINE_LOST)

    def called(self, function: Function, seconds: float, failed: int, calls: int = 1) -> None:
        """Count calls of a function, of which so many failed, and the seconds that all of them took."""
        row = self._functions.get(function.label)
        if row is None:
            row = self._functions[function.label] = [function.ident, 0, 0, 0.0]
        row[1] += calls
        row[2] += failed
        row[3] += seconds

    def spent(self, hook: str, seconds: float) -> None:
        """Count seconds that functions ran for a hook."""
        self._hooks[hook][2] += seconds

    def hooks(self) -> dict[str, dict[str, Any]]:
        """Return events, failures and seconds by hook."""
        return {
            hook: {"events": events, "failures": failures, "seconds": seconds}
            for hook, (events, failures, seconds) in self._hooks.items()
        }

    def functions(self) -> dict[str, dict[str, Any]]:
        """Return calls, failures and seconds by function."""
        return {
            label: {"ident": row[0], "calls": row[1], "failures": row[2], "seconds": row[3]}
            for label, row in self._functions.items()
        }
