"""Names and records of what was lost rather than failed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rigger_mp.engine import messages as m

LOSS_NAMES = {
    m.WORKER_LOST: "WorkerLost",
    m.TIME_LIMIT: "TimeLimitExceeded",
    m.ENGINE_LOST: "EngineLost",
    m.QUARANTINED: "EventQuarantined",
    m.NOT_STARTED: "WorkerNotStarted",
    m.NOT_KEPT: "SpoolError",
}
"""The exception's name of each status that is a loss."""


def loss_record(function: str, type_name: str, detail: str, stage: str = "hook") -> tuple[Any, ...]:
    """Return the record of a loss, in the form of a failure's."""
    return tuple(m.FailureRecord(function, stage, type_name, detail, "", b""))


def last_loss(status: int, detail: str, attempts: int) -> tuple[int, str]:
    """Return the status and the description of a loss after which an event is not run again."""
    if attempts < 2:
        return status, detail
    named = f"{detail}; quarantined after {attempts} attempts (max_retries)"
    return m.QUARANTINED if status == m.WORKER_LOST else status, named


def failures_of(results: Iterable[tuple[Any, ...]]) -> tuple[Any, ...]:
    """Return the failure records among some results."""
    return tuple([result[2] for result in results if result[2] is not None])
