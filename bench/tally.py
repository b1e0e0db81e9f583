"""Proof that functions ran: each process counts its calls in a file that outlives it.

A benchmark that only waits for outcomes would praise an engine that skips the work. Every benchmarked function
therefore calls :func:`add`, which costs well under a microsecond: it changes numbers in a memory-mapped
file of its own process. The measuring process adds up all files.
"""

from __future__ import annotations

import mmap
import os
import struct
import threading
import time
from pathlib import Path
from typing import NamedTuple

DIRECTORY = "RIGGER_MP_BENCH_TALLY"
"""The environment variable that tells every process where the files are."""

_WRAP = 2**64
_ROW = struct.Struct("QQQ")
_lock = threading.Lock()
_cells: memoryview | None = None


class Tally(NamedTuple):
    """How many calls there were, and the sum of what they were given, modulo 2**64."""

    calls: int
    total: int

    def since(self, earlier: Tally) -> Tally:
        """Return what was added after ``earlier`` was read."""
        return Tally(self.calls - earlier.calls, (self.total - earlier.total) % _WRAP)


def add(value: int) -> None:
    """Count one call of this process, and add its value."""
    with _lock:
        cells = _cells if _cells is not None else _open()
        cells[0] += 1
        cells[1] = (cells[1] + value) % _WRAP


def stamp(value: int) -> None:
    """Count one call, and note when it ran, by the clock that all processes share."""
    now = time.monotonic_ns()
    add(value)
    assert _cells is not None
    _cells[2] = now


def read() -> Tally:
    """Return what all processes have counted so far."""
    files = (file.read_bytes() for file in Path(os.environ[DIRECTORY]).glob("*.tally"))
    rows = [_ROW.unpack(content) for content in files if len(content) == _ROW.size]
    return Tally(sum(row[0] for row in rows), sum(row[1] for row in rows) % _WRAP)


class Stamps:
    """What :func:`stamp` noted, in the processes that have run something by now."""

    def __init__(self) -> None:
        self._cells = []
        for path in Path(os.environ[DIRECTORY]).glob("*.tally"):
            with path.open("rb") as file:
                content = mmap.mmap(file.fileno(), _ROW.size, access=mmap.ACCESS_READ)
            self._cells.append(memoryview(content).cast("Q"))

    def latest(self) -> int:
        """Return when the last call ran, in nanoseconds of the monotonic clock."""
        return max(cells[2] for cells in self._cells)


def _open() -> memoryview:
    global _cells  # noqa: PLW0603 - one file a process is the point
    path = Path(os.environ[DIRECTORY]) / f"{os.getpid()}.tally"
    with path.open("w+b") as file:
        file.truncate(_ROW.size)
        _cells = memoryview(mmap.mmap(file.fileno(), _ROW.size)).cast("Q")
    return _cells


def _forget() -> None:
    global _cells, _lock
    _cells, _lock = None, threading.Lock()


os.register_at_fork(after_in_child=_forget)
