"""How activities end: what is told to the user's process, and what is counted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rigger_mp.engine import messages as m
from rigger_mp.engine.activity import EVENT, Activity, Slot, Task
from rigger_mp.engine.counters import Counters
from rigger_mp.engine.estimate import Estimates
from rigger_mp.engine.losses import LOSS_NAMES, loss_record

Results = tuple[tuple[tuple[Any, ...], ...], ...]
"""The fields of each :class:`~rigger_mp.engine.messages.Result` of a job, by stage."""


class Outcomes:
    """Turns endings into messages and counts.

    Attributes:
        counters: what has happened.
        messages: for the user's process; whoever sends them clears it.
        completed: the tokens of events that ended well and that nobody waits for; likewise.
    """

    def __init__(self) -> None:
        self.counters = Counters()
        self.messages: list[Any] = []
        self.completed: list[int] = []

    def report(
        self,
        activity: Activity,
        status: int,
        failures: tuple[Any, ...],
        detail: str,
        version: int,
        *,
        news: tuple[m.CommitEntry, ...] | None = None,
    ) -> None:
        """Tell how an activity ended; ``version`` is that of the globals by then, ``news`` how they came to it."""
        hook = activity.plan.hook
        if activity.series is not None:
            for token, _ in activity.series.events:
                self.failed(m.Outcome(token, status, (), failures, version, detail, hook))
            return
        if activity.kind is EVENT:
            self.counters.ended(hook, status)
        if status == m.OK and activity.since == m.NOBODY_WAITS:
            self.completed.append(activity.token)
        elif activity.token:
            updates = activity.updates
            segments = activity.update_segments if status == m.OK else ()
            self.messages.append(
                m.Outcome(activity.token, status, updates, failures, version, detail, hook, segments, news)
            )
        elif status != m.OK:
            self.squashed(hook, failures or (loss_record(hook, LOSS_NAMES[status], detail),))

    def succeeded(self, hook: str, token: int) -> None:
        """Tell that an event ended well that nobody waits for."""
        self.counters.ended(hook, m.OK)
        self.completed.append(token)

    def failed(self, outcome: m.Outcome) -> None:
        """Tell that an event ended otherwise that nobody waits for."""
        self.counters.ended(outcome.hook, outcome.status)
        self.messages.append(outcome)

    def squashed(self, hook: str, failures: tuple[Any, ...]) -> None:
        """Tell of failures that no caller gets."""
        self.messages.append(m.Squashed(hook, failures))

    def refuse(self, hook: str, type_name: str, detail: str) -> None:
        """Tell that a nested event was not accepted."""
        self.counters.accepted += 1
        self.counters.ended_lost(hook)
        self.squashed(hook, (loss_record(hook, type_name, detail),))

    def lose_background(self, task: Task, status: int, detail: str) -> None:
        """Tell that a background handler was lost."""
        labels = ", ".join(function.label for stage in task.stages for function in stage)
        record = loss_record(labels, LOSS_NAMES[status], detail, stage="background")
        self.squashed(task.activity.plan.hook, (record,))

    def count_calls(self, slot: Slot, task: Task, results: Results, estimates: Estimates) -> None:
        """Count the calls of a job, and take the time of each into account."""
        total = 0.0
        for stage, stage_results in zip(task.stages, results, strict=False):
            for function, (_, _, failure, seconds) in zip(stage, stage_results, strict=False):
                total += seconds
                estimates.record(function.id, seconds)
                self.counters.called(function, seconds, failure is not None)
        slot.busy += total
        self.counters.spent(task.activity.plan.hook, total)

    def count_calls_of_series(self, slot: Slot, task: Task, results: Sequence[Results], estimates: Estimates) -> None:
        """Count the calls of events of a series that have ended together; each function is measured by their mean."""
        total = 0.0
        for step, stage in enumerate(task.stages):
            for place, function in enumerate(stage):
                called = [of_one[step][place] for of_one in results if len(of_one) > step and len(of_one[step]) > place]
                if called:
                    seconds = sum([result[3] for result in called])
                    total += seconds
                    estimates.record(function.id, seconds / len(called))
                    failed = len(called) - [result[2] for result in called].count(None)
                    self.counters.called(function, seconds, failed, len(called))
        slot.busy += total
        self.counters.spent(task.activity.plan.hook, total)
