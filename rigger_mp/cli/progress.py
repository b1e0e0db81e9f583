"""Progress on standard error: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import shutil
import sys
import threading
import time
from typing import TextIO

BAR_INTERVAL = 0.1
LINE_INTERVAL = 5.0
"""Seconds between two updates, on a terminal and elsewhere."""


class Progress:
    """Shows how far a run is.

    Args:
        total: how many inputs there are, ``None`` if that is unknown.
        stream: where to write.

    Attributes:
        interval: seconds between two updates.
    """

    def __init__(self, total: int | None, stream: TextIO | None = None) -> None:
        self._total = total
        self._stream = stream or sys.stderr
        self._terminal = self._stream.isatty()
        self.interval = BAR_INTERVAL if self._terminal else LINE_INTERVAL
        self._lock = threading.Lock()
        self._start = time.monotonic()
        self._next = self._start + (0.0 if self._terminal else LINE_INTERVAL)

    def show(self, done: int, failures: int) -> None:
        """Show the state, if it is time to."""
        now = time.monotonic()
        if now >= self._next:
            self._next = now + self.interval
            self._write(self.describe(done, failures, now - self._start))

    def message(self, text: str) -> None:
        """Write a line that stays."""
        with self._lock:  # the engine's results thread has messages, too
            self._clear()
            print(text, file=self._stream, flush=True)

    def finish(self, done: int, failures: int) -> None:
        """Show the last state."""
        self._write(self.describe(done, failures, time.monotonic() - self._start))
        if self._terminal:
            print(file=self._stream, flush=True)

    def describe(self, done: int, failures: int, seconds: float) -> str:
        """Return the state as one line."""
        rate = done / seconds if seconds > 0 else 0.0
        parts = [f"{done:,}/{self._total:,}" if self._total is not None else f"{done:,}", f"{rate:,.0f}/s"]
        if failures:
            parts.append(f"{failures:,} failed")
        if self._total is not None and rate and done < self._total:
            parts.append(f"{(self._total - done) / rate:,.0f} s left")
        text = ", ".join(parts)
        return f"{self._bar(done, len(text))} {text}" if self._terminal and self._total else text

    def _bar(self, done: int, beside: int) -> str:
        width = max(10, min(40, shutil.get_terminal_size().columns - beside - 4))
        filled = width * done // max(self._total or 1, 1)
        return f"[{'#' * filled}{'.' * (width - filled)}]"

    def _write(self, text: str) -> None:
        with self._lock:
            if self._terminal:
                self._stream.write(f"\r{text}\033[K")
                self._stream.flush()
            else:
                print(text, file=self._stream, flush=True)

    def _clear(self) -> None:
        if self._terminal:
            self._stream.write("\r\033[K")
