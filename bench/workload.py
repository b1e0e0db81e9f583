"""What a workload is: work of a certain size, the peers that can do it, and the evidence that it was done."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from bench import tally

Size = Mapping[str, int]
Evidence = dict[str, Any]


@dataclass(frozen=True)
class Sample:
    """One measurement.

    Attributes:
        metrics: figures by name; the workload's metric is among them.
        evidence: what shows that the work was done, to be compared with what the workload expects.
    """

    metrics: dict[str, float]
    evidence: Evidence


@dataclass(frozen=True)
class Workload:
    """One kind of work.

    Attributes:
        name: what the command line calls it.
        title: one line for tables.
        about: what is done, for ``--list`` and the README.
        metric: the figure to compare: a name in ``Sample.metrics``; smaller is better.
        unit: its unit, as ``report`` shows it: ``us``, ``ms``, ``s``, ``MiB``, ``ratio``.
        peers: names of peers, ours among them.
        run: does the work with a peer, in a process of its own.
        expect: returns the evidence that a peer must bring.
        full: the size of a run.
        quick: the size of a run that takes about a second.
        smaller: sizes for peers that would take minutes.
        needs: the module that must be installed for it.
        group: ``speed``, or ``profile``: then the table shows all its metrics.
        rounds: how many rounds are enough, however many are asked for; 0: no limit.
    """

    name: str
    title: str
    about: str
    metric: str
    unit: str
    peers: tuple[str, ...]
    run: Callable[[str, Size], Sample]
    expect: Callable[[str, Size], Evidence]
    full: Size
    quick: Size
    smaller: Mapping[str, Size] = field(default_factory=dict)
    needs: str = "sys"
    group: str = "speed"
    rounds: int = 0

    def size(self, peer: str, quick: bool) -> dict[str, int]:
        """Return the size of a peer's samples: none does more than is asked of all."""
        size = dict(self.quick if quick else self.full)
        for key, value in self.smaller.get(peer, {}).items():
            size[key] = min(size[key], value)
        return size


def sum_below(count: int) -> int:
    """Return 0 + 1 + … + (count - 1)."""
    return count * (count - 1) // 2


def counted(before: tally.Tally, **more: Any) -> Evidence:
    """Return the evidence of the calls since ``before``, and more."""
    done = tally.read().since(before)
    return {"calls": done.calls, "sum": done.total, **more}
