"""From samples to figures: medians with their spread, and ratios round by round."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from bench.measure import Taken


@dataclass(frozen=True)
class Spread:
    """A median between the smallest and the largest of its samples."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread | None:
        """Return the spread of values, ``None`` if there are none."""
        return cls(statistics.median(values), min(values), max(values)) if values else None


@dataclass
class Run:
    """All samples of one run.

    Attributes:
        meta: the machine, the options of the run.
        samples: by workload, then by peer: one a round.
        absent: peers that were not measured, and why: by workload, then by peer.
    """

    meta: dict[str, Any] = field(default_factory=dict)
    samples: dict[str, dict[str, list[Taken]]] = field(default_factory=dict)
    absent: dict[str, dict[str, str]] = field(default_factory=dict)

    def add(self, workload: str, peer: str, taken: Taken) -> None:
        """Keep a sample."""
        self.samples.setdefault(workload, {}).setdefault(peer, []).append(taken)

    def figure(self, workload: str, peer: str, metric: str) -> Spread | None:
        """Return a peer's figure; ``None`` if no sample of it counts."""
        return Spread.of([taken.metrics[metric] for taken in self._taken(workload, peer) if metric in taken.metrics])

    def ratio(self, workload: str, above: tuple[str, str], below: tuple[str, str]) -> Spread | None:
        """Return one figure over another, round by round; each is given as (peer, metric).

        Only rounds in which both were verified count: without any there is no ratio.
        """
        pairs = zip(self._taken(workload, above[0]), self._taken(workload, below[0]), strict=False)
        ratios = [
            one.metrics[above[1]] / other.metrics[below[1]]
            for one, other in pairs
            if above[1] in one.metrics and below[1] in other.metrics and other.metrics[below[1]]
        ]
        return Spread.of(ratios)

    def refusals(self, workload: str, peer: str) -> list[str]:
        """Return why samples of a peer do not count."""
        return [taken.refused for taken in self._taken(workload, peer) if taken.refused]

    def _taken(self, workload: str, peer: str) -> list[Taken]:
        return self.samples.get(workload, {}).get(peer, [])

    def as_json(self) -> dict[str, Any]:
        """Return the run as data."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Run:
        """Return the run that :meth:`as_json` made data of."""
        samples = {
            workload: {peer: [Taken(**taken) for taken in rows] for peer, rows in peers.items()}
            for workload, peers in data["samples"].items()
        }
        return cls(dict(data["meta"]), samples, dict(data["absent"]))
