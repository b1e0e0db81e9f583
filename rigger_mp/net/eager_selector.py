"""The selector of the server's loop: it looks for a moment before it sleeps, where the next line comes soon."""

from __future__ import annotations

import selectors
from selectors import SelectorKey

from rigger_mp.eager_wait import EagerWait

LOOK_TIME = 0.0005
"""Seconds that the loop looks for the next line, or for the end of an event, before it sleeps."""

Events = list[tuple[SelectorKey, int]]


class EagerSelector(selectors.DefaultSelector):
    """See the module.

    Attributes:
        expects: a reply has just been sent to a client that waited for it; the next sleep begins with a look.
    """

    def __init__(self) -> None:
        super().__init__()
        self.expects = False
        self._eager = EagerWait(LOOK_TIME)

    def select(self, timeout: float | None = None) -> Events:
        """Wait as other selectors do."""
        if not self.expects or (timeout is not None and timeout < LOOK_TIME):
            return super().select(timeout)
        self.expects = False
        return self._look_first(timeout)

    def _look_first(self, timeout: float | None) -> Events:
        events: Events = []

        def select(timeout: float | None) -> bool:
            events.extend(super(EagerSelector, self).select(timeout))
            return bool(events)

        self._eager.wait(lambda: select(0), lambda: select(timeout))
        return events

    def has_events(self) -> bool:
        """Whether anything has come."""
        return bool(super().select(0))
