"""One text file per test and instance: its name, when it started, how it ended.

The plugin of riggerlib's own page. ``artifact_path`` is meant to come from a ``pre`` callback, so that
every plugin that keeps artifacts of a test agrees on where they go.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from rigger_mp import RiggerBasePlugin


class TestLog(RiggerBasePlugin):
    """Writes ``<artifact_path>-<ident>.log``: name and start time at ``start_test``, then the result.

    Missing directories are made. ``finish_test`` without ``start_test`` leaves a file with the result only.
    """

    __test__ = False  # pytest takes classes named Test* for tests

    def plugin_initialize(self) -> None:
        """Bind ``start_test`` and ``finish_test``."""
        self.register_plugin_hook("start_test", self.start_test)
        self.register_plugin_hook("finish_test", self.finish_test)

    def start_test(self, test_name: str, artifact_path: str | os.PathLike[str]) -> None:
        """Begin the test's file anew, with its name and the time in seconds since the epoch.

        Raises:
            OSError: the file cannot be written.
        """
        self._write(artifact_path, "w", f"{test_name}\n{time.time()}\n")

    def finish_test(self, artifact_path: str | os.PathLike[str], test_result: object) -> None:
        """Append the result to the test's file.

        Raises:
            OSError: the file cannot be written.
        """
        self._write(artifact_path, "a", f"{test_result}\n")

    def _write(self, artifact_path: str | os.PathLike[str], mode: str, text: str) -> None:
        path = Path(f"{os.fspath(artifact_path)}-{self.ident}.log")
        path.parent.mkdir(parents=True, exist_ok=True)
        # Names of tests come from names of files, which need not be valid UTF-8.
        with path.open(mode, encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
