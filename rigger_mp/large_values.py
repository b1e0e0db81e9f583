"""How values of 256 KiB and more are pickled: into pieces that nobody joins, placed where every reader can map them.

::

    value ──pickle──▶ Pieces: in-band pickle, and protocol-5 buffers beside it
                        │ place()             one copy, into memory that can be shared
                        ▼
                      Place: segment and offsets, all that travels in the value's stead
                        │ load_names()
                        ▼
                      LargePart.load(): a private copy, mapped where the value is made of buffers

Long ``bytes`` and ``bytearray`` are handed on by reference, so that they are copied once, too.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol

from rigger_mp.errors import EncodingError

PROTOCOL = 5
LARGE = 1 << 18
"""Bytes of pickle from which a value does not travel inside its message: by then that costs several times as much."""
MIN_OUT_OF_BAND = 1 << 16
"""Bytes from which a buffer of a value stands beside its pickle."""


class Place(NamedTuple):
    """Where the pieces of a value are: ``(offset, size)`` of the pickle, ``(offset, size, readonly)`` of buffers."""

    segment: int
    pickle: tuple[int, int]
    buffers: tuple[tuple[int, int, bool], ...]


class Readable(Protocol):
    """Where large values can be read.

    Attributes:
        constants: those read that nobody can change, by the offset of their pickle: one copy serves all.
    """

    constants: dict[int, bytes | str]

    def view(self) -> memoryview:
        """Return the whole of it, writable; no other reader sees what is written there."""

    def open(self, offset: int) -> Any:
        """Return a file to read from there on, ``None`` where :meth:`view` costs nothing."""


class Pieces:
    """A pickle in pieces, as a pickler writes it."""

    __slots__ = ("buffers", "in_band", "write")

    def __init__(self) -> None:
        self.in_band: list[bytes | memoryview] = []
        self.buffers: list[memoryview] = []
        self.write = self.in_band.append

    def take_buffer(self, buffer: pickle.PickleBuffer) -> bool:
        """Keep a buffer beside the pickle; true if it belongs into the pickle."""
        try:
            raw = buffer.raw()
        except BufferError:  # not contiguous: pickle has something to say about that
            return True
        if raw.nbytes < MIN_OUT_OF_BAND:
            return True
        self.buffers.append(raw)
        return False

    @property
    def in_band_size(self) -> int:
        """Bytes of the pickle without its buffers."""
        return sum(map(len, self.in_band))

    @property
    def size(self) -> int:
        """Bytes of the pickle and its buffers."""
        return self.in_band_size + sum(buffer.nbytes for buffer in self.buffers)


Placer = Callable[[Pieces], "Place | None"]
"""Stores pieces; ``None`` if it cannot: then the value travels inside its message."""


def pickle_by_reference(value: object) -> Pieces:
    """Pickle long ``bytes`` or a ``bytearray``, handed on without a copy, or a text, with one."""
    pieces = Pieces()
    pickle.Pickler(pieces, PROTOCOL).dump(value)
    return pieces


class LargePart:
    """A pickle that is somewhere else; it stands for the bytes of the pickle wherever values are decoded."""

    __slots__ = ("_place", "_segment")

    def __init__(self, place: Place, segment: Readable | None) -> None:
        self._place = place
        self._segment = segment

    def __len__(self) -> int:
        return self._place.pickle[1] + sum(size for _, size, _ in self._place.buffers)

    def load(self) -> Any:
        """Return the value, a private copy each time if it can be changed.

        Raises:
            EncodingError: its segment is not here.
        """
        if self._segment is None:
            raise EncodingError(
                "a large value did not arrive, because this process had no descriptor left for it: "
                "raise its limit of open files (ulimit -n), or close files that it keeps open"
            )
        start, constants = self._place.pickle[0], self._segment.constants
        if start in constants:
            return constants[start]
        value = self._load(self._segment)
        if type(value) in (bytes, str):
            constants[start] = value
        return value

    def _load(self, segment: Readable) -> Any:
        start, size = self._place.pickle
        file = segment.open(start)
        if file is not None:
            return pickle.Unpickler(file, buffers=self._buffers(segment)).load()
        return pickle.loads(segment.view()[start : start + size], buffers=self._buffers(segment))

    def _buffers(self, segment: Readable) -> Iterator[memoryview]:
        view = segment.view() if self._place.buffers else memoryview(b"")
        for start, size, readonly in self._place.buffers:
            buffer = view[start : start + size]
            yield buffer.toreadonly() if readonly else buffer


class PlacesPickler(pickle.Pickler):
    """Writes a :class:`Place` as a persistent id."""

    def persistent_id(self, obj: object) -> Any:
        """Return a place's fields, ``None`` for anything else."""
        return tuple(obj) if type(obj) is Place else None


def find_part(pid: Any, segments: Mapping[int, Readable]) -> LargePart:
    """Return what a persistent id of :class:`PlacesPickler` stands for."""
    place = Place._make(pid)
    return LargePart(place, segments.get(place.segment))
