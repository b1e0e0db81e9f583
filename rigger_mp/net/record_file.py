"""One file of records that survives the process that writes it: appended to through a mapping, read once."""

from __future__ import annotations

import marshal
import mmap
import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_HEADER = struct.Struct("=II")
"""Length and CRC-32 of a record; zeros: there is none."""


class RecordFile:
    """A file that is written; what was appended is there even if the process is killed in the next moment.

    Its space is reserved beforehand: a full disk is an error here, not a signal in the midst of writing.

    Args:
        path: the file; it must not exist.
        size: bytes of it.

    Attributes:
        live: how many of its records are still needed; its user counts them.

    Raises:
        OSError: the file cannot be made.
    """

    def __init__(self, path: Path, size: int) -> None:
        self.path = path
        self.live = 0
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(fd, 0, size)
            self._memory = mmap.mmap(fd, size)
        except BaseException:
            path.unlink()
            raise
        finally:
            os.close(fd)
        self._size = size
        self._end = 0

    def has_room(self, size: int) -> bool:
        """Tell whether so many bytes of packed records may be appended."""
        return self._end + size <= self._size

    def append(self, packed: bytes) -> None:
        """Add a record that :func:`pack` made; there must be room."""
        end = self._end + len(packed)
        self._memory[self._end : end] = packed
        self._end = end

    def rename(self, path: Path) -> None:
        """Give the file another name, at once and whole."""
        self.path.replace(path)
        self.path = path

    def close(self) -> None:
        """Let go of the file."""
        self._memory.close()


def pack(record: tuple[Any, ...]) -> bytes:
    """Return a record as it is written."""
    body = marshal.dumps(record)
    return _HEADER.pack(len(body), zlib.crc32(body)) + body


def read_records(path: Path) -> Iterator[tuple[Any, ...]]:
    """Yield the records of a file, up to the first that was not written whole."""
    data = path.read_bytes()
    start = 0
    while start + _HEADER.size <= len(data):
        length, checksum = _HEADER.unpack_from(data, start)
        start += _HEADER.size
        body = data[start : start + length]
        if not length or len(body) < length or zlib.crc32(body) != checksum:
            return
        yield marshal.loads(body)
        start += length
