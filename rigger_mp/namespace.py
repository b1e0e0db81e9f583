"""Namespaces as chains of encoded updates.

A namespace maps each name to a *chain*: a base and the updates since, oldest first (see
:mod:`rigger_mp.encoding`). Committing an update appends one link; reading applies the chain. A chain that
has grown as heavy as its base is compacted, so that both memory and reads stay proportional to the value,
and a commit costs the size of the update, amortised, never the size of the namespace.

::

    commit {"files": +{"a": 1}}         chain of "files":  base {...}  +{"a": 1}
    commit {"files": +{"b": 2}}                            base {...}  +{"a": 1}  +{"b": 2}
    compaction                                             base {..., "a": 1, "b": 2}

What is added rather than committed may wait until somebody reads: many updates are few where the later ones replace
what the earlier ones set. What is long, or is merged, does not wait.
"""

from __future__ import annotations

import bisect
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from rigger_mp.encoding import Encoded, dump_skeleton, load_chain, load_skeleton, merge_values
from rigger_mp.errors import EncodingError

LINK_OVERHEAD = 200
"""Bytes that one more link costs a reader, beside its pickle."""
MIN_LINKS_TO_COMPACT = 32
MOST_WAITING = 256
LONGEST_WAITING = 1024
"""Bytes or characters of a value that may wait to be applied."""
MOST_NAMES_WAITING = 32
_LARGEST_WAITING = 1 << 8 * LONGEST_WAITING

_SIZED = frozenset({str, bytes})
Chain = tuple[Encoded, ...]
Commit = Mapping[str, Encoded]


def is_reset(link: Encoded) -> bool:
    """Tell whether a link replaces what is before it in its chain."""
    return type(link) is not tuple or link[0] in "oMLd"


def is_deletion(link: Encoded) -> bool:
    """Tell whether a link deletes its name."""
    return type(link) is tuple and link[0] == "d"


def joined_commits(commits: Iterable[Commit]) -> list[dict[str, Encoded]]:
    """Return as few commits as do what these do one after another."""
    joined: list[dict[str, Encoded]] = []
    for commit in commits:
        if joined and _replaces(commit, joined[-1]):
            joined[-1].update(commit)
        else:
            joined.append(dict(commit))
    return joined


def _is_short(commit: Commit) -> bool:
    """Tell whether a commit takes little memory, and may make others needless: not if it merges anything."""
    if len(commit) > MOST_NAMES_WAITING:
        return False
    for link in commit.values():
        kind = type(link)
        if kind is tuple or (kind in _SIZED and len(link) > LONGEST_WAITING):
            return False
        if kind is int and not -_LARGEST_WAITING < link < _LARGEST_WAITING:
            return False
    return True


def _replaces(commit: Commit, earlier: Commit) -> bool:
    """Tell whether a commit merges nothing into what an earlier one says of the same names."""
    for name, link in commit.items():  # noqa: SIM110 - all() of a generator takes three times as long
        if type(link) is tuple and name in earlier and not is_reset(link):
            return False
    return True


def _weight(link: Encoded) -> int:
    return LINK_OVERHEAD + (sum(map(len, link[1])) if type(link) is tuple else 0)


def _family(link: Encoded) -> str:
    return link[0].lower() if type(link) is tuple else ""


