"""Memory that outlives the dispatcher: how far the engine had come when it died.

The user's process makes it; the dispatcher and its workers map it, too. Every field has one writer, so that
there is no lock in it::

    0        8                72            136            136 + 16 * ROWS
    | newest | counts, even   | counts, odd | rows ...     | places ...
                │ by the dispatcher           │              └ the token of the event at the place that started last,
                │                             │                by its workers; tokens of one place increase
                └ nested events and background└ a process each: its pid, by the dispatcher; how many nested
                  handlers not yet ended        events it has fired, by the process itself
"""

from __future__ import annotations

import mmap
import os
import struct
from typing import NamedTuple

ROWS = 1024
"""Worker processes that are known at once; what is beyond has no row."""
_INT = struct.Struct("=q")
_COUNTS = struct.Struct("=qqq")
_ROW = struct.Struct("=qq")
_COUNTS_AT = (8, 72)
_ROWS_AT = 136
_PLACES_AT = _ROWS_AT + ROWS * _ROW.size


def memory_size(places: int) -> int:
    """Return the bytes of the memory for so many pending events."""
    return _PLACES_AT + places * _INT.size


class Counts(NamedTuple):
    """What the dispatcher has accepted and nobody in the user's process waits for.

    Attributes:
        nested: nested events that have not ended.
        background: background handlers that have not ended.
        received: nested events that the dispatcher has heard of, ever.
    """

    nested: int = 0
    background: int = 0
    received: int = 0


class Marks:
    """See the module.

    Args:
        places: how many events may be pending at once.
        fd: a file of :func:`memory_size`, as another process made it, or one that outlives this process, too;
            ``None``: make it. It is closed with this.

    Attributes:
        counts: those noted last by this process.
    """

    def __init__(self, places: int, fd: int | None = None) -> None:
        self.places = places
        self.fd = _make_file(memory_size(places)) if fd is None else fd
        self._memory = mmap.mmap(self.fd, memory_size(places))
        self._left: mmap.mmap | None = None
        self.counts = Counts()

    # -- the user's process ------------------------------------------------------------------------------

    def has_started(self, token: int) -> bool:
        """Tell whether the event of a token has started."""
        # A later event at its place has started: so it had even ended.
        started: int = _INT.unpack_from(self._memory, self._place(token))[0]
        return started >= token

    def pids(self) -> list[int]:
        """Return the processes of the dispatcher."""
        rows = (_ROW.unpack_from(self._memory, _ROWS_AT + row * _ROW.size) for row in range(ROWS))
        return [pid for pid, _ in rows if pid]

    def take_unfinished(self) -> tuple[int, int]:
        """Return how many nested events and background handlers a dead dispatcher left; forget all of it."""
        counts = self._newest()
        rows = (_ROW.unpack_from(self._memory, _ROWS_AT + row * _ROW.size) for row in range(ROWS))
        fired = sum(fired for _, fired in rows)
        self._memory[:_PLACES_AT] = bytes(_PLACES_AT)
        return counts.nested + max(0, fired - counts.received), counts.background

    def _newest(self) -> Counts:
        (newest,) = _INT.unpack_from(self._memory, 0)
        return Counts(*_COUNTS.unpack_from(self._memory, _COUNTS_AT[newest % 2]))

    def close(self) -> None:
        """Release the memory here."""
        self._memory.close()
        os.close(self.fd)

    # -- the dispatcher ----------------------------------------------------------------------------------

    def add_process(self, row: int, pid: int) -> None:
        """Note a process in a row."""
        self._set_row(row, 0, pid)

    def remove_process(self, row: int, received: int) -> None:
        """Free the row of a process; ``received`` nested events have come from its row, ever."""
        self._set_row(row, 0, 0)
        self._set_row(row, 8, received)

    def note(self, counts: Counts) -> None:
        """Note the counts, all at once."""
        if counts == self.counts:
            return
        self.counts = counts
        (newest,) = _INT.unpack_from(self._memory, 0)
        _COUNTS.pack_into(self._memory, _COUNTS_AT[(newest + 1) % 2], *counts)
        _INT.pack_into(self._memory, 0, newest + 1)

    # -- whoever runs an event ---------------------------------------------------------------------------

    def start(self, token: int) -> None:
        """Note that the event of a token has started."""
        _INT.pack_into(self._memory, self._place(token), token)

    def fire(self, row: int) -> None:
        """Note that the process of a row fires a nested event."""
        if 0 <= row < ROWS:
            (fired,) = _INT.unpack_from(self._memory, _ROWS_AT + row * _ROW.size + 8)
            self._set_row(row, 8, fired + 1)

    def leave(self) -> None:
        """In a child that a hook forked: touch the shared memory no more."""
        # The mapping is kept: with it Python would close a descriptor whose number is another's by now.
        self._left, self._memory = self._memory, mmap.mmap(-1, memory_size(self.places))

    def _place(self, token: int) -> int:
        return _PLACES_AT + token % self.places * _INT.size

    def _set_row(self, row: int, offset: int, value: int) -> None:
        if 0 <= row < ROWS:
            _INT.pack_into(self._memory, _ROWS_AT + row * _ROW.size + offset, value)


def _make_file(size: int) -> int:
    """Return the descriptor of a file without a name, which ends with the last process that has it."""
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("rigger-mp-marks", os.MFD_CLOEXEC)
    else:
        import tempfile  # noqa: PLC0415 - what it imports takes as long as a third of the dispatcher's start

        with tempfile.TemporaryFile() as file:
            fd = os.dup(file.fileno())
    os.ftruncate(fd, size)
    return fd
