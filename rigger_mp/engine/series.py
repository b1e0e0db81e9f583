"""Events of one hook, fired one after another, that nobody waits for: they travel, are ordered and run together. Pure.

::

    fired       a b c d e                      each with a token and arguments
    series      [a b c d e]                    one message, one activity of the scheduler, one job of a worker
    ended       a, b, c ... one by one         each with its own results, commit and outcome

What an event costs by itself (a message, an activity, a job) so is shared by many; what it means is not: if its worker
dies in the middle, those before have ended, one is lost, and those behind are run elsewhere.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rigger_mp.engine import messages as m

if TYPE_CHECKING:
    from rigger_mp.engine.registry import Plan

LONGEST = 64
"""Events that run as one job at most."""
WORK = 0.002
"""Seconds of measured work that one job has at most, where it has several events."""


@dataclass(slots=True, eq=False)
class Series:
    """The events that one activity stands for.

    Attributes:
        events: the token and the arguments of each that has not ended, in their order.
        ended: how many of those that were sent to a worker together have ended.
    """

    events: deque[tuple[int, bytes]]
    ended: int = 0


def gather(messages: Iterable[Any]) -> list[Any]:
    """Return messages with series in the place of events that can be in one."""
    gathered: list[Any] = []
    hook, events = "", list[tuple[int, bytes]]()
    for message in messages:
        if type(message) is not m.Event or message.since != m.NOBODY_WAITS or message.segments:
            gathered.append(message)
            events = []
        elif events and message.hook == hook:
            events.append((message.token, message.arguments))
        else:
            hook, events = message.hook, [(message.token, message.arguments)]
            gathered.append(m.Series(hook, events))
    return gathered


def join_done(messages: Iterable[tuple[Any, int]]) -> Iterator[tuple[Any, int]]:
    """Return messages of a worker, with their sizes, what ends events of a series one after another joined into one."""
    joined: m.DoneOfSeries | None = None
    results: list[Any] = []
    for message, size in messages:
        if type(message) is not m.DoneOfSeries:
            if joined is not None:
                yield joined._replace(results=results), 0
                joined = None
            yield message, size
        elif joined is not None and message.job == joined.job and message.place == joined.place + len(results):
            results += message.results
        else:
            if joined is not None:
                yield joined._replace(results=results), 0
            joined, results = message, list(message.results)
    if joined is not None:
        yield joined._replace(results=results), 0


def length_of_series(plan: Plan, threaded: bool, estimate: float | None) -> int:
    """Return how many events of a plan may run as one job: 1 unless they are ordered and one worker runs all of them.

    Args:
        plan: what each of them runs.
        threaded: functions of one stage run in parallel.
        estimate: seconds that one of them will hardly exceed, ``None`` if unknown.
    """
    if plan.concurrent or plan.background or plan.fused_home is None or not plan.stages:
        return 1
    if plan.max_retries or (threaded and plan.widest > 1) or estimate is None:
        return 1
    return max(1, min(LONGEST, int(WORK / max(estimate, WORK / LONGEST))))


def divide(events: Iterable[tuple[int, bytes]], length: int) -> list[Series]:
    """Return series of at most ``length`` of these events, in their order."""
    rest = list(events)
    return [Series(deque(rest[start : start + length])) for start in range(0, len(rest), length)]
