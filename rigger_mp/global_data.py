"""The global namespace as a mapping."""

from __future__ import annotations

from collections.abc import Callable, ItemsView, Iterator, Mapping, MutableMapping, ValuesView
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

    :meth:`copy`, :meth:`items` and :meth:`values` read one version of the whole namespace. What reads name by name, as
    ``dict(view)`` does, may find some from before an event and some from after it, and names that have gone meanwhile.
    """

    def __init__(self, reader: GlobalsReader, latest: Callable[[], int], write: Write) -> None:
        self._reader = reader
        self._latest = latest
        self._write = write

    def __getitem__(self, name: str) -> Any:
        chain = next(iter(self._read(name).values()), None)
        if chain is None:
            raise KeyError(name)
        return load_chain(chain, self._reader.list_merge)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name in self._read(name)

    def __setitem__(self, name: str, value: Any) -> None:
        self._write(dump_assignments(checked_names({name: value})), False)

    def __delitem__(self, name: str) -> None:
        if name not in self:
            raise KeyError(name)
        self._write(dump_deletions((name,)), False)

    def __ior__(self, values: Any) -> GlobalData:
        self.update(values)
        return self

    def __iter__(self) -> Iterator[str]:
        return iter(self._reader.names(self._latest(), exact=False))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __repr__(self) -> str:
        return repr(self.copy())

    def update(self, values: Any = (), /, **named: Any) -> None:
        """Assign several values at once, given as ``dict.update`` takes them: nobody sees some without the others.

        Raises:
            TypeError: a name is no string.
            EncodingError: a value cannot be pickled.
        """
        self._write(dump_assignments(checked_names(dict(values, **named))), False)

    def clear(self) -> None:
        """Delete everything at once."""
        self._write(dump_assignments({}), True)

    def items(self) -> ItemsView[str, Any]:
        """Return names and values of one version of the namespace."""
        return self.copy().items()

    def values(self) -> ValuesView[Any]:
        """Return the values of one version of the namespace."""
        return self.copy().values()

    def is_read_by(self, reader: GlobalsReader) -> bool:
        """Whether this is the view of what that reads."""
        return self._reader is reader

    def copy(self) -> dict[str, Any]:
        """Return everything as a dict: one consistent version of the namespace."""
        chains = self._reader.read(None, self._latest(), exact=False)
        return {name: load_chain(chain, self._reader.list_merge) for name, chain in chains.items()}

    def _read(self, name: str) -> dict[str, Any]:
        return self._reader.read((name,), self._latest(), exact=False)


def checked_names(values: Any) -> Mapping[str, Any]:
    """Return values by name.

    Raises:
        TypeError: it is no mapping, or a name is no string.
    """
    if not isinstance(values, Mapping):
        raise TypeError(f"the global namespace takes a mapping, not {type(values).__name__}")
    for name in values:
        if not isinstance(name, str):
            raise TypeError(f"a name in the global namespace must be a string, not {type(name).__name__} ({name!r})")
    return values
