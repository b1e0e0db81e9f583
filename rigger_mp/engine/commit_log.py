"""The global namespace as the dispatcher holds it: a log of commits, and their sum.

::

    entries  ... 41 42 43 | 44 45 46      version 46
                          ^ a replica at 43 is sent 44..46; one that is too far behind gets the sum

A *replica* is a host's copy. It is brought up to date only when it runs something that reads globals.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any

from rigger_mp.encoding import Encoded, collect, dump_encoded, load_names
from rigger_mp.engine.messages import CommitEntry
from rigger_mp.namespace import Chain, Namespace, joined_commits

ENTRIES_KEPT = 4096
BYTES_KEPT = 8 << 20
NEWS_KEPT = 64
"""Entries that an outcome brings at most."""

Delta = Any
"""``None``: nothing. ``(False, entries)``: apply them. ``(True, chains)``: forget everything, start here."""


def merged_updates(entry: CommitEntry) -> list[dict[str, Encoded]]:
    """Return the updates of an entry, one mapping for each of its groups."""
    return [
        load_names(group[0]) if len(group) == 1 else collect([load_names(update) for update in group])
        for group in entry
        if group
    ]


def joined_entry(entries: Iterable[CommitEntry]) -> CommitEntry:
    """Return one entry that does what these do one after another."""
    updates = joined_commits(update for entry in entries for update in merged_updates(entry))
    return tuple([(dump_encoded(update),) for update in updates])


class CommitLog:
    """Sequences every commit, and tells what a replica lacks.

    Args:
        list_merge: ``"extend"`` or ``"replace"``.
        version, chains: where it goes on, with what.

    Attributes:
        version: the number of commits so far.
    """

    def __init__(self, list_merge: str = "extend", version: int = 0, chains: Mapping[str, Chain] | None = None) -> None:
        self._sum = Namespace(list_merge)
        self._sum.replace(chains or {})
        self.version = version
        self._entries: deque[CommitEntry] = deque()
        self._sizes: deque[int] = deque()
        self._bytes = 0
        # A log that goes on for a dispatcher that died may have lost what that had.
        self._oldest_known = version + 1 if version else 0
        self._last_deletion = 0

    @property
    def namespace(self) -> Namespace:
        """The sum of all commits."""
        if self._sum.settle():
            self._last_deletion = self.version
        return self._sum

    def append(self, entry: CommitEntry) -> None:
        """Commit: the next version."""
        self.version += 1
        for update in merged_updates(entry):
            if self._sum.add(update):
                self._last_deletion = self.version
        self._keep(entry)

    def _keep(self, entry: CommitEntry) -> None:
        size = sum([len(update) for group in entry for update in group]) if len(entry) > 1 else sum(map(len, entry[0]))
        self._entries.append(entry)
        self._sizes.append(size)
        self._bytes += size
        while len(self._entries) > ENTRIES_KEPT or (self._bytes > BYTES_KEPT and len(self._entries) > 1):
            self._entries.popleft()
            self._bytes -= self._sizes.popleft()

    def delta(self, replica_version: int) -> Delta:
        """Return what a replica of ``replica_version`` lacks."""
        missing = self.version - replica_version
        if missing == 0:
            return None
        if missing > len(self._entries):
            return True, self.namespace.export()
        return False, tuple(islice(self._entries, len(self._entries) - missing, None))

    def news(self, version: int) -> tuple[CommitEntry, ...] | None:
        """Return what was committed since a version; ``None`` if that is much, or not known."""
        missing = self.version - version
        if version < self._oldest_known or missing > min(NEWS_KEPT, len(self._entries)):
            return None
        return tuple(islice(self._entries, len(self._entries) - missing, None))

    def matters(self, names: frozenset[str], replica_version: int) -> bool:
        """Tell whether a reader of these names may be misled by a replica of ``replica_version``."""
        if not names:
            return False
        namespace = self.namespace
        return replica_version < self._last_deletion or namespace.has_any(names)

    def pin(self, names: frozenset[str]) -> dict[str, Chain]:
        """Return the present chains of these names, those that exist."""
        namespace = self.namespace
        return {name: namespace.chain(name) for name in names if name in namespace}

