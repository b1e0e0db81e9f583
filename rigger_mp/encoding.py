"""How values travel: encoded once, by value, decoded only where they are read.

A value is either *plain* (an immutable builtin, sent as itself) or a pair ``(kind, parts)``. ``parts``
are pickles; ``kind`` says how the value meets an older one of the same name:

======  ===========================================================================
``m``   a mapping, merged into a mapping
``l``   a list, appended to a list
``o``   anything else: it replaces
``M``   a mapping that replaces (the start of a chain, or an assignment)
``L``   a list that replaces
``d``   a deletion
======  ===========================================================================

Several parts are updates of one stage, merged with each other before they meet the older value.

Pickles of global mappings and lists are *skeletons*: containers and plain values as they are, every other
object as its own opaque pickle inside. The dispatcher and the Manager can so merge and compact them
(:func:`load_skeleton`) without ever running a user's code.

Arguments and local updates of 256 KiB and more are pickled into a segment, and the part is where they are in it
(:mod:`rigger_mp.large_values`). Globals are never: they outlive every message.
"""

from __future__ import annotations

import io
import marshal
import pickle
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from typing import Any

from rigger_mp.errors import EncodingError
from rigger_mp.large_values import (
    LARGE,
    LargePart,
    Pieces,
    Place,
    Placer,
    PlacesPickler,
    find_part,
    pickle_by_reference,
)

Encoded = Any
"""A plain value, or ``(kind, parts)``."""

PLAIN = frozenset({int, float, str, bytes, bool, type(None)})
_LONG = frozenset({str, bytes, bytearray})
PROTOCOL = 5


def dump_value(value: object) -> bytes:
    """Pickle any value; classes, functions and lambdas of ``__main__`` travel by value (cloudpickle).

    Raises:
        EncodingError: the value cannot be pickled.
    """
    try:
        data = pickle.dumps(value, PROTOCOL)
    except Exception:  # noqa: BLE001 - whatever pickle could not do, cloudpickle may
        return _dump_by_value(value)
    # A class of __main__ pickles by reference, but no other process has this __main__.
    return _dump_by_value(value) if b"__main__" in data else data


def _dump_by_value(value: object, take_buffer: Callable[[pickle.PickleBuffer], bool] | None = None) -> bytes:
    import cloudpickle  # type: ignore[import-untyped]  # noqa: PLC0415 - 20 ms that most never need

    try:
        data: bytes = cloudpickle.dumps(value, PROTOCOL, buffer_callback=take_buffer)
    except Exception as error:
        raise EncodingError(
            f"a value of type {type(value).__qualname__!r} cannot be pickled, so it cannot travel to another "
            f"process: {type(error).__name__}: {error}"
        ) from error
    return data


def dump_placed(value: object, place: Placer) -> bytes | Place:
    """Pickle any value like :func:`dump_value`, a large one into where ``place`` stores it.

    Raises:
        EncodingError: the value cannot be pickled.
    """
    if _is_long(value):
        return place(pickle_by_reference(value)) or dump_value(value)
    data, pieces = _dump_beside_buffers(value)
    if not pieces.buffers and len(data) < LARGE:
        return data
    pieces.write(data)
    placed = place(pieces) if pieces.size >= LARGE else None
    if placed is not None:
        return placed
    return dump_value(value) if pieces.buffers else data


def _dump_beside_buffers(value: object) -> tuple[bytes, Pieces]:
    pieces = Pieces()
    try:
        data = pickle.dumps(value, PROTOCOL, buffer_callback=pieces.take_buffer)
    except Exception:  # noqa: BLE001 - whatever pickle could not do, cloudpickle may
        data = b"__main__"
    if b"__main__" in data:
        pieces = Pieces()
        data = _dump_by_value(value, pieces.take_buffer)
    return data, pieces


class Opaque:
    """A user's object inside a skeleton, kept as its pickle where user code must not run."""

    __slots__ = ("data",)

    def __init__(self, data: bytes) -> None:
        self.data = data

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Opaque) and other.data == self.data

    def __hash__(self) -> int:
        return hash(self.data)

    def __reduce__(self) -> tuple[Any, tuple[bytes]]:
        return load_opaque, (self.data,)


def load_opaque(data: bytes) -> Any:
    """Return the user's object of an opaque pickle."""
    return pickle.loads(data)


class _SkeletonPickler(pickle.Pickler):
    # Called for what is no builtin container or plain value, so it costs those nothing.
    def reducer_override(self, obj: object) -> Any:
        if obj is load_opaque or type(obj) is Opaque:
            return NotImplemented
        return load_opaque, (dump_value(obj),)


class _SkeletonUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == (load_opaque.__module__, "load_opaque"):
            return Opaque
        raise pickle.UnpicklingError(f"a skeleton must not refer to {module}.{name}")


