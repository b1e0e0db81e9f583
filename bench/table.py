"""The tables that a run prints."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from bench.figures import Run, Spread
from bench.goals import GOALS
from bench.peers import OURS, PEERS
from bench.workload import Workload

_SCALES = {"us": (1e6, "µs"), "ms": (1e3, "ms"), "s": (1.0, "s"), "MiB": (1.0, "MiB"), "ratio": (1.0, "")}


def number(value: float) -> str:
    """Return a number with three digits that count."""
    if value == 0:
        return "0"
    size = abs(value)
    if size >= 100:
        return f"{value:,.0f}"
    return f"{value:.{1 if size >= 10 else 2 if size >= 1 else 3}f}"


def amount(value: float, unit: str) -> str:
    """Return a figure in its unit."""
    scale, name = _SCALES[unit]
    return f"{number(value * scale)} {name}".rstrip()


def spread_text(spread: Spread, unit: str) -> str:
    """Return a median with its spread."""
    scale, name = _SCALES[unit]
    low, high = number(spread.low * scale), number(spread.high * scale)
    return f"{number(spread.median * scale)} {name}".rstrip() + f" ({low}–{high})"


def workload_table(run: Run, workload: Workload) -> str:
    """Return one workload's table: each peer's figure, and how many times ours it takes."""
    rows = [("", workload.title, "takes, × rigger_mp")]
    rows += [_peer_row(run, workload, peer) for peer in workload.peers]
    return align(rows)


def _peer_row(run: Run, workload: Workload, peer: str) -> tuple[str, str, str]:
    title = PEERS[peer].title
    figure = run.figure(workload.name, peer, workload.metric)
    if figure is None:
        return title, _why_not(run, workload, peer), ""
    if smaller := workload.smaller.get(peer):
        taken = run.samples[workload.name][peer][0].size
        if any(taken[key] == value for key, value in smaller.items()):
            title += " [" + ", ".join(f"{taken[key]:,} {key}" for key in smaller) + "]"
    ratio = run.ratio(workload.name, (peer, workload.metric), (OURS, workload.metric))
    refused = len(run.refusals(workload.name, peer))
    note = f"  {refused} refused" if refused else ""
    return title, spread_text(figure, workload.unit) + note, spread_text(ratio, "ratio") if ratio else "no ratio"


def _why_not(run: Run, workload: Workload, peer: str) -> str:
    if absent := run.absent.get(workload.name, {}).get(peer):
        return absent
    refusals = run.refusals(workload.name, peer)
    return f"refused: {refusals[0]}" if refusals else "not measured"


def goal_rows(run: Run) -> list[tuple[str, str, str]]:
    """Return for each goal whose workload was run its text, its figure and the verdict."""
    rows = []
    for goal in GOALS:
        if goal.workload in run.samples:
            figure = goal.figure(run)
            text = spread_text(figure, goal.unit or "ratio") if figure else goal.missing(run)
            rows.append((goal.text, text, goal.verdict(run)))
    return rows


def align(rows: Iterable[Sequence[str]]) -> str:
    """Return rows as lines with columns."""
    table = [list(row) for row in rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in table)
    return "\n".join(line.rstrip() for line in lines)
