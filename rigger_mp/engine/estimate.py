"""How long functions take, as measured: what prefetching and fanning out are decided by."""

from __future__ import annotations

from rigger_mp.engine.registry import Stage

Stages = tuple[Stage, ...]

_MEAN, _DEVIATION, _CALLS = 0, 1, 2
"""Places in a row; of the calls, only the first is told from the others."""


class Estimates:
    """Mean duration and mean deviation of each function, exponentially weighted.

    The weights (1/8 and 1/4) are those of TCP's round-trip estimator, RFC 6298. A first call is slow (imports, cold
    caches), often by far: where the second is quicker, it counts as if it were the first.
    """

    def __init__(self) -> None:
        self._rows: dict[str, list[float]] = {}
        self._asked: Stages | None = None
        self._answer: float | None = 0.0

    def record(self, function: str, seconds: float) -> None:
        """Take a measurement into account."""
        self._asked = None
        row = self._rows.get(function)
        if row is None or (row[_CALLS] == 1 and seconds < row[_MEAN]):
            self._rows[function] = [seconds, seconds / 2, 1 if row is None else 2]
            return
        error = seconds - row[_MEAN]
        row[_MEAN] += error / 8
        row[_DEVIATION] += (abs(error) - row[_DEVIATION]) / 4
        row[_CALLS] = 2

    def upper(self, stages: Stages) -> float | None:
        """Return seconds that these functions will hardly exceed in sum, ``None`` if one is unmeasured."""
        if stages is not self._asked:  # the same plan is asked for several times between two measurements
            self._answer = self._sum(stages)
            self._asked = stages
        return self._answer

    def _sum(self, stages: Stages) -> float | None:
        total = 0.0
        for stage in stages:
            for function in stage:
                row = self._rows.get(function.id)
                if row is None:
                    return None
                total += row[_MEAN] + 2 * row[_DEVIATION]
        return total