def dump_skeleton(value: object) -> bytes:
    """Pickle a mapping or list so that :func:`load_skeleton` can open it without running user code.

    Keys that are users' objects are one key to whoever merges skeletons where their pickles are equal.

    Raises:
        EncodingError: something in it cannot be pickled.
    """
    buffer = io.BytesIO()
    try:
        _SkeletonPickler(buffer, PROTOCOL).dump(value)
    except EncodingError:
        raise
    except Exception as error:
        raise EncodingError(f"a value cannot be pickled: {type(error).__name__}: {error}") from error
    return buffer.getvalue()


def load_skeleton(data: bytes) -> Any:
    """Open a skeleton; every user's object in it stays an :class:`Opaque`."""
    return _SkeletonUnpickler(io.BytesIO(data)).load()


def recursive_update(orig: Any, updates: Mapping[Any, Any], list_merge: str = "extend") -> Any:
    """Merge ``updates`` into ``orig``, in place where it is a mutable mapping, and return the result.

    A mapping merges into a mapping, a list extends a list, anything else replaces. Mappings that are
    new to ``orig`` become plain dicts.

    Args:
        orig: what to update. Anything that is not a mapping is replaced.
        updates: the updates.
        list_merge: ``"extend"``, or ``"replace"`` to let a list replace a list (riggerlib 1.1).
    """
    if not isinstance(orig, MutableMapping):
        orig = dict(orig) if isinstance(orig, Mapping) else {}
    for key, value in updates.items():
        if isinstance(value, Mapping):
            orig[key] = recursive_update(orig.get(key), value, list_merge)
        elif isinstance(value, list):
            current = orig.get(key)
            if list_merge == "extend" and isinstance(current, list):
                current.extend(value)
            else:
                orig[key] = value.copy()
        else:
            orig[key] = value
    return orig


