"""Segments: memory that holds the large values of one message, written once and mapped by whoever reads them.

A segment is a memfd, sealed when it is written: it has no name, so that nothing is left behind whoever is
killed, and nobody can change it. Its descriptor travels beside the message
(:mod:`rigger_mp.engine.descriptors`); it begins with its own id, so that it says itself which one it is::

    0        8        64
    | magic  | id     | pickles and buffers, each aligned to 64 bytes ...

Readers map it privately: what one of them writes, no other one sees. A mapping keeps no descriptor.

Descriptors are scarce. Whoever has no more to spare writes no segment, and values travel inside their messages; a
process that only forwards keeps the content in its own memory then.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import resource
import stat
import struct
import weakref
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any

from rigger_mp.encoding import dump_if_plain
from rigger_mp.large_values import Pieces, Place

_MAGIC = b"riggerMP"
_HEADER = struct.Struct("=8sq")
_ALIGNMENT = 64
_MOST_PIECES = 1000
"""Pieces written by one call; the system's own limit is 1024."""
_LEAST_MAPPED = 1 << 20
_HUGE_PAGE = 2 << 20
_WORTH_HUGE_PAGES = 4 << 20
MOST_OPEN = 512
"""Segments that a process opens at most, however many descriptors it might have."""

AVAILABLE = hasattr(os, "memfd_create")
"""Whether this system has anonymous files that can be sealed."""

_open: set[int] = set()
"""Descriptors of segments in this process; adding to a set and discarding is safe in any thread and finalizer."""


