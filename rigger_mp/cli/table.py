"""The table that ends a run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

_UNITS = ("B", "KiB", "MiB", "GiB")


def summarize(stats: Mapping[str, Any], seconds: float, events: int, failures: int) -> dict[str, Any]:
    """Return what the table shows, as data.

    Args:
        stats: what ``Rigger.stats`` returned.
        seconds: how long the run took.
        events: how many inputs were fired.
        failures: how many of them failed.
    """
    plugins: dict[str, dict[str, Any]] = {}
    for row in stats["functions"].values():
        plugin = plugins.setdefault(row["ident"] or "(callbacks)", {"calls": 0, "failures": 0, "seconds": 0.0})
        for key in plugin:
            plugin[key] += row[key]
    return {
        "events": events,
        "failures": failures,
        "seconds": seconds,
        "events_per_second": events / seconds if seconds else 0.0,
        "plugins": plugins,
        "processes": stats["processes"],
    }


def render(summary: Mapping[str, Any]) -> str:
    """Return the table as text."""
    totals = [
        ("events", f"{summary['events']:,}"),
        ("failures", f"{summary['failures']:,}"),
        ("seconds", f"{summary['seconds']:.2f}"),
        ("events/s", f"{summary['events_per_second']:,.1f}"),
    ]
    plugins = [
        (ident, f"{row['calls']:,}", f"{row['failures']:,}", f"{row['seconds']:.2f} s")
        for ident, row in summary["plugins"].items()
    ]
    processes = [
        (row["name"], f"{row['jobs']:,}", f"{row['cpu_seconds']:.2f} s", human_bytes(row["rss_bytes"]), row["restarts"])
        for row in summary["processes"]
    ]
    return "\n\n".join(
        [
            align(totals),
            align([("plugin", "calls", "failures", "time"), *plugins]),
            align([("process", "jobs", "CPU", "memory", "restarts"), *processes]),
        ]
    )


def human_bytes(count: float) -> str:
    """Return a count of bytes in the unit that suits it."""
    for unit in _UNITS:
        if count < 1024 or unit == _UNITS[-1]:
            break
        count /= 1024
    return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"


def align(rows: Iterable[Sequence[Any]]) -> str:
    """Return rows as lines: the first column to the left, the others to the right."""
    texts = [[str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if number else cell.ljust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in texts
    )
