"""What a report is to say, written down as it comes: a worker process that is killed takes no result with it.

One file of JSON lines: when the session started, then a line for each test. Each line begins with the line break,
so that one which a kill cut short spoils no other.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import astuple
from pathlib import Path
from typing import Any, NamedTuple

from rigger_mp.plugins.report_rows import TestRow


class Start(NamedTuple):
    """When a session started: ISO 8601, and the monotonic clock's seconds."""

    time: str
    clock: float


class Journal:
    """The file of one session.

    Args:
        path: where it is; directories are made.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def begin(self, start: Start) -> None:
        """Begin the file anew.

        Raises:
            OSError: it cannot be written.
        """
        self._write("w", start)

    def add(self, test: TestRow) -> None:
        """Append a test.

        Raises:
            OSError: it cannot be written.
        """
        self._write("a", astuple(test))

    def read(self) -> tuple[Start | None, list[TestRow]]:
        """Return when the session started, ``None`` if nothing said so, and its tests, in their order.

        Raises:
            OSError: the file is there and cannot be read.
        """
        start, tests = None, []
        for fields in self._lines():
            if len(fields) == len(Start._fields):
                start = Start(*fields)
            else:
                tests.append(TestRow(*fields))
        return start, tests

    def remove(self) -> None:
        """Remove the file if it is there.

        Raises:
            OSError: it cannot be removed.
        """
        self._path.unlink(missing_ok=True)

    def _write(self, mode: str, fields: tuple[Any, ...]) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open(mode, encoding="ascii") as file:
            file.write(f"\n{json.dumps(fields)}")

    def _lines(self) -> Iterator[list[Any]]:
        if not self._path.exists():
            return
        with self._path.open(encoding="ascii") as file:
            for line in file:
                try:
                    fields = json.loads(line)
                except ValueError:
                    continue  # blank, or cut short
                yield fields