def most_open() -> int:
    """Return how many segments this process may have open: a quarter of its descriptors."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MOST_OPEN if limit == resource.RLIM_INFINITY else min(MOST_OPEN, limit // 4)


def is_segment(fd: int) -> bool:
    """Tell whether a descriptor is of a segment, not of a pipe or socket."""
    return stat.S_ISREG(os.fstat(fd).st_mode)


def forget_inherited() -> None:
    """Note, in a process that was forked and has closed them, that it has no segments open."""
    _open.clear()


def count_open() -> int:
    """Return how many segments this process has open."""
    return len(_open)


class SegmentError(OSError):
    """Raised when a segment cannot be read."""


class Segment:
    """The large values of one message.

    Args:
        id_: what places in it refer to.
        content: its bytes, where there is no descriptor.
        fd: its descriptor, which it owns from now on.

    Attributes:
        id: what places in it refer to.
        constants: see :class:`~rigger_mp.large_values.Readable`.
    """

    def __init__(self, id_: int, *, content: bytes | None = None, fd: int = -1) -> None:
        self.id = id_
        self.constants: dict[int, bytes | str] = {}
        self._content: bytes | None = content
        self._mapping: memoryview | None = None
        self._fd = fd
        self._pid = os.getpid()
        if fd >= 0:
            _open.add(fd)

    @staticmethod
    def receive(fd: int) -> Segment:
        """Take over a descriptor that another process sent.

        Raises:
            SegmentError: it is no segment.
        """
        magic, id_ = _HEADER.unpack(os.pread(fd, _HEADER.size, 0).ljust(_HEADER.size, b"\0"))
        if magic != _MAGIC:
            os.close(fd)
            raise SegmentError("a descriptor arrived that is no segment")
        return Segment(id_, fd=fd)

    @property
    def fd(self) -> int:
        """Its descriptor, -1 if there is none."""
        return self._fd

    @property
    def size(self) -> int:
        """Bytes of memory that it takes."""
        if self._content is not None:
            return len(self._content)
        return len(self._mapping) if self._mapping is not None else os.fstat(self._fd).st_size

    def view(self) -> memoryview:
        """Return its content, writable; no other view of it shows what is written there.

        After :meth:`map_for_one` all views are one.
        """
        if self._mapping is not None:
            return self._mapping
        if self._content is not None:
            return memoryview(bytearray(self._content))
        return _map_privately(self._fd, self.size)

    def open(self, offset: int) -> SegmentFile | None:
        """Return a file to read its content from an offset on, ``None`` if it has no descriptor."""
        return SegmentFile(self, offset) if self._fd >= 0 else None

    def read(self) -> bytes:
        """Return its content."""
        if self._content is not None:
            return self._content
        if self._mapping is not None:
            return bytes(self._mapping)
        return b"".join(_read_chunks(self._fd, self.size))

    def map_for_one(self) -> None:
        """Give up the descriptor and keep a mapping, for the one reader that there will be."""
        if self._mapping is None:
            self._mapping = self.view()
            self._content = None
            self._close()

    def keep_content(self) -> None:
        """Give up the descriptor and keep the content in this process."""
        if self._fd >= 0:
            self._content = self.read()
            self._close()

    def _close(self) -> None:
        fd, self._fd = self._fd, -1
        # In a process forked from this one the number may belong to another file.
        if fd >= 0 and self._pid == os.getpid():
            _open.discard(fd)
            os.close(fd)

    def __del__(self) -> None:
        self._close()


def _read_chunks(fd: int, size: int) -> Iterator[bytes]:
    start = 0
    while start < size:
        chunk = os.pread(fd, size - start, start)
        if not chunk:
            raise SegmentError("a segment is shorter than it says")
        start += len(chunk)
        yield chunk


class SegmentFile:
    """A segment as an unpickler reads it: long ``bytes`` go straight to where they will be, unmapped.

    Args:
        segment: has a descriptor.
        offset: where to begin.
    """

    def __init__(self, segment: Segment, offset: int) -> None:
        self._segment = segment
        self._offset = offset

    def read(self, size: int) -> bytes:
        """Return the next bytes."""
        chunk = os.pread(self._segment.fd, size, self._offset)
        self._offset += len(chunk)
        return chunk

    def readinto(self, buffer: memoryview) -> int:
        """Fill a buffer with the next bytes, return how many there were."""
        if len(buffer) >= _WORTH_HUGE_PAGES:
            _advise_huge_pages(buffer)
        filled = 0
        while filled < len(buffer):
            count = os.preadv(self._segment.fd, [buffer[filled:]], self._offset)
            if not count:
                break
            filled += count
            self._offset += count
        return filled

    def readline(self) -> bytes:
        """Not needed for the pickles that segments hold.

        Raises:
            SegmentError: always.
        """
        raise SegmentError("a segment holds no lines")


class SegmentWriter:
    """Places the large values of one message; see :data:`rigger_mp.large_values.Placer`."""

    _segment: Segment | None = None  # not set in a constructor: most messages need none
    _end = _ALIGNMENT

    def place(self, pieces: Pieces) -> Place | None:
        """Store the pieces of a value; ``None`` where that is not possible."""
        if self._segment is None:
            self._segment = _create()
            if self._segment is None:
                return None
        try:
            return self._place(self._segment, pieces)
        except OSError:  # no memory: the value may still fit into a message
            return None

    def _place(self, segment: Segment, pieces: Pieces) -> Place:
        start = self._end
        end = _write(segment.fd, pieces.in_band, start)
        buffers = []
        for buffer in pieces.buffers:
            first = _align(end)
            end = _write(segment.fd, [buffer], first)
            buffers.append((first, buffer.nbytes, buffer.readonly))
        self._end = _align(end)
        return Place(segment.id, (start, pieces.in_band_size), tuple(buffers))

    def finish(self) -> Segment | None:
        """Seal the segment and return it; ``None`` if nothing was placed."""
        segment = self._segment
        if segment is None or self._end == _ALIGNMENT:
            return None
        import fcntl  # noqa: PLC0415 - there are no seals where this cannot be imported

        os.ftruncate(segment.fd, self._end)
        seals = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
        fcntl.fcntl(segment.fd, fcntl.F_ADD_SEALS, seals)
        return segment


def _create() -> Segment | None:
    """Return an empty segment, ``None`` if there is no descriptor to spare."""
    if count_open() >= most_open():
        return None
    try:
        fd = os.memfd_create("rigger_mp segment", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    except OSError:
        return None
    segment = Segment(int.from_bytes(os.urandom(7), "big"), fd=fd)
    os.pwrite(fd, _HEADER.pack(_MAGIC, segment.id), 0)
    return segment


def _align(offset: int) -> int:
    return -(-offset // _ALIGNMENT) * _ALIGNMENT


def _write(fd: int, pieces: Iterable[bytes | memoryview], offset: int) -> int:
    """Write pieces one after another; return the offset behind them."""
    pending = [memoryview(piece).cast("B") for piece in pieces if len(piece)]
    while pending:
        written = os.pwritev(fd, pending[:_MOST_PIECES], offset)
        offset += written
        done = 0
        while done < len(pending) and written >= len(pending[done]):
            written -= len(pending[done])
            done += 1
        del pending[:done]
        if written:
            pending[0] = pending[0][written:]
    return offset


# -- mapping ---------------------------------------------------------------------------------------------
# mmap.mmap keeps a descriptor for as long as it lives; a plugin may keep thousands of arrays.

_libc: Any = None


def _load_libc() -> Any:
    global _libc  # noqa: PLW0603 - loaded once
    if _libc is None:
        libc = ctypes.CDLL(None, use_errno=True)
        libc.mmap.restype = ctypes.c_void_p
        libc.mmap.argtypes = (
            ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long
        )  # fmt: skip
        libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
        libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
        _libc = libc
    return _libc


def _map_privately(fd: int, size: int) -> memoryview:
    """Map a file copy-on-write; the mapping lives as long as anything refers to the view's memory."""
    length = _LEAST_MAPPED
    while length < size:
        length *= 2  # each length is a type of its own, which ctypes keeps
    libc = _load_libc()
    # Unreserved: only what is written to takes memory of its own.
    flags = mmap.MAP_PRIVATE | getattr(mmap, "MAP_NORESERVE", 0)
    address = libc.mmap(None, length, mmap.PROT_READ | mmap.PROT_WRITE, flags, fd, 0)
    if address is None or address == ctypes.c_void_p(-1).value:  # too many mappings
        return memoryview(bytearray().join(_read_chunks(fd, size)))
    array = (ctypes.c_ubyte * length).from_address(address)
    weakref.finalize(array, libc.munmap, address, length).atexit = False
    return memoryview(array).cast("B")[:size]


