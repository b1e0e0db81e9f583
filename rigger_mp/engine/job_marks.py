"""Marks of jobs: which background jobs were started and how they ended, in a file that outlives every process.

The archive process writes a mark before and after each job; the pages are shared memory of a file, so that a mark
costs no system call and is there even if every process is killed in the next instant::

    identity | position | engine, dispatcher | (unused) | key, attempt and state | key, attempt and state | ...
               next entry   pids of the holder              └──────────── a ring of entries ─────────────┘

An entry speaks of one attempt at a job. It counts only as long as the spool says the same number of attempts, so
that one which is out of date says nothing.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

STARTED, DONE, FAILED = 1, 2, 3
"""States of an attempt."""

ENTRIES = 1024
"""More than the jobs that the archive may have been sent and the spool does not know to be finished."""
_WORD = 8
_IDENTITY, _POSITION, _ENGINE, _DISPATCHER = range(4)
_HEADER = 8
SIZE = (_HEADER + 2 * ENTRIES) * _WORD


class Mark(NamedTuple):
    """How far one attempt at a job has come."""

    key: int
    attempt: int
    state: int


class JobMarks:
    """See the module. Opened before the archive process is forked, and so shared with it.

    Args:
        path: the file; it is made if it is not there.
        identity: the number of the spool whose jobs it speaks of. JobMarks of another one are forgotten.

    Raises:
        OSError: the file cannot be made, or there is no room for it.
    """

    def __init__(self, path: Path, identity: int) -> None:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            # Writing to a page for which the disk has no room would be the end of the process: no holes.
            size = os.fstat(fd).st_size
            os.pwrite(fd, bytes(max(0, SIZE - size)), size)
            self._map = mmap.mmap(fd, SIZE)
        finally:
            os.close(fd)
        # Stores of whole words: a process that is killed leaves none half written.
        self._words = memoryview(self._map).cast("Q")
        if self._words[_IDENTITY] != identity:
            self.clear()
            self._words[_IDENTITY] = identity

    # -- the archive's side ------------------------------------------------------------------------------

    def start(self, key: int, attempt: int) -> int:
        """Note that an attempt at a job starts; return its place for :meth:`end`."""
        words = self._words
        position = words[_POSITION] % ENTRIES
        place = _HEADER + 2 * position
        words[place + 1] = 0
        words[place] = key
        words[place + 1] = attempt << 2 | STARTED
        words[_POSITION] = position + 1
        return place

    def end(self, place: int, *, failed: bool) -> None:
        """Note that an attempt has ended."""
        self._words[place + 1] = self._words[place + 1] & ~3 | (FAILED if failed else DONE)

    # -- the dispatcher's side ---------------------------------------------------------------------------

    def __iter__(self) -> Iterator[Mark]:
        return _entries(self._words)

    def clear(self) -> None:
        """Forget every mark."""
        for place in range(_HEADER, len(self._words)):
            self._words[place] = 0

    def hold(self, engine: int, dispatcher: int) -> None:
        """Note the process ids of those who use the spool."""
        self._words[_ENGINE], self._words[_DISPATCHER] = engine, dispatcher

    def close(self) -> None:
        """Release the memory; the file stays."""
        self._words.release()
        self._map.close()


def read_marks(path: Path, identity: int) -> list[Mark]:
    """Return the marks of a spool's jobs without changing anything; none if there are none of this spool."""
    words = _read(path)
    return list(_entries(words)) if words[_IDENTITY] == identity else []


def read_holder(path: Path) -> tuple[int, int]:
    """Return the process ids of engine and dispatcher that used the spool last; 0, 0 if none is noted."""
    words = _read(path)
    return words[_ENGINE], words[_DISPATCHER]


def _read(path: Path) -> memoryview[int]:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        data = b""
    return memoryview(data[:SIZE].ljust(SIZE, b"\0")).cast("Q")


def _entries(words: memoryview[int]) -> Iterator[Mark]:
    for place in range(_HEADER, _HEADER + 2 * ENTRIES, 2):
        attempt, state = words[place + 1] >> 2, words[place + 1] & 3
        if state:
            yield Mark(words[place], attempt, state)
