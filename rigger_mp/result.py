"""What an event gives back: its namespaces as they were when it ended."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from rigger_mp.encoding import Encoded, collect, load_chain, load_names
from rigger_mp.engine.messages import Group
from rigger_mp.engine.segments import Segment, by_id
from rigger_mp.engine.snapshots import Snapshot
from rigger_mp.namespace import Namespace

if TYPE_CHECKING:
    from rigger_mp.engine.manager_client import GlobalsReader


class HookResult(Mapping[str, Any]):
    """The outcome of an event, a read-only mapping: its local namespace, then the global one.

    Values are decoded when they are first read, in the reading thread, and kept. Globals are those of the
    moment when the event ended.

    Attributes:
        hook: the event's hook.
    """

    def __init__(
        self,
        hook: str,
        *,
        arguments: bytes,
        updates: tuple[Group, ...],
        config: Encoded,
        reader: GlobalsReader,
        snapshot: Snapshot,
        version: int,
        segments: tuple[Segment, ...] = (),
    ) -> None:
        self.hook = hook
        self._segments = by_id(segments)
        self._encoded = (arguments, updates, config)
        self._reader = reader
        self._snapshot = snapshot
        self._version = version
        self._locals: Namespace | None = None
        self._values: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._values:
            self._values[name] = self._load(name)
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        names = dict.fromkeys(self._local_namespace())
        names.update(dict.fromkeys(self._reader.names(self._version)))
        return iter(names)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __contains__(self, name: object) -> bool:
        return name in self._local_namespace() or (
            isinstance(name, str) and bool(self._reader.read((name,), self._version))
        )

    def __repr__(self) -> str:
        return f"<HookResult of {self.hook!r}: {', '.join(self._local_namespace())}>"

    def __reduce__(self) -> tuple[type[dict[str, Any]], tuple[dict[str, Any]]]:
        return dict, (self.to_dict(),)  # an argument of another event, say, is a plain mapping there

    @property
    def local_data(self) -> dict[str, Any]:
        """The event's local namespace alone, ``config`` left out."""
        return {name: self[name] for name in self._local_namespace() if name != "config"}

    def to_dict(self, names: Iterable[str] | None = None) -> dict[str, Any]:
        """Return those names that there are (``None``: all but ``config``) and their values, read at once."""
        local = self._local_namespace()
        chosen = [name for name in local if name != "config"] if names is None else [n for n in names if n in local]
        found = {name: self[name] for name in chosen}
        missing = None if names is None else [name for name in names if name not in local]
        if missing is None or missing:
            chains = self._reader.read(missing, self._version)
            merge = self._reader.list_merge
            found |= {name: load_chain(chain, merge) for name, chain in chains.items() if name not in local}
        return found

    def _load(self, name: str) -> Any:
        local = self._local_namespace()
        if name in local:
            return local.load(name)
        chains = self._reader.read((name,), self._version)
        if name not in chains:
            raise KeyError(name)
        return load_chain(chains[name], self._reader.list_merge)

    def _local_namespace(self) -> Namespace:
        if self._locals is None:
            arguments, updates, config = self._encoded
            local = Namespace(self._reader.list_merge, compacts=False)
            local.commit(load_names(arguments, self._segments))
            local.commit({"config": config})
            for group in updates:
                local.commit(collect(load_names(update, self._segments) for update in group))
            self._locals = local
        return self._locals
