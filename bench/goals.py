"""The goals, and whether a run met them. Each figure is computed from the run's samples."""

from __future__ import annotations

from dataclasses import dataclass

from bench.figures import Run, Spread
from bench.peers import OURS, PEERS

MET, NOT_MET, NOT_MEASURED = "met", "not met", "not measured"


@dataclass(frozen=True)
class Goal:
    """A bound of one figure.

    Attributes:
        text: what is asked for.
        workload: where it is measured.
        above: peer and metric of the figure, or of the upper part of a ratio.
        below: peer and metric of the lower part; ``None``: the figure is no ratio.
        limit: the bound.
        at_most: whether the figure must not exceed the bound; else it must reach it.
        factor: what the ratio is multiplied with.
        unit: the unit of the figure.
    """

    text: str
    workload: str
    above: tuple[str, str]
    below: tuple[str, str] | None
    limit: float
    at_most: bool
    factor: float = 1.0
    unit: str = ""

    def figure(self, run: Run) -> Spread | None:
        """Return the figure of a run, ``None`` if there is none that was verified."""
        if self.below is None:
            found = run.figure(self.workload, *self.above)
        else:
            found = run.ratio(self.workload, self.above, self.below)
        return found and Spread(found.median * self.factor, found.low * self.factor, found.high * self.factor)

    def verdict(self, run: Run) -> str:
        """Return whether a run met it."""
        figure = self.figure(run)
        if figure is None:
            return NOT_MEASURED
        holds = figure.median <= self.limit if self.at_most else figure.median >= self.limit
        return MET if holds else NOT_MET

    def missing(self, run: Run) -> str:
        """Return why there is no figure."""
        if self.workload not in run.samples:
            return f"{self.workload} was not run"
        peers = [side[0] for side in (self.above, self.below) if side is not None]
        for peer in peers:
            if why := run.absent.get(self.workload, {}).get(peer) or next(iter(run.refusals(self.workload, peer)), ""):
                return f"{PEERS[peer].title}: {why}"
        return "no round in which all were measured"


def _at_most(text: str, workload: str, metric: str, peer: str, limit: float) -> Goal:
    """Ours may take at most ``limit`` times what the peer takes."""
    return Goal(f"{text} ≤ {limit} × {PEERS[peer].title}", workload, (OURS, metric), (peer, metric), limit, True)


def _at_least(text: str, workload: str, metric: str, peer: str, limit: float) -> Goal:
    """The peer must take at least ``limit`` times what ours takes."""
    title = f"{text} ≥ {limit} × as fast as {PEERS[peer].title}"
    return Goal(title, workload, (peer, metric), (OURS, metric), limit, False)


def _of_ideal(milliseconds: int, limit: float) -> Goal:
    """Two workers must take hardly more than half of what a loop takes."""
    text = f"CPU-bound hooks of {milliseconds} ms: ≥ {limit} of ideal (serial time / 2)"
    sides = ("serial", "per_call"), (OURS, "per_call")
    return Goal(text, f"cpu-{milliseconds}ms", *sides, limit, False, 0.5)


def _bound(text: str, workload: str, metric: str, limit: float, unit: str = "") -> Goal:
    """A figure of ours by itself."""
    return Goal(f"{text} ≤ {limit} {unit}".rstrip(), workload, (OURS, metric), None, limit, True, unit=unit)


GOALS = (
    _at_most("blocking fire_hook, no-op:", "blocking", "median", "ppe", 1.0),
    _at_most("blocking fire_hook, no-op:", "blocking", "median", "relay", 1.4),
    _at_least("blocking, over riggerlib's client with grab_result:", "blocking", "median", "riggerlib-client", 500),
    _at_least("submit, outcomes awaited:", "submit", "per_event", "ppe", 4),
    _at_least("submit, outcomes awaited:", "submit", "per_event", "pool", 1.0),
    _at_least("pre callback + hook + post callback:", "callbacks", "per_event", "riggerlib", 1.5),
    _at_least("pre callback + hook + post callback:", "callbacks", "per_event", "riggerlib-threaded", 60),
    _of_ideal(10, 0.97),
    _of_ideal(1, 0.92),
    _at_most("one event, 4 CPU-bound plugins of 50 ms:", "fan-out", "per_event", "rigger_mp-sequential", 0.55),
    _bound("1 ms hooks beside 500 ms ones, against alone: slowdown", "mixed", "slowdown", 2.0),
    _at_most("64 MiB of bytes to 4 plugins:", "large-bytes", "per_event", "ppe", 0.15),
    _at_most("64 MiB of bytes to 4 plugins:", "large-bytes", "per_event", "ray", 0.4),
    _at_most("64 MiB NumPy array to 4 plugins:", "large-array", "per_event", "ppe", 0.15),
    _at_most("64 MiB NumPy array to 4 plugins:", "large-array", "per_event", "ray", 0.4),
    _bound("growing global namespace: last tenth / first tenth", "growth", "last_over_first", 1.2),
    _bound("200 plugins on an event against 20: cost per function (1.1: noise)", "many-plugins", "growth", 1.1),
    _bound("2,000 hooks registered against 20: cost per event (1.1: noise)", "many-hooks", "growth", 1.1),
    _at_most("start to first outcome:", "start", "first_result", "ppe-forkserver", 2.0),
    _bound("idle engine, 2 workers, sum of USS", "memory", "uss", 60, "MiB"),
    _bound("1,000,000 events with queue_size 10,000: memory at the end / at first", "endurance", "growth", 1.05),
    _at_least("remote: events without results:", "remote-events", "per_event", "riggerlib-client", 3),
    _at_least("remote: round trips with grab_result:", "remote-trips", "median", "riggerlib-client", 300),
)