class Namespace:
    """The current value of every name, encoded.

    Args:
        list_merge: ``"extend"`` or ``"replace"``.
        compacts: its mappings and lists are skeletons, so that long chains can be compacted.
    """

    def __init__(self, list_merge: str = "extend", *, compacts: bool = True) -> None:
        self.list_merge = list_merge
        self._most_links = MIN_LINKS_TO_COMPACT if compacts else sys.maxsize
        self._chains: dict[str, list[Encoded]] = {}
        self._tail_weight: dict[str, int] = {}
        self._waiting: list[Commit] = []

    def __contains__(self, name: object) -> bool:
        self.settle()
        return name in self._chains

    def __iter__(self) -> Iterator[str]:
        self.settle()
        return iter(self._chains)

    def __len__(self) -> int:
        self.settle()
        return len(self._chains)

    def has_any(self, names: frozenset[str]) -> bool:
        """Tell whether there is any of these names."""
        self.settle()
        return not names.isdisjoint(self._chains)

    def chain(self, name: str) -> Chain:
        """Return the chain of a name.

        Raises:
            KeyError: there is no such name.
        """
        self.settle()
        return tuple(self._chains[name])

    def load(self, name: str) -> Any:
        """Decode the value of a name: a private copy.

        Raises:
            KeyError: there is no such name.
        """
        self.settle()
        chain = self._chains[name]
        return load_chain(chain, self.list_merge) if type(chain[0]) is tuple else chain[0]

    def export(self) -> dict[str, Chain]:
        """Return every chain, for another process to import."""
        self.settle()
        return {name: tuple(chain) for name, chain in self._chains.items()}

    def replace(self, chains: Mapping[str, Chain]) -> None:
        """Forget everything and take over what :meth:`export` returned."""
        self._waiting.clear()
        self._chains = {name: list(chain) for name, chain in chains.items()}
        self._tail_weight = {name: sum(map(_weight, chain[1:])) for name, chain in chains.items()}

    def add(self, update: Commit) -> bool:
        """Have one set of updates applied, at the latest when somebody reads; return as :meth:`settle` does."""
        self._waiting.append(update)
        return (len(self._waiting) >= MOST_WAITING or not _is_short(update)) and self.settle()

    def settle(self) -> bool:
        """Apply what was added; return whether that deletes any name."""
        if not self._waiting:
            return False
        waiting, self._waiting = self._waiting, []
        return any([self.commit(update) for update in joined_commits(waiting)])  # noqa: C419 - all must be committed

    def commit(self, update: Commit) -> bool:
        """Apply one set of updates at once; return whether it, or what was added before, deletes any name."""
        deletes = self.settle()
        for name, link in update.items():
            if type(link) is not tuple:
                self._chains[name] = [link]
                self._tail_weight[name] = 0
            elif is_deletion(link):
                self._chains.pop(name, None)
                self._tail_weight.pop(name, None)
                deletes = True
            elif self.continues(name, link):
                self._append(name, link)
            else:
                self._chains[name] = [_as_base(link)]
                self._tail_weight[name] = 0
        return deletes

    def size(self, name: str) -> int:
        """Return about how many bytes the value of a name has, encoded."""
        return _weight(self._chains[name][0]) + self._tail_weight[name]

    def continues(self, name: str, link: Encoded) -> bool:
        """Tell whether a link would be merged into the value of a name, rather than replace or delete it."""
        chain = self._chains.get(name)
        return chain is not None and continues_chain(chain, link, self.list_merge)

    def _append(self, name: str, link: Encoded) -> None:
        chain = self._chains[name]
        chain.append(link)
        self._tail_weight[name] += _weight(link)
        if len(chain) > self._most_links and self._tail_weight[name] > _weight(chain[0]):
            self._chains[name] = compacted(chain, self.list_merge)
            self._tail_weight[name] = 0


def continues_chain(chain: Sequence[Encoded], link: Encoded, list_merge: str) -> bool:
    """Tell whether a link is merged into the value of a chain, rather than replacing it."""
    if is_reset(link) or _family(chain[0]) != link[0]:
        return False
    return bool(link[0] == "m" or list_merge == "extend")


def extend_chain(chain: Chain | None, link: Encoded, list_merge: str) -> Chain | None:
    """Return the chain after one more update; ``None`` stands for no value."""
    if type(link) is tuple and link[0] == "d":
        return None
    if chain is not None and continues_chain(chain, link, list_merge):
        return (*chain, link)
    return (_as_base(link),)


def _as_base(link: Encoded) -> Encoded:
    if type(link) is tuple and link[0] in "ml":
        return link[0].upper(), link[1]
    return link


def compact(chain: Sequence[Encoded], list_merge: str) -> Encoded:
    """Return one link that says the same as the chain; no user code runs."""
    kind = _family(chain[0])
    value: Any = None
    for link in chain:
        collected: Any = None
        for part in link[1]:
            collected = merge_values(kind, collected, load_skeleton(part), list_merge)
        value = merge_values(kind, value, collected, list_merge)
    return kind.upper(), (dump_skeleton(value),)


def compacted(chain: list[Encoded], list_merge: str) -> list[Encoded]:
    """Return a chain as one link, or as it is where a value is nested too deeply for this process to merge."""
    try:
        return [compact(chain, list_merge)]
    except (RecursionError, EncodingError):
        return chain


