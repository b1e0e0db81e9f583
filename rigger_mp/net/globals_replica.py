"""The global namespace as far as it is plain, kept beside the server: so a reply needs not wait for the Manager.

It is brought up to date by outcomes, each of which brings what has been committed since (``Outcome.news``). It
keeps plain values only, which are known without running anybody's code; as long as there is any other, it knows
nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from typing import Any

from rigger_mp.encoding import PLAIN, Encoded
from rigger_mp.engine.commit_log import merged_updates
from rigger_mp.engine.endings import Ended
from rigger_mp.namespace import Chain, is_deletion

MOST_NAMES = 1000
"""Globals; where there are more, reading them takes longer than the Manager."""
SEED_EVERY = 256
"""Events after which it is tried again to begin, where that was in vain."""


class GlobalsReplica:
    """See the module. Any thread may use it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._version = -1
        self._plain: dict[str, Any] = {}
        self._other: set[str] = set()
        self._missed = 0

    @property
    def version(self) -> int:
        """The version that it is at, -1: it knows nothing."""
        return self._version

    def values_at_end(self, ended: Ended) -> dict[str, Any] | None:
        """Return the globals when an event ended, ``None`` if it does not know them."""
        with self._lock:
            if self._version < 0:
                return None
            if ended.news is None and ended.version > self._version:  # too far behind: begin again
                self._version, self._missed = -1, 0
            if ended.news is None or not self._follow(ended.news, ended.version):
                return None
            return dict(self._plain)

    def _follow(self, news: tuple[Any, ...], version: int) -> bool:
        known = len(news) - (version - self._version)
        if not 0 <= known <= len(news):
            return False
        for entry in news[known:]:
            for update in merged_updates(entry):
                self._take(update)
        self._version = version
        return self._check()

    def _take(self, update: Mapping[str, Encoded]) -> None:
        for name, value in update.items():
            if type(value) in PLAIN:
                self._plain[name] = value
                self._other.discard(name)
                continue
            self._plain.pop(name, None)
            if is_deletion(value):
                self._other.discard(name)
            else:
                self._other.add(name)

    def _check(self) -> bool:
        if not self._other and len(self._plain) <= MOST_NAMES:
            return True
        self._version = -1
        return False

    def begin_at_end(self, ended: Ended) -> None:
        """Begin with the globals when an event ended, now and then, if it knows nothing; asks the Manager."""
        with self._lock:
            self._missed += 1
            if self._version >= 0 or self._missed % SEED_EVERY != 1:
                return
        chains = ended.read_globals()
        with self._lock:
            self._begin(ended.version, chains.items())

    def _begin(self, version: int, chains: Iterable[tuple[str, Chain]]) -> None:
        self._plain.clear()
        self._other.clear()
        for name, chain in chains:
            self._take({name: chain[-1]})
        self._version = version
        self._check()
