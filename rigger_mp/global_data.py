"""The global namespace as a mapping."""

from __future__ import annotations

from collections.abc import Callable, Iterator, MutableMapping
from typing import TYPE_CHECKING, Any

from rigger_mp.encoding import dump_assignments, dump_deletions, load_chain

if TYPE_CHECKING:
    from rigger_mp.engine.manager_client import GlobalsReader

Write = Callable[[bytes, bool], None]


class GlobalData(MutableMapping[str, Any]):
    """A live view of the global namespace: ``Rigger.global_data``.

    Reading returns a private copy of the latest value; it contains the updates of every event that the
    caller has seen end. Writing is sequenced with the events: it waits for those accepted before, takes
    effect before those accepted later, and replaces (hooks merge, assignments do not).
    """

    def __init__(self, reader: GlobalsReader, latest: Callable[[], int], write: Write) -> None:
        self._reader = reader
        self._latest = latest
        self._write = write

    def __getitem__(self, name: str) -> Any:
        chains = self._read(name)
        if name not in chains:
            raise KeyError(name)
        return load_chain(chains[name], self._reader.list_merge)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name in self._read(name)

    def __setitem__(self, name: str, value: Any) -> None:
        self._write(dump_assignments({name: value}), False)

    def __delitem__(self, name: str) -> None:
        if name not in self:
            raise KeyError(name)
        self._write(dump_deletions((name,)), False)

    def __iter__(self) -> Iterator[str]:
        return iter(self._reader.names(self._latest(), exact=False))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __repr__(self) -> str:
        return repr(self.copy())

    def copy(self) -> dict[str, Any]:
        """Return everything as a dict: one consistent version of the namespace."""
        chains = self._reader.read(None, self._latest(), exact=False)
        return {name: load_chain(chain, self._reader.list_merge) for name, chain in chains.items()}

    def _read(self, name: str) -> dict[str, Any]:
        return self._reader.read((name,), self._latest(), exact=False)
