"""Splitting a stream of bytes into lines of bounded length."""

from __future__ import annotations


class LineTooLong(Exception):
    """Raised, once, for a line beyond the limit; what is left of it is passed over."""


class LineSplitter:
    """Takes bytes as they arrive, gives lines; holds no more than one line and what was appended last."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._start = 0
        self._searched = 0
        self._skipping = False

    @property
    def has_part(self) -> bool:
        """Whether there is something that :meth:`next` has not returned yet."""
        return self._skipping or len(self._buffer) > self._start

    def append(self, data: bytes) -> None:
        """Take bytes."""
        del self._buffer[: self._start]
        self._searched -= self._start
        self._start = 0
        self._buffer += data

    def next(self, limit: int) -> bytes | None:
        """Return the next line that is not blank, without its end; ``None`` if it is not complete yet.

        Args:
            limit: most bytes of a line.

        Raises:
            LineTooLong: see the class; go on calling.
        """
        while (end := self._buffer.find(b"\n", self._searched)) >= 0:
            line = bytes(self._buffer[self._start : end])
            self._start = self._searched = end + 1
            if self._skipping:
                self._skipping = False
            elif len(line) > limit:
                raise LineTooLong
            elif line and not line.isspace():
                return line
        self._wait_for_more(limit)
        return None

    def _wait_for_more(self, limit: int) -> None:
        self._searched = len(self._buffer)
        if self._skipping or self._searched - self._start > limit:
            self._buffer.clear()
            self._start = self._searched = 0
            if not self._skipping:
                self._skipping = True
                raise LineTooLong

    def finish(self) -> None:
        """Take the end of the stream: it ends the last line."""
        self.append(b"\n")
