"""What a report says, apart from how it is written: rows and sums of the audited files and of tests.

Pure: the global namespace's ``files`` and the collected tests in, frozen rows out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

BINS = ((1, 1), (2, 2), (3, 3), (4, 4), (5, 5), (6, 10), (11, 20), (21, 50), (51, None))
"""Bins of the histogram, both ends included; McCabe's own limit of 10 ends one of them."""

NO_REASON = "no complexity was measured"


@dataclass(frozen=True, slots=True)
class FileRow:
    """One audited file.

    Attributes:
        path: as the event named it.
        functions: how many it has; ``None``, like the next two, of a file that was not parsed.
        max_complexity: that of its most complex function.
        total_complexity: the sum over its functions.
        bytes: its size; ``None``, like the next two, if nothing took its checksum.
        compressed: its compressed size in bytes.
        sha256: in hexadecimal.
        error: why it was not parsed; empty if it was.
    """

    path: str
    functions: int | None
    max_complexity: int | None
    total_complexity: int | None
    bytes: int | None
    compressed: int | None
    sha256: str | None
    error: str


@dataclass(frozen=True, slots=True)
class FunctionRow:
    """One function: where it is, and its complexity."""

    path: str
    line: int
    name: str
    complexity: int


@dataclass(frozen=True, slots=True)
class TestRow:
    """One finished test; ``duration`` in seconds, ``longrepr`` the text of its failure."""

    __test__ = False  # pytest takes classes named Test* for tests

    name: str
    location: str
    result: str
    duration: float | None
    longrepr: str


@dataclass(frozen=True, slots=True)
class Session:
    """When the session ran: ISO 8601 times in UTC, and seconds; empty and ``None`` if nothing started it."""

    started: str
    finished: str
    seconds: float | None


@dataclass(frozen=True, slots=True)
class Report:
    """Everything that is written; files in order of paths, functions the most complex first."""

    session: Session
    files: tuple[FileRow, ...]
    functions: tuple[FunctionRow, ...]
    tests: tuple[TestRow, ...]

    @property
    def not_parsed(self) -> tuple[FileRow, ...]:
        """The files without a complexity."""
        return tuple(row for row in self.files if row.functions is None)

    @property
    def summary(self) -> dict[str, int | float | None]:
        """The sums; sizes in bytes, complexities as numbers, ``None`` where there is nothing to average."""
        numbers = [row.complexity for row in self.functions]
        return {
            "files": len(self.files),
            "not_parsed": len(self.not_parsed),
            "functions": len(numbers),
            "max_complexity": max(numbers, default=None),
            "mean_complexity": round(sum(numbers) / len(numbers), 3) if numbers else None,
            "bytes": sum(row.bytes or 0 for row in self.files),
            "compressed": sum(row.compressed or 0 for row in self.files),
            "tests": len(self.tests),
        }

    @property
    def test_results(self) -> dict[str, int]:
        """How many tests ended in each result, the most frequent first."""
        return dict(Counter(row.result for row in self.tests).most_common())

    def as_dict(self) -> dict[str, Any]:
        """Return the report as builtin values, ready for JSON."""
        return {
            "session": asdict(self.session),
            "summary": self.summary,
            "histogram": [
                {"from": low, "to": high, "functions": count}
                for (low, high), count in histogram(self.functions)
            ],
            "files": [asdict(row) for row in self.files],
            "functions": [asdict(row) for row in self.functions],
            "test_results": self.test_results,
            "tests": [asdict(row) for row in self.tests],
        }


def make_report(session: Session, files: Mapping[str, Any] | None, tests: Iterable[TestRow]) -> Report:
    """Make the rows of a report.

    Args:
        session: when it ran.
        files: the global ``files``: by path, what ``complexity`` and ``checksum`` left; ``None``: none.
        tests: in the order in which they ended.
    """
    entries = sorted((files or {}).items())
    functions = [
        FunctionRow(path, line, name, number)
        for path, entry in entries
        for name, line, number in (entry.get("complexity") or {}).get("functions", ())
    ]
    functions.sort(key=lambda row: (-row.complexity, row.path, row.line, row.name))
    return Report(session, tuple(_file_row(*entry) for entry in entries), tuple(functions), tuple(tests))


def histogram(functions: Iterable[FunctionRow]) -> list[tuple[tuple[int, int | None], int]]:
    """Count functions by complexity; every bin of :data:`BINS` is there, also an empty one."""
    numbers = Counter(row.complexity for row in functions)
    return [
        ((low, high), sum(count for number, count in numbers.items() if low <= number <= (high or number)))
        for low, high in BINS
    ]


def _file_row(path: str, entry: Mapping[str, Any]) -> FileRow:
    measured = entry.get("complexity")
    checksum = entry.get("checksum") or {}
    return FileRow(
        path,
        None if measured is None else len(measured["functions"]),
        None if measured is None else measured["max"],
        None if measured is None else measured["total"],
        checksum.get("bytes"),
        checksum.get("compressed"),
        checksum.get("sha256"),
        str(entry.get("error") or NO_REASON) if measured is None else "",
    )
