"""The file that gets what hooks print and log during a test run, and the whole text of their failures."""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path


class HookLog:
    """A text file that is made, anew for each run, when something is first written.

    Args:
        path: where it is.

    Attributes:
        used: whether something was written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.used = False
        self._lock = threading.Lock()

    def write(self, text: str) -> None:
        """Append a text; any thread may. What the disk does not take is dropped: tests go on."""
        with self._lock, contextlib.suppress(OSError):
            # Opened for each text: nothing is lost should the process be killed.
            with self.path.open("a" if self.used else "w", encoding="utf-8", errors="backslashreplace") as file:
                file.write(text)
            self.used = True
