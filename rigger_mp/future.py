"""The future of an event."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from concurrent.futures._base import FINISHED, RUNNING
from typing import Any, Protocol

from rigger_mp.errors import DeadlockError, RiggerError
from rigger_mp.result import HookResult


class Ending(Protocol):
    """How an event ended, still encoded."""

    def open(self) -> HookResult:
        """Return the result.

        Raises:
            RiggerError: the event failed or was lost.
        """


_making = threading.Lock()
"""Held for moments: while a future ends that nobody has looked at, or the first one looks."""


class HookFuture(Future[HookResult]):
    """The :class:`concurrent.futures.Future` of an event; what it holds is decoded by whoever asks.

    It cannot be cancelled: an accepted event ends in its outcome.

    Args:
        delivered_by: the thread that ends it, and must not wait for it.
    """

    def __init__(self, delivered_by: threading.Thread | None = None) -> None:
        self._delivered_by = delivered_by
        # As Future does, but for its condition: making that would take a third of what it takes to submit an
        # event, and of many events in flight most have ended before anybody looks at their futures.
        self._looked_at: threading.Condition | None = None
        self._state = RUNNING
        self._result: Any = None
        self._exception: BaseException | None = None
        self._waiters: list[Any] = []
        self._done_callbacks: list[Any] = []
        self._opened: HookResult | RiggerError | None = None

    @property
    def _condition(self) -> threading.Condition:  # type: ignore[override]  # made when it is first used
        if self._looked_at is None:
            with _making:
                self._looked_at = self._looked_at or threading.Condition()
        return self._looked_at

    def end(self, ending: Ending) -> None:
        """Set how the event ended."""
        held: Any = ending
        with _making:
            if self._looked_at is None:
                self._result, self._state = held, FINISHED
                return
        self.set_result(held)

    def result(self, timeout: float | None = None) -> HookResult:
        """Return the result, waiting for it up to ``timeout`` seconds.

        Raises:
            HookError: functions of the event failed.
            EventLost: as one of its subclasses: the event was lost.
            TimeoutError: it has not ended yet.
            DeadlockError: it has not ended yet, and this is the thread that ends it: a callback of a future, or
                ``handle_failure``.
        """
        opened = self._open(timeout)
        if isinstance(opened, RiggerError):
            raise opened
        return opened

    def exception(self, timeout: float | None = None) -> RiggerError | None:
        """Return what :meth:`result` would raise, or ``None``.

        Raises:
            TimeoutError, DeadlockError: as :meth:`result` does.
        """
        opened = self._open(timeout)
        return opened if isinstance(opened, RiggerError) else None

    def _open(self, timeout: float | None) -> HookResult | RiggerError:
        if self._state != FINISHED and threading.current_thread() is self._delivered_by:
            raise DeadlockError(
                "a future would wait for ever: this thread (handle_failure, log_message, and callbacks of "
                "futures run in it) delivers the outcomes; use add_done_callback(...)"
            )
        held: Any = self._result if self._state == FINISHED else super().result(timeout)
        if self._opened is None:
            try:
                self._opened = held.open()
            except RiggerError as error:
                self._opened = error
        return self._opened
