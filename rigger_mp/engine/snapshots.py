"""Which versions of the global namespace live results still refer to."""

from __future__ import annotations

import weakref
from collections import deque


class Snapshot:
    """Held by the results of one batch; while it lives, their versions stay readable."""

    __slots__ = ("__weakref__", "version")

    def __init__(self, version: int) -> None:
        self.version = version


class Snapshots:
    """Tells the floor: the oldest version that may still be read."""

    def __init__(self) -> None:
        self.latest = 0
        self._alive: deque[weakref.ref[Snapshot]] = deque()

    def take(self, lowest: int, latest: int) -> Snapshot:
        """Return a snapshot for results whose versions are ``lowest`` to ``latest``."""
        snapshot = Snapshot(lowest)
        self.latest = max(self.latest, latest)
        self._alive.append(weakref.ref(snapshot))
        return snapshot

    def floor(self) -> int:
        """Return the oldest version that a live result refers to, or the latest one known."""
        while self._alive:
            try:
                oldest = self._alive[0]()
            except IndexError:
                break
            if oldest is not None:
                return oldest.version
            self._alive.popleft()
        return self.latest
