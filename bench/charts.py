"""Charts of a run as SVG, written by hand: no dependency, readable on light and on dark pages."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from bench.figures import Run, Spread
from bench.peers import OURS, PEERS
from bench.table import amount
from bench.workload import Workload
from bench.workloads import WORKLOADS

WIDTH = 860
LABELS = 300
VALUES = 90
ROW = 26
STYLE = """
  .card { fill: #ffffff; stroke: #d0d7de } text { fill: #1f2328; font: 13px system-ui, sans-serif }
  .title { font-weight: 600; font-size: 15px } .note { fill: #59636e; font-size: 12px }
  .grid { stroke: #d8dee4 } .one { stroke: #57606a; stroke-width: 1.5 } .other { fill: #9aa7b5 } .ours { fill: #d9730d }
  .spread { stroke: #1f2328; stroke-width: 1.2 }
  @media (prefers-color-scheme: dark) {
    .card { fill: #161b22; stroke: #3d444d } text { fill: #e6edf3 } .note { fill: #9198a1 }
    .grid { stroke: #2d333b } .one { stroke: #9198a1 } .other { fill: #6e7b8a } .spread { stroke: #e6edf3 }
  }
"""
MARKS = {
    "relay": ("#8b8b8b", "cross"),
    "ppe": ("#2f81f7", "circle"),
    "pool": ("#1a9e5c", "square"),
    "loky": ("#b45fd6", "circle"),
    "pebble": ("#0aa5a5", "square"),
    "mpire": ("#c2557a", "diamond"),
    "ray": ("#d1a000", "diamond"),
    "dask": ("#e5534b", "circle"),
    "riggerlib": ("#7d6b4f", "diamond"),
    "riggerlib-threaded": ("#7d6b4f", "circle"),
    "riggerlib-client": ("#7d6b4f", "square"),
}
"""Colour and shape of each peer in the overview."""
OVERVIEW = (
    "blocking", "submit", "callbacks", "cpu-10ms", "cpu-1ms", "fan-out", "mixed",
    "large-bytes", "large-array", "start", "memory", "remote-events", "remote-trips",
)  # fmt: skip


@dataclass(frozen=True)
class Scale:
    """Places values on a line, evenly or by their logarithm."""

    low: float
    high: float
    left: float
    right: float
    logarithmic: bool

    def place(self, value: float) -> float:
        """Return where a value is."""
        if self.logarithmic:
            part = math.log(max(value, self.low) / self.low) / math.log(self.high / self.low)
        else:
            part = (value - self.low) / (self.high - self.low)
        return self.left + min(1.0, max(0.0, part)) * (self.right - self.left)


def write_charts(run: Run, directory: Path) -> list[Path]:
    """Write the charts of a run: one for each workload with peers, and an overview; return their paths."""
    directory.mkdir(parents=True, exist_ok=True)
    drawn = {name: bars(run, WORKLOADS[name]) for name in run.samples if WORKLOADS[name].group == "speed"}
    drawn["overview"] = overview(run)
    paths = []
    for name, picture in drawn.items():
        if picture:
            paths.append(directory / f"{name}.svg")
            paths[-1].write_text(picture, encoding="utf-8")
    return paths


def bars(run: Run, workload: Workload) -> str:
    """Return a bar for each peer's median with its spread; empty if there is nothing to compare."""
    figures = [(peer, run.figure(workload.name, peer, workload.metric)) for peer in workload.peers]
    known = [(peer, figure) for peer, figure in figures if figure is not None]
    if len(known) < 2:
        return ""
    known.sort(key=lambda row: row[1].median)
    scale = _bar_scale([figure for _, figure in known])
    note = "shorter is better; the line from smallest to largest sample"
    if scale.logarithmic:
        note += "; logarithmic scale"
    rows = [_bar(number_, peer, figure, scale, workload.unit) for number_, (peer, figure) in enumerate(known)]
    return _card(workload.title, note, rows, 64 + ROW * len(known))


def _bar_scale(figures: Sequence[Spread]) -> Scale:
    low, high = min(figure.low for figure in figures), max(figure.high for figure in figures)
    right = WIDTH - VALUES - 24
    if high > 40 * low:
        return Scale(10 ** math.floor(math.log10(low)) / 2, high, LABELS, right, True)
    return Scale(0.0, high, LABELS, right, False)


def _bar(row: int, peer: str, figure: Spread, scale: Scale, unit: str) -> str:
    top = 58 + row * ROW
    middle, end = top + 8, scale.place(figure.median)
    kind = "ours" if peer == OURS else "other"
    return (
        f'<text x="{LABELS - 10}" y="{top + 13}" text-anchor="end">{escape(PEERS[peer].title)}</text>'
        f'<rect class="{kind}" x="{LABELS}" y="{top}" width="{max(1.0, end - LABELS):.1f}" height="16" rx="2"/>'
        f'<path class="spread" d="M{scale.place(figure.low):.1f} {middle}H{scale.place(figure.high):.1f}"/>'
        f'<text x="{max(end, scale.place(figure.high)) + 8:.1f}" y="{top + 13}">{amount(figure.median, unit)}</text>'
    )


def overview(run: Run) -> str:
    """Return what every peer takes, as a multiple of ours, workload by workload; empty if nothing was compared."""
    rows = []
    for name in OVERVIEW:
        workload = WORKLOADS[name]
        ratios = {
            peer: run.ratio(name, (peer, workload.metric), (OURS, workload.metric))
            for peer in workload.peers
            if peer in MARKS
        }
        known = {peer: ratio.median for peer, ratio in ratios.items() if ratio is not None}
        if known:
            rows.append((workload.title, known))
    if not rows:
        return ""
    values = [value for _, known in rows for value in known.values()]
    low, high = min(0.5, *values), max(2.0, *values)
    scale = Scale(10 ** math.floor(math.log10(low)), 10 ** math.ceil(math.log10(high)), LABELS + 70, WIDTH - 30, True)
    return _overview_card(rows, scale)


def _overview_card(rows: Sequence[tuple[str, dict[str, float]]], scale: Scale) -> str:
    peers = [peer for peer in MARKS if any(peer in known for _, known in rows)]
    legend, legend_height = _legend(peers, 62)
    top = 62 + legend_height + 14
    bottom = top + ROW * len(rows)
    parts = [legend, _grid(scale, top - 10, bottom)]
    for number_, (title, known) in enumerate(rows):
        middle = top + number_ * ROW + 8
        parts.append(f'<text x="{LABELS + 56}" y="{middle + 5}" text-anchor="end">{escape(title)}</text>')
        parts += [_mark(scale.place(value), middle, *MARKS[peer]) for peer, value in known.items()]
    note = "time (or memory) as a multiple of rigger_mp's; right of the line: takes more; logarithmic scale"
    return _card("What the others take, measured side by side", note, parts, bottom + 34)


def _grid(scale: Scale, top: float, bottom: float) -> str:
    lines = []
    for power in range(round(math.log10(scale.low)), round(math.log10(scale.high)) + 1):
        value = 10.0**power
        x, kind = scale.place(value), "one" if power == 0 else "grid"
        lines.append(
            f'<path class="{kind}" d="M{x:.1f} {top}V{bottom}"/>'
            f'<text class="note" x="{x:.1f}" y="{bottom + 18}" text-anchor="middle">{plain(value)} ×</text>'
        )
    return "".join(lines)


def plain(value: float) -> str:
    """Return a power of ten as people write it."""
    return f"{value:g}" if value < 1 else f"{value:,.0f}"


def _legend(peers: Sequence[str], top: float) -> tuple[str, float]:
    parts, columns = [], 4
    for number_, peer in enumerate(peers):
        x, y = 24 + (number_ % columns) * 205, top + (number_ // columns) * 20
        title = PEERS[peer].title
        parts.append(_mark(x, y, *MARKS[peer]) + f'<text class="note" x="{x + 12}" y="{y + 4}">{escape(title)}</text>')
    return "".join(parts), 20 * math.ceil(len(peers) / columns)


def _mark(x: float, y: float, colour: str, shape: str) -> str:
    shapes = {
        "circle": f'<circle cx="{x:.1f}" cy="{y}" r="5.5" fill="{colour}" fill-opacity="0.9"/>',
        "square": f'<rect x="{x - 5:.1f}" y="{y - 5}" width="10" height="10" fill="{colour}" fill-opacity="0.9"/>',
        "diamond": f'<path d="M{x:.1f} {y - 6.5}l6.5 6.5l-6.5 6.5l-6.5 -6.5z" fill="{colour}" fill-opacity="0.9"/>',
        "cross": f'<path d="M{x - 5:.1f} {y - 5}l10 10m0 -10l-10 10" stroke="{colour}" stroke-width="2.5"/>',
    }
    return shapes[shape]


def _card(title: str, note: str, parts: Sequence[str], height: float) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}" '
        f'role="img" aria-label="{escape(title)}"><style>{STYLE}</style>\n'
        f'<rect class="card" x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1}" rx="8"/>\n'
        f'<text class="title" x="20" y="27">{escape(title)}</text>\n'
        f'<text class="note" x="20" y="45">{escape(note)}</text>\n' + "\n".join(parts) + "\n</svg>\n"
    )
