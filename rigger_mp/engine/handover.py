"""Handing background functions over: from an event to jobs that a spool can keep, and from those to activities.

Pure, like the scheduler that it is a part of.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from rigger_mp.engine.activity import BACKGROUND, Activity
from rigger_mp.engine.kept_jobs import Change, DamagedPayloadError, Died, Finished, KeptJob, NewJob, Payload
from rigger_mp.engine.messages import FailureRecord
from rigger_mp.engine.registry import Function, Plan
from rigger_mp.namespace import Chain


class Handover(NamedTuple):
    """What an event hands over, all or nothing: a job for each function of ``event.plan.background``."""

    event: Activity
    jobs: tuple[NewJob, ...]


class UnrunnableError(Exception):
    """Raised when a kept job cannot be run: ``type_name`` is that of the error to report."""

    def __init__(self, type_name: str, reason: str) -> None:
        super().__init__(reason)
        self.type_name = type_name


def hand_over(event: Activity, pinned: dict[str, Chain]) -> Handover:
    """Return what an event hands over now; ``pinned`` are the globals that its functions will see."""
    plan = event.plan
    segments = event.segments + event.update_segments
    payload = Payload(event.arguments, event.updates, event.overlay, pinned, segments)
    return Handover(event, tuple(NewJob(plan.hook, f.id, f.label, event.depth, payload) for f in plan.background))


def revive(job: KeptJob, plan: Plan) -> tuple[Activity, Function]:
    """Return the activity of a job that the spool kept from before, and the function to run.

    Raises:
        UnrunnableError: it has been interrupted too often, or something that it needs is not there.
    """
    function = next((f for f in plan.background if f.id == job.function), None)
    if function is None:
        raise UnrunnableError("PluginError", f"{job.label} is not there to be run in the background any more")
    if job.attempts > function.max_retries:
        counts = f"attempts: {job.attempts}; max_retries is {function.max_retries}"
        raise UnrunnableError("EngineLost", f"it was running when its process was killed ({counts})")
    try:
        payload = Payload.load(job.payload)
    except DamagedPayloadError:
        raise UnrunnableError("SpoolError", "its arguments are damaged in the spool") from None
    activity = background_activity(plan, payload, job.depth, job.key)
    activity.retries = job.attempts
    return activity, function


def background_activity(plan: Plan, payload: Payload, depth: int, key: int) -> Activity:
    """Return the activity that runs a background function."""
    activity = Activity(BACKGROUND, 0, plan, payload.arguments, depth=depth, ordered=False, key=key)
    activity.updates, activity.overlay, activity.pinned = payload.updates, payload.overlay, payload.pinned
    activity.segments = payload.segments
    return activity


def change_at_end(job: Activity, failure: tuple[Any, ...] | None) -> Change:
    """Return what the spool is told of a job that has ended."""
    if failure is None:
        return Finished(job.key)
    record = FailureRecord._make(failure)
    return Died(job.key, job.retries + 1, f"{record.type_name}: {record.message}", record.traceback)