def plain_mappings(value: Any) -> Any:
    """Return ``value`` with every mapping reached through mappings turned into a plain dict of its own.

    Lists reached so are copied too: two names of one list must not be extended together.
    """
    if isinstance(value, Mapping):
        return {key: plain_mappings(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return value.copy()
    return value


def encode_argument(value: object, place: Placer | None = None) -> Encoded:
    """Encode one argument of an event, a large one where ``place`` stores it; mappings keep their type."""
    if type(value) in PLAIN and (place is None or not _is_long(value)):
        return value
    kind = "m" if isinstance(value, Mapping) else "l" if isinstance(value, list) else "o"
    return kind, (dump_value(value) if place is None else dump_placed(value, place),)


def _is_long(value: Any) -> bool:
    return type(value) in _LONG and len(value) >= LARGE


def encode_local_update(value: object, place: Placer | None = None) -> Encoded:
    """Encode one updated local; mappings become plain dicts, as merging makes them."""
    return encode_argument(plain_mappings(value) if isinstance(value, Mapping) else value, place)


def encode_update(value: object) -> Encoded:
    """Encode one updated value; mappings become plain dicts, as merging makes them."""
    if type(value) in PLAIN:
        return value
    if isinstance(value, Mapping):
        return "m", (dump_skeleton(plain_mappings(value)),)
    if isinstance(value, list):
        return "l", (dump_skeleton(value),)
    return "o", (dump_value(value),)


def dump_arguments(arguments: Mapping[str, object], place: Placer | None = None) -> bytes:
    """Encode an event's arguments, each by value; ``place`` stores large ones.

    Raises:
        EncodingError: an argument cannot be pickled; the message names it.
    """
    return _dump_named(arguments, encode_argument, "argument", place)


def dump_local_updates(updates: Mapping[str, object], place: Placer | None = None) -> bytes:
    """Encode the updates of locals that a function returned; ``place`` stores large ones.

    Raises:
        EncodingError: a value cannot be pickled; the message names it.
    """
    return _dump_named(updates, encode_local_update, "update", place)


def dump_updates(updates: Mapping[str, object]) -> bytes:
    """Encode the updates of globals that a function returned.

    Raises:
        EncodingError: a value cannot be pickled; the message names it.
    """
    return dump_encoded(encode_updates(updates))


def encode_updates(updates: Mapping[str, object]) -> dict[str, Encoded]:
    """Encode the value of each update of globals that a function returned.

    Raises:
        EncodingError: a value cannot be pickled; the message names it.
    """
    return _encode_named(updates, encode_update, "update")


def is_plain(updates: dict[Any, Any]) -> bool:
    """Tell whether updates of globals are encoded as they are: plain names with plain values."""
    for name, value in updates.items():  # noqa: SIM110 - all() of a generator takes three times as long
        if type(name) is not str or type(value) not in PLAIN:
            return False
    return True


def dump_assignments(values: Mapping[str, object]) -> bytes:
    """Encode values that replace older ones instead of being merged into them.

    Raises:
        EncodingError: a value cannot be pickled; the message names it.
    """
    return _dump_named(values, encode_assignment, "global")


def encode_assignment(value: object) -> Encoded:
    """Encode a value that replaces an older one."""
    encoded = encode_update(value)
    if type(encoded) is tuple and encoded[0] in "ml":
        return encoded[0].upper(), encoded[1]
    return encoded


def dump_deletions(names: Iterable[str]) -> bytes:
    """Encode the deletion of some names."""
    return dump_encoded(dict.fromkeys(map(str.__str__, names), ("d", ())))


def _dump_named(values: Mapping[str, object], encode: Any, noun: str, place: Placer | None = None) -> bytes:
    encoded = _encode_named(values, encode, noun, place)
    try:
        return dump_encoded(encoded)
    except ValueError:  # there is a Place
        buffer = io.BytesIO()
        PlacesPickler(buffer, PROTOCOL).dump(encoded)
        return buffer.getvalue()


def _encode_named(
    values: Mapping[str, object], encode: Any, noun: str, place: Placer | None = None
) -> dict[str, Encoded]:
    encoded: dict[str, Encoded] = {}
    for name, value in values.items():
        plain_name = name if type(name) is str else str.__str__(name)
        try:
            if type(value) in PLAIN and (type(value) not in _LONG or len(value) < LARGE):  # type: ignore[arg-type]
                encoded[plain_name] = value
            else:
                encoded[plain_name] = encode(value) if place is None else encode(value, place)
        except EncodingError as error:
            raise EncodingError(f"{noun} {name!r}: {error}") from error.__cause__
        except Exception as error:  # a mapping's own code, or one that contains itself
            raise EncodingError(f"{noun} {name!r} cannot be read: {type(error).__name__}: {error}") from error
    return encoded


def dump_if_plain(values: Mapping[str, object]) -> bytes | None:
    """Encode arguments or updates of locals of which all travel as they are, for :func:`load_names`; else ``None``."""
    if type(values) is not dict:
        return None
    for name, value in values.items():
        kind = type(value)
        if kind not in PLAIN or type(name) is not str or (kind in _LONG and len(value) >= LARGE):
            return None
    return marshal.dumps(values)


def dump_encoded(encoded: dict[str, Encoded]) -> bytes:
    """Encode names with values that are encoded already, for :func:`load_names`.

    Raises:
        ValueError: a value is in a segment.
    """
    # Builtins only, which marshal writes and reads in a fraction of pickle's time, and reading runs no code.
    return marshal.dumps(encoded)


PICKLE_MARK = b"\x80"[0]
"""The first byte of a pickle, and never of what marshal writes."""


class _NamesUnpickler(pickle.Unpickler):
    segments: Mapping[int, Any] = {}

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"encoded names must not refer to {module}.{name}")

    def persistent_load(self, pid: Any) -> LargePart:
        return find_part(pid, self.segments)


def load_names(data: bytes, segments: Mapping[int, Any] | None = None) -> dict[str, Encoded]:
    """Return what :func:`dump_arguments` or :func:`dump_updates` encoded, by name, still encoded.

    Args:
        data: what they returned.
        segments: where large values are, by their ids.
    """
    if data[0] != PICKLE_MARK:
        plain: dict[str, Encoded] = marshal.loads(data)
        return plain
    unpickler = _NamesUnpickler(io.BytesIO(data))
    if segments:
        unpickler.segments = segments
    names: dict[str, Encoded] = unpickler.load()
    return names


def collect(updates: Iterable[Mapping[str, Encoded]]) -> dict[str, Encoded]:
    """Merge the updates of one stage's functions with each other, in their order."""
    collected: dict[str, Encoded] = {}
    for update in updates:
        for name, value in update.items():
            collected[name] = _collect_value(collected.get(name), value)
    return collected


def _collect_value(older: Encoded, newer: Encoded) -> Encoded:
    if type(older) is tuple and type(newer) is tuple and older[0] == newer[0] and newer[0] in "ml":
        return newer[0], older[1] + newer[1]
    return newer


def load_part(value: Encoded, list_merge: str = "extend") -> Any:
    """Decode one encoded value by itself."""
    if type(value) is not tuple:
        return value
    kind, parts = value
    decoded = _load_pickle(parts[0])
    for part in parts[1:]:
        decoded = merge_values(kind.lower(), decoded, _load_pickle(part), list_merge)
    return decoded


def _load_pickle(part: Any) -> Any:
    return part.load() if type(part) is LargePart else pickle.loads(part)


def merge_values(kind: str, older: Any, newer: Any, list_merge: str) -> Any:
    """Merge one decoded value into an older one, which is changed in place, and return the result."""
    if kind == "m" and isinstance(older, Mapping):
        return recursive_update(older, newer, list_merge)
    if kind == "l" and isinstance(older, list) and list_merge == "extend":
        older.extend(newer)
        return older
    return newer


def load_chain(chain: Iterable[Encoded], list_merge: str = "extend") -> Any:
    """Decode a value that is a chain of encoded values, oldest first: a private copy each time."""
    value: Any = None
    for link in chain:
        if type(link) is not tuple:
            value = link
        else:
            value = merge_values(link[0], value, load_part(link, list_merge), list_merge)
    return value