class VersionedNamespace:
    """A namespace that still answers for earlier versions, back to a floor.

    A version is the number of commits applied. Reads may ask for any version from the floor on.

    Args:
        list_merge: ``"extend"`` or ``"replace"``.
    """

    def __init__(self, list_merge: str = "extend") -> None:
        self.list_merge = list_merge
        self.version = 0
        self.floor = 0
        self._history: dict[str, list[tuple[int, Encoded]]] = {}
        self._prune_at: dict[str, int] = {}
        self._superseded: deque[tuple[int, str]] = deque()

    def restore(self, version: int, chains: Mapping[str, Chain]) -> None:
        """Forget everything and start from a full copy of ``version``."""
        self.version = self.floor = version
        self._history = {name: [(version, link) for link in chain] for name, chain in chains.items()}
        self._prune_at = {}
        self._superseded.clear()

    def commit(self, updates: Iterable[Commit], versions: int = 1) -> None:
        """Apply sets of updates, one after another, as one version: the next, or so many later.

        No version in between will be read.
        """
        self.version += versions
        for update in updates:
            self._apply(update)

    def _apply(self, update: Commit) -> None:
        for name, link in update.items():
            history = self._history.setdefault(name, [])
            history.append((self.version, link))
            if self._resets(link):
                self._superseded.append((self.version, name))
            if len(history) > self._prune_at.get(name, MIN_LINKS_TO_COMPACT):
                self._prune(name)

    def raise_floor(self, floor: int) -> None:
        """Allow versions below ``floor`` to be forgotten."""
        self.floor = max(self.floor, min(floor, self.version))
        names: set[str] = set()
        while self._superseded and self._superseded[0][0] <= self.floor:
            names.add(self._superseded.popleft()[1])
        for name in names & self._history.keys():
            self._prune(name)

    def _resets(self, link: Encoded) -> bool:
        return is_reset(link) or (_family(link) == "l" and self.list_merge != "extend")

    def names(self, version: int) -> list[str]:
        """Return the names that had a value at ``version``."""
        return [name for name in self._history if self.read(name, version) is not None]

    def read(self, name: str, version: int) -> Chain | None:
        """Return the chain of a name as of ``version``, or ``None`` if it had no value."""
        history = self._history.get(name)
        if not history:
            return None
        end = bisect.bisect_right(history, max(version, self.floor), key=lambda entry: entry[0])
        return self._live(history[:end])

    def read_many(self, names: Iterable[str] | None, version: int) -> dict[str, Chain]:
        """Return the chains of those names (``None``: of all) that had a value at ``version``."""
        chosen = self._history if names is None else names
        return {name: chain for name in chosen if (chain := self.read(name, version)) is not None}

    def export(self) -> dict[str, Chain]:
        """Return every chain of the current version."""
        return self.read_many(None, self.version)

    def dump(self) -> tuple[int, int, dict[str, list[tuple[int, Encoded]]]]:
        """Return version, floor and everything kept, for :meth:`load_dump` of another one."""
        return self.version, self.floor, {name: list(history) for name, history in self._history.items()}

    def load_dump(self, version: int, floor: int, history: dict[str, list[tuple[int, Encoded]]]) -> None:
        """Take over what :meth:`dump` returned."""
        self.version, self.floor = version, floor
        self._history = history
        self._prune_at = {}
        self._superseded.clear()

    def _live(self, history: Sequence[tuple[int, Encoded]]) -> Chain | None:
        start = len(history)
        family = None
        while start > 0:
            link = history[start - 1][1]
            if family is not None and _family(link) != family:
                break
            family = _family(link)
            start -= 1
            if self._resets(link):
                break
        chain = tuple(entry[1] for entry in history[start:])
        if not chain or _family(chain[0]) == "d":
            return None
        return (_as_base(chain[0]), *chain[1:])

    def _prune(self, name: str) -> None:
        history = self._history[name]
        end = bisect.bisect_right(history, self.floor, key=lambda entry: entry[0])
        chain = self._live(history[:end]) or ()
        if sum(map(_weight, chain[1:])) > sum(map(_weight, chain[:1])):
            chain = tuple(compacted(list(chain), self.list_merge))
        kept = [*((self.floor, link) for link in chain), *history[end:]]
        if kept:
            self._history[name] = kept
            self._prune_at[name] = max(MIN_LINKS_TO_COMPACT, 2 * len(kept))
        else:
            del self._history[name]
            self._prune_at.pop(name, None)