def _advise_huge_pages(buffer: memoryview) -> None:
    """Have fresh memory come in pages of 2 MiB: getting it in small ones takes longer than filling it."""
    address = ctypes.addressof(ctypes.c_char.from_buffer(buffer))
    start, end = -(-address // _HUGE_PAGE) * _HUGE_PAGE, (address + len(buffer)) // _HUGE_PAGE * _HUGE_PAGE
    _load_libc().madvise(start, end - start, mmap.MADV_HUGEPAGE)


Arguments = tuple[bytes, tuple[Segment, ...]]
"""Encoded names, and the segments that their large values are in."""


def dump_with_segment(dump: Callable[..., bytes], values: Mapping[str, Any]) -> Arguments:
    """Encode names, large values into a segment.

    Args:
        dump: :func:`~rigger_mp.encoding.dump_arguments` or :func:`~rigger_mp.encoding.dump_local_updates`.
        values: by name.

    Raises:
        EncodingError: a value cannot be pickled; the message names it.
    """
    plain = dump_if_plain(values)
    if plain is not None:
        return plain, ()
    if not AVAILABLE:
        return dump(values), ()
    writer = SegmentWriter()
    data = dump(values, writer.place)
    segment = writer.finish()
    return data, (() if segment is None else (segment,))


def by_id(segments: Collection[Segment]) -> dict[int, Segment]:
    """Return segments by their ids."""
    return {segment.id: segment for segment in segments} if segments else {}
