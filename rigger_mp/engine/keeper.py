"""Between scheduler and spool: what the scheduler hands over and finishes is written down before anything else.

::

    scheduler.handed ───▶ spool.write ──▶ scheduler.kept: the jobs may be sent, and their events go on
    scheduler.changes ─▶                └▶ scheduler.not_kept: the events end in SpoolError

While the spool cannot be written, what becomes of jobs is remembered and tried again, and the archive gets no more
of them: the marks have room for a limited number that the spool does not know of.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rigger_mp.engine.handover import Handover
from rigger_mp.engine.messages import Log
from rigger_mp.errors import SpoolError

if TYPE_CHECKING:
    from rigger_mp.engine.schedule import Scheduler
    from rigger_mp.engine.spool import Spool

RETRY_TIME = 0.5
"""Seconds between attempts to write to a spool that could not be written."""


class Keeper:
    """See the module.

    Args:
        spool: the spool.
        scheduler: the scheduler.

    Attributes:
        spool: the spool.
        waiting: something could not be written and has to be tried again.
    """

    def __init__(self, spool: Spool, scheduler: Scheduler) -> None:
        self.spool = spool
        self.waiting = False
        self._scheduler = scheduler

    def resume(self) -> None:
        """Queue what the spool kept from before."""
        for job in self.spool.kept():
            self._scheduler.resume(job)

    @property
    def due(self) -> bool:
        """Whether the scheduler has something to be written that was not tried in vain before."""
        return bool(self._scheduler.handed or (self._scheduler.changes and not self.waiting))

    def next_try(self, other: float | None) -> float | None:
        """Return in how many seconds to try again, or ``other`` if that is sooner."""
        if not self.waiting:
            return other
        return RETRY_TIME if other is None else min(other, RETRY_TIME)

    def record(self) -> None:
        """Write down what the scheduler handed over and finished, and tell it."""
        handed, changes = self._scheduler.handed[:], self._scheduler.changes
        self._scheduler.handed.clear()
        if not (handed or changes):
            return
        try:
            keys = self.spool.write([job for handover in handed for job in handover.jobs], changes)
        except SpoolError:
            self._record_singly(handed)
            return
        changes.clear()
        self._wait(False)
        rest = iter(keys)
        for handover in handed:
            self._scheduler.kept(handover, [next(rest) for _ in handover.jobs])

    def _record_singly(self, handed: list[Handover]) -> None:
        """Write as much as can be written: nothing fails because of what another event hands over."""
        try:
            self.spool.write((), self._scheduler.changes)
        except SpoolError:
            self._wait(True)
        else:
            self._scheduler.changes.clear()
            self._wait(False)
        for handover in handed:
            try:
                self._scheduler.kept(handover, self.spool.write(handover.jobs, ()))
            except SpoolError as error:
                self._scheduler.not_kept(handover, str(error))

    def _wait(self, waiting: bool) -> None:
        if waiting == self.waiting:
            return
        self.waiting = waiting
        self._scheduler.hold_archive(waiting)
        detail = f"background jobs wait: {self.spool.broken}" if waiting else "background jobs go on"
        self._scheduler.messages.append(Log(detail))
