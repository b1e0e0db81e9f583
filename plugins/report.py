"""Writes what a session found: JSON for programs, CSV for spreadsheets, one HTML page for people.

The stateless plugins of ``audit_file`` leave their findings in the globals, under ``files``, and this plugin
reads them there when the session ends. It is not bound to ``audit_file`` itself: one stateful function would
keep those events in order, one at a time.

    complexity.audit_file ─┐ {"files": {path: {"complexity": …}}}
    checksum.audit_file  ──┼─▶ globals ──▶ report.finish_session ──▶ report.json  files.csv  functions.csv
    complexity.audit_failed┘ {"files": {path: {"error": …}}}         tests.csv    report.html
    finish_test ──▶ rows in a journal, on disk ────────┘
"""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import astuple, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rigger_mp import RiggerBasePlugin
from rigger_mp.plugins import report_html
from rigger_mp.plugins.report_journal import Journal, Start
from rigger_mp.plugins.report_rows import FileRow, FunctionRow, Session, TestRow, make_report
from rigger_mp.plugins.report_rows import Report as Rows

DEFAULT_DIRECTORY = "rigger-audit"
JOURNAL = ".session.jsonl"
"""The file in that directory with what the session has found so far; it goes when the report is written."""


class Report(RiggerBasePlugin):
    """Collects tests, and at the end of the session writes the report and fires ``archive_session``.

    Its configuration takes ``directory``, where the report goes (default ``rigger-audit``).
    """

    def plugin_initialize(self) -> None:
        """Bind ``start_session``, ``finish_test`` and ``finish_session``."""
        self.directory = Path(self.data.get("directory") or DEFAULT_DIRECTORY)
        self._journal = Journal(self.directory / JOURNAL)
        for event in ("start_session", "finish_test", "finish_session"):
            self.register_plugin_hook(event)

    def start_session(self) -> None:
        """Note the time, and forget the tests of an earlier session.

        Raises:
            OSError: the journal cannot be written.
        """
        self._journal.begin(Start(_now(), time.monotonic()))

    def finish_test(
        self,
        test_name: object,
        test_location: object = None,
        test_result: object = None,
        duration: float | None = None,
        longrepr: object = None,
    ) -> None:
        """Keep a test for the report.

        Args:
            test_name: what to call it.
            test_location: where it is defined.
            test_result: ``passed``, ``failed``, or any other word; tests are counted by it.
            duration: seconds.
            longrepr: the text of its failure.

        Raises:
            ValueError: ``duration`` is not a number.
            OSError: the journal cannot be written.
        """
        location, result, text = map(_text, (test_location, test_result, longrepr))
        seconds = None if duration is None else float(duration)
        self._journal.add(TestRow(str(test_name), location, result, seconds, text))

    def finish_session(self, files: Mapping[str, Any] | None = None) -> tuple[None, dict[str, Any]]:
        """Write the report, then fire ``archive_session`` with its directory.

        Args:
            files: the global of this name, by path; ``None``: no file was audited.

        Returns:
            The global update ``{"report": {"rows": int, "not_parsed": int, "functions": int, "tests": int,
            "directory": str, "html": str, "json": str, "csv": tuple of str}}``; ``rows`` counts files.

        Raises:
            OSError: the report cannot be written.
        """
        start, tests = self._journal.read()
        report = make_report(_session_since(start), files, tests)
        written = write_report(report, self.directory)
        self._journal.remove()
        self.fire_hook("archive_session", directory=str(self.directory))
        counts = report.summary
        kept = {name: counts[name] for name in ("not_parsed", "functions", "tests")}
        kept |= {"rows": counts["files"]}
        return None, {"report": {**kept, "directory": str(self.directory), **written}}


def _session_since(start: Start | None) -> Session:
    if start is None:
        return Session("", _now(), None)
    return Session(start.time, _now(), round(time.monotonic() - start.clock, 3))


def write_report(report: Rows, directory: Path) -> dict[str, str | tuple[str, ...]]:
    """Write all files of a report, over those of an earlier one.

    Bytes of a file's name that are not UTF-8 are written as ``\\udcNN`` in all of them.

    Returns:
        The paths: ``html``, ``json``, and ``csv``, a tuple.

    Raises:
        OSError: a file cannot be written.
    """
    directory.mkdir(parents=True, exist_ok=True)
    page, data = directory / "report.html", directory / "report.json"
    data.write_text(json.dumps(report.as_dict(), separators=(",", ":")) + "\n", encoding="utf-8")
    tables: tuple[tuple[str, type, Iterable[Any]], ...] = (
        ("files.csv", FileRow, report.files),
        ("functions.csv", FunctionRow, report.functions),
        ("tests.csv", TestRow, report.tests),
    )
    for name, row_type, rows in tables:
        _write_csv(directory / name, row_type, rows)
    page.write_text(report_html.render(report), encoding="utf-8")
    paths = tuple(str(directory / name) for name, _, _ in tables)
    return {"html": str(page), "json": str(data), "csv": paths}


def _write_csv(path: Path, row_type: Any, rows: Iterable[Any]) -> None:
    with path.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(field.name for field in fields(row_type))
        writer.writerows(map(astuple, rows))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _text(value: object) -> str:
    return "" if value is None else str(value)
