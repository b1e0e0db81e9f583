"""How long functions take, as measured: what prefetching and fanning out are decided by."""

from __future__ import annotations

from collections.abc import Iterable

from rigger_mp.engine.registry import Function


class Estimates:
    """Mean duration and mean deviation of each function, exponentially weighted.

    The weights (1/8 and 1/4) are those of TCP's round-trip estimator, RFC 6298. A first call is slow (imports, cold
    caches), often by far: where the second is quicker, it counts as if it were the first.
    """

    def __init__(self) -> None:
        self._called_once: set[str] = set()
        self._mean: dict[str, float] = {}
        self._deviation: dict[str, float] = {}

    def record(self, function: str, seconds: float) -> None:
        """Take a measurement into account."""
        mean = self._mean.get(function)
        if mean is None:
            self._called_once.add(function)
            self._start(function, seconds)
            return
        if function in self._called_once:
            self._called_once.remove(function)
            if seconds < mean:
                self._start(function, seconds)
                return
        error = seconds - mean
        self._mean[function] = mean + error / 8
        deviation = self._deviation[function]
        self._deviation[function] = deviation + (abs(error) - deviation) / 4

    def _start(self, function: str, seconds: float) -> None:
        self._mean[function] = seconds
        self._deviation[function] = seconds / 2

    def upper(self, stages: Iterable[Iterable[Function]]) -> float | None:
        """Return seconds that these functions will hardly exceed in sum, ``None`` if one is unmeasured."""
        total = 0.0
        for stage in stages:
            for function in stage:
                mean = self._mean.get(function.id)
                if mean is None:
                    return None
                total += mean + 2 * self._deviation[function.id]
        return total
