"""A host's copy of the global namespace, which remembers the decoded values of what is read again and again.

::

    chain of "files":   base  +a  +b │ +c  +d        encoded, as everywhere
    remembered value:  {base, a, b}  │               decoded at the last read; +c, +d are merged at the next

A reader gets a private copy of a value. Decoding its chain makes one, in time and again in time proportional to the
value. A value of plain containers and immutable builtins can be kept and copied instead, at a tenth of that cost, and
costs no more than its updates to be kept up to date.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from rigger_mp.encoding import PLAIN, Encoded, load_part, merge_values
from rigger_mp.namespace import Commit, Namespace

SMALLEST, LARGEST = 1 << 12, 1 << 23
"""Bytes that a value has when encoded which is worth remembering, and may be."""
MOST_UPDATES = 1024
"""Updates since the last read after which a value is forgotten: it is not read often."""

_CONTAINERS = frozenset({dict, list})


@dataclass(slots=True)
class _Remembered:
    value: Any
    updates: list[Encoded] = field(default_factory=list)


class Replica(Namespace):
    """See the module.

    Args:
        list_merge: ``"extend"`` or ``"replace"``.
    """

    def __init__(self, list_merge: str = "extend") -> None:
        super().__init__(list_merge)
        self._remembered: dict[str, _Remembered] = {}
        self._read_before: set[str] = set()

    def replace(self, chains: Any) -> None:
        """Forget everything and take over what :meth:`export` returned."""
        super().replace(chains)
        self._remembered.clear()
        self._read_before.clear()

    def commit(self, update: Commit) -> bool:
        """Apply one set of updates; return whether it deletes any name."""
        self.settle()
        if self._remembered:
            for name in self._remembered.keys() & update.keys():
                self._note(name, update[name])
        return super().commit(update)

    def load(self, name: str) -> Any:
        """Decode the value of a name: a private copy.

        Raises:
            KeyError: there is no such name.
        """
        self.settle()
        remembered = self._remembered.get(name)
        if remembered is not None and self._bring_up_to_date(remembered):
            return copy_containers(remembered.value)
        self._remembered.pop(name, None)
        value = super().load(name)
        if SMALLEST <= self.size(name) <= LARGEST:
            if name in self._read_before and is_simple(value):
                self._remembered[name] = _Remembered(copy_containers(value))
            self._read_before.add(name)
        return value

    def _note(self, name: str, link: Encoded) -> None:
        updates = self._remembered[name].updates
        if self.continues(name, link) and len(updates) < MOST_UPDATES:
            updates.append(link)
        else:
            del self._remembered[name]

    def _bring_up_to_date(self, remembered: _Remembered) -> bool:
        """Merge what has come since the last read; false if that can be no part of a remembered value."""
        updates, remembered.updates = remembered.updates, []
        for link in updates:
            newer = load_part(link, self.list_merge)
            if not is_simple(newer):
                return False
            remembered.value = merge_values(link[0], remembered.value, newer, self.list_merge)
        return True


def is_simple(value: Any) -> bool:
    """Tell whether a value consists of dicts, lists and immutable builtins, and no container is in it twice."""
    try:
        return type(value) in _CONTAINERS and _is_simple(value, set())
    except RecursionError:
        return False


def _is_simple(container: Any, seen: set[int]) -> bool:
    if id(container) in seen:
        return False
    seen.add(id(container))
    if type(container) is dict and not PLAIN.issuperset(map(type, container)):
        return False
    inner = container.values() if type(container) is dict else container
    types = set(map(type, inner))
    if not types <= PLAIN | _CONTAINERS:
        return False
    return _CONTAINERS.isdisjoint(types) or all(_is_simple(part, seen) for part in inner if type(part) in _CONTAINERS)


def copy_containers(value: Any) -> Any:
    """Return a deep copy of a value that :func:`is_simple`."""
    if _CONTAINERS.isdisjoint(map(type, value.values() if type(value) is dict else value)):
        return value.copy()
    if type(value) is dict:
        return {key: copy_containers(part) if type(part) in _CONTAINERS else part for key, part in value.items()}
    return [copy_containers(part) if type(part) in _CONTAINERS else part for part in value]
