"""How events end, from the message to what the caller sees."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rigger_mp import errors
from rigger_mp.encoding import PLAIN, Encoded, load_names
from rigger_mp.engine import messages as m
from rigger_mp.engine.failures import load_failure
from rigger_mp.engine.manager_client import GlobalsReader
from rigger_mp.engine.segments import Arguments, Segment
from rigger_mp.engine.snapshots import Snapshot
from rigger_mp.errors import (
    EngineLost,
    EventQuarantined,
    HookError,
    RiggerError,
    SpoolError,
    TimeLimitExceeded,
    WorkerLost,
    WorkerNotStarted,
)
from rigger_mp.namespace import Chain
from rigger_mp.result import HookResult

_LOSSES: dict[int, type[RiggerError]] = {
    m.WORKER_LOST: WorkerLost,
    m.TIME_LIMIT: TimeLimitExceeded,
    m.ENGINE_LOST: EngineLost,
    m.QUARANTINED: EventQuarantined,
    m.NOT_STARTED: WorkerNotStarted,
    m.NOT_KEPT: SpoolError,
}

_ABSENT = object()


class Ended:
    """An event that the dispatcher has ended."""

    __slots__ = ("_arguments", "_config", "_outcome", "_reader", "_segments", "_snapshot")

    def __init__(
        self, outcome: m.Outcome, arguments: Arguments, config: Encoded, reader: GlobalsReader, snapshot: Snapshot
    ) -> None:
        self._outcome = outcome
        self._arguments, segments = arguments
        self._segments: tuple[Segment, ...] = segments + outcome.segments if outcome.status == m.OK else ()
        for segment in self._segments:
            segment.map_for_one()
        self._config = config
        self._reader = reader
        self._snapshot = snapshot

    def open(self) -> HookResult:
        """Return the result.

        Raises:
            HookError: functions failed.
            EventLost: a process was lost.
            SpoolError: its background functions could not be written to the spool.
        """
        outcome = self._outcome
        if outcome.status != m.OK:
            raise self._error()
        return HookResult(
            outcome.hook,
            arguments=self._arguments,
            segments=self._segments,
            updates=outcome.updates,
            config=self._config,
            reader=self._reader,
            snapshot=self._snapshot,
            version=outcome.version,
        )

    @property
    def succeeded(self) -> bool:
        """Whether :meth:`open` returns a result; asking runs no user code."""
        return self._outcome.status == m.OK

    def plain_values(self, names: Iterable[str] | None) -> dict[str, Any] | None:
        """Return the values of those names where all are local and plain: then no user code runs in reading them.

        ``None`` if they are not, or the event did not succeed. Without names, of all locals.
        """
        if self._outcome.status != m.OK or self._segments:
            return None
        local = load_names(self._arguments)
        for group in self._outcome.updates:
            for update in group:
                local |= load_names(update)
        local["config"] = self._config
        if names is None:
            del local["config"]
            names = local
        values = {name: local.get(name, _ABSENT) for name in names}
        return values if all(type(value) in PLAIN for value in values.values()) else None

    @property
    def size(self) -> int:
        """About how many bytes it holds."""
        beside = sum(segment.size for segment in self._segments)
        updates = sum(len(update) for group in self._outcome.updates for update in group)
        return len(self._arguments) + updates + beside

    @property
    def version(self) -> int:
        """The version of the globals when it ended."""
        return self._outcome.version

    @property
    def news(self) -> tuple[m.CommitEntry, ...] | None:
        """What was committed since the version that the event named, ``None`` if that is not known."""
        return self._outcome.news

    def read_globals(self) -> dict[str, Chain]:
        """Return the globals when it ended; asks the Manager."""
        return self._reader.read(None, self._outcome.version)

    def exceptions(self) -> list[BaseException]:
        """Return what went wrong, function by function."""
        outcome = self._outcome
        if outcome.status == m.FAILED:
            return [exception_of(outcome.hook, fields) for fields in outcome.failures]
        return [self._error()]

    def _error(self) -> RiggerError:
        outcome = self._outcome
        if outcome.status == m.FAILED:
            return HookError(outcome.hook, [load_failure(fields) for fields in outcome.failures])
        return _LOSSES[outcome.status](f"hook {outcome.hook!r}: {outcome.detail}")


class Lost:
    """An event that the dispatcher will never end."""

    __slots__ = ("_detail", "_hook")

    succeeded = False
    size = 0

    def __init__(self, hook: str, detail: str) -> None:
        self._hook = hook
        self._detail = detail

    def open(self) -> HookResult:
        """Raise :class:`EngineLost`."""
        raise self.exceptions()[0]

    def exceptions(self) -> list[BaseException]:
        """Return the one thing that went wrong."""
        return [EngineLost(f"hook {self._hook!r}: {self._detail} before the event was finished")]


def exception_of(hook: str, fields: tuple[Any, ...]) -> BaseException:
    """Return the exception of a failed function: its own, where it could travel."""
    failure = load_failure(fields)
    if failure.exception is not None:
        return failure.exception
    loss = getattr(errors, failure.type_name, None)
    if not failure.traceback and isinstance(loss, type) and issubclass(loss, RiggerError):
        return loss(f"hook {hook!r}: {failure.message}")
    return HookError(hook, [failure])
