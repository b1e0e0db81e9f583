"""From pytest's reports of phases to results of tests, counted as pytest counts them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

MOST_TEXT = 40_000
"""Characters of one text that are sent; four of them fit into a line of the TCP protocol."""

Categorize = Callable[[Any], str]
"""From a report to the word under which pytest's summary counts it, ``""`` if it does not."""


@dataclass(slots=True)
class RunningTest:
    """A test that has started, and the reports of its phases so far."""

    arguments: dict[str, Any]
    reports: list[Any] = field(default_factory=list)

    def results(self, categorize: Categorize) -> list[dict[str, Any]]:
        """Return the arguments of ``finish_test``, a mapping for each result that pytest counts.

        Where there is one, its duration is that of all phases.
        """
        counted = [(word, report) for report in self.reports if (word := categorize(report))]
        if len(counted) == 1:
            ((word, report),) = counted
            seconds = sum(each.duration for each in self.reports)
            return [{**self.arguments, **result_of(word, report, self.reports[-1], seconds)}]
        return [{**self.arguments, **result_of(word, report, report, report.duration)} for word, report in counted]

    def interrupted(self) -> dict[str, Any]:
        """Return the arguments of ``finish_test`` for a test that did not come to its end."""
        return {**self.arguments, **_texts("", "", "", ""), "test_result": "interrupted", "duration": 0.0}


def place_of(location: tuple[str, int | None, str]) -> str:
    """Return where a test is defined, ``file:line``, the line counted from 1; without, where it is not known."""
    file, line, _ = location
    return str(file) if line is None else f"{file}:{line + 1}"


def result_of(word: str, report: Any, last: Any, seconds: float) -> dict[str, Any]:
    """Return what ``finish_test`` says of a result.

    Args:
        word: pytest's word for it.
        report: the report that it is counted for.
        last: the report with all captured output.
        seconds: how long it took.
    """
    texts = _texts(text_of(report), last.capstdout, last.capstderr, last.caplog)
    return {**texts, "test_result": word, "duration": round(seconds, 6)}


def _texts(longrepr: str, stdout: str, stderr: str, log: str) -> dict[str, Any]:
    texts = {"longrepr": longrepr, "stdout": stdout, "stderr": stderr, "log": log}
    return {name: shorten(text) for name, text in texts.items()}


def text_of(report: Any) -> str:
    """Return why a test did not pass, ``""`` if it did: of a skipped one, the reason."""
    longrepr = report.longrepr
    if isinstance(longrepr, tuple):
        return str(longrepr[-1])
    return str(getattr(report, "longreprtext", "") or getattr(report, "wasxfail", ""))


def shorten(text: str) -> str:
    """Return a text without what no encoding takes, and without its middle if it is long."""
    clean = text.encode("utf-8", "backslashreplace").decode()
    if len(clean) <= MOST_TEXT:
        return clean
    half = MOST_TEXT // 2
    return f"{clean[:half]}\n[{len(clean) - 2 * half} characters left out]\n{clean[-half:]}"
