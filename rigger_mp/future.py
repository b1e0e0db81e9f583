"""The future of an event."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any, Protocol

from rigger_mp.errors import RiggerError
from rigger_mp.result import HookResult


class Ending(Protocol):
    """How an event ended, still encoded."""

    def open(self) -> HookResult:
        """Return the result.

        Raises:
            RiggerError: the event failed or was lost.
        """


class HookFuture(Future[HookResult]):
    """The :class:`concurrent.futures.Future` of an event; what it holds is decoded by whoever asks.

    It cannot be cancelled: an accepted event ends in its outcome.
    """

    def __init__(self) -> None:
        super().__init__()
        self.set_running_or_notify_cancel()
        self._opened: HookResult | RiggerError | None = None

    def end(self, ending: Ending) -> None:
        """Set how the event ended."""
        held: Any = ending
        self.set_result(held)

    def result(self, timeout: float | None = None) -> HookResult:
        """Return the result, waiting for it up to ``timeout`` seconds.

        Raises:
            HookError: functions of the event failed.
            EventLost: as one of its subclasses: the event was lost.
            TimeoutError: it has not ended yet.
        """
        opened = self._open(timeout)
        if isinstance(opened, RiggerError):
            raise opened
        return opened

    def exception(self, timeout: float | None = None) -> RiggerError | None:
        """Return what :meth:`result` would raise, or ``None``.

        Raises:
            TimeoutError: it has not ended yet.
        """
        opened = self._open(timeout)
        return opened if isinstance(opened, RiggerError) else None

    def _open(self, timeout: float | None) -> HookResult | RiggerError:
        held: Any = super().result(timeout)
        if self._opened is None:
            try:
                self._opened = held.open()
            except RiggerError as error:
                self._opened = error
        return self._opened
