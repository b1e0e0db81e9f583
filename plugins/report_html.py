"""The HTML page of a report: self-contained, readable in light and dark, every value escaped.

It loads nothing: style is in the page, the chart is inline SVG, there is no script, and a content security
policy forbids all three should an escape ever be missed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from rigger_mp.plugins.report_rows import FunctionRow, Report, histogram

MOST_COMPLEX = 50
"""Functions in the page's table; the CSV has them all."""

LIMIT = 500
"""Rows of the page's other tables; the CSV has them all."""

PASSED = frozenset({"passed", "skipped", "xfailed", "xpassed"})
"""Results that need no look, so that the page only counts such tests."""

POLICY = "default-src 'none'; style-src 'unsafe-inline'"

STYLE = """
:root { color-scheme: light dark; --text: #1c1f23; --faint: #5b636d; --page: #fbfbfa; --tile: #f0f1ee;
  --line: #d6d9d4; --bar: #2f6f8f; --over: #b4532a; }
@media (prefers-color-scheme: dark) { :root { --text: #e6e8ea; --faint: #a2aab3; --page: #16181b;
  --tile: #22262b; --line: #3a4047; --bar: #6db3d3; --over: #e58b5f; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2rem 1rem 4rem; max-width: 64rem; background: var(--page); color: var(--text);
  font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.6rem; margin: 0; } h2 { font-size: 1.15rem; margin: 2.5rem 0 .5rem; }
p, figcaption, th, dt { color: var(--faint); }
dl { display: grid; gap: .75rem; margin: 1.5rem 0;
  grid-template-columns: repeat(auto-fit, minmax(9rem, 1fr)); }
dl div { background: var(--tile); border-radius: .5rem; padding: .75rem 1rem; }
dt { font-size: .85rem; } dd { margin: 0; font-size: 1.35rem; font-variant-numeric: tabular-nums; }
figure { margin: 0; } svg { width: 100%; height: auto; font-size: 13px; }
svg text { fill: var(--text); } svg .bar { fill: var(--bar); } svg .over { fill: var(--over); }
.table { overflow-x: auto; } table { border-collapse: collapse; width: 100%; font-size: .9rem; }
th, td { text-align: left; vertical-align: top; padding: .3rem .75rem .3rem 0;
  border-bottom: 1px solid var(--line); overflow-wrap: anywhere; }
th { font-weight: 600; white-space: nowrap; }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; overflow-wrap: normal; }
td.text { white-space: pre-wrap; }
"""

Cell = tuple[str, str]
"""A cell's text and its CSS class."""


def render(report: Report) -> str:
    """Return the page; what of the report's texts is not Unicode or not printable is shown escaped."""
    body = [_heading(report), _tiles(report)]
    body += [_chart(report.functions), _most_complex(report)] if report.functions else []
    body += [_not_parsed(report)] if report.not_parsed else []
    body += [_tests(report)] if report.tests else []
    if not report.files and not report.tests:
        body.append("<p>Nothing was audited and no test was run in this session.</p>")
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{_title(report)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(body)
        + "\n</body>\n</html>\n"
    )


def _title(report: Report) -> str:
    return "Test report" if _tells_of_tests_only(report) else "Audit report"


def _tells_of_tests_only(report: Report) -> bool:
    return bool(report.tests) and not report.files


def _heading(report: Report) -> str:
    session = report.session
    started = f"Started {session.started}, finished" if session.started else "Finished"
    seconds = f", {session.seconds:,.1f} s" if session.seconds is not None else ""
    return f"<h1>{_title(report)}</h1>\n<p>{_show(f'{started} {session.finished}{seconds}')}</p>"


def _tiles(report: Report) -> str:
    counts = report.summary
    size, compressed = counts["bytes"] or 0, counts["compressed"] or 0
    tiles: dict[str, str] = {}
    if not _tells_of_tests_only(report):
        tiles["Files"] = f"{counts['files']:,}"
        tiles["Not parsed"] = f"{counts['not_parsed']:,}"
        tiles["Functions"] = f"{counts['functions']:,}"
    if report.functions:
        tiles["Mean complexity"] = f"{counts['mean_complexity']:.2f}"
        tiles["Highest complexity"] = f"{counts['max_complexity']:,}"
    if size:
        tiles["Size"] = _size(size)
        tiles["Compresses to"] = f"{compressed / size:.0%}"
    if report.tests:
        tiles["Tests"] = f"{counts['tests']:,}"
    return f"<dl>{''.join(_tile(name, value) for name, value in tiles.items())}</dl>"


def _tile(name: str, value: str) -> str:
    return f"<div><dt>{_show(name)}</dt><dd>{_show(value)}</dd></div>"


def _size(count: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:,.0f} {unit}" if unit == "B" else f"{count:,.1f} {unit}"
        count /= 1024
    return f"{count:,.1f} GiB"


def _chart(functions: Sequence[FunctionRow]) -> str:
    bins = histogram(functions)
    highest = max(count for _, count in bins)
    bars = "".join(_bar(row, ends, count, count / highest) for row, (ends, count) in enumerate(bins))
    return (
        "<h2>Complexity of functions</h2>\n<figure>"
        f'<svg viewBox="0 0 720 {len(bins) * 28}" role="img" aria-label="Functions by complexity">'
        f"{bars}</svg><figcaption>Functions by McCabe complexity; above 10, McCabe's own limit, "
        "in the second colour.</figcaption></figure>"
    )


def _bar(row: int, ends: tuple[int, int | None], count: int, share: float) -> str:
    low, high = ends
    label = f"{low} and more" if high is None else str(low) if low == high else f"{low} to {high}"
    # A bar of one function among thousands must not vanish.
    width = max(share * 520, 2) if count else 0
    top, middle = row * 28 + 3, row * 28 + 18
    style = "over" if low > 10 else "bar"
    return (
        f'<text x="88" y="{middle}" text-anchor="end">{label}</text>'
        f'<rect class="{style}" x="100" y="{top}" width="{width:.1f}" height="20" rx="2"></rect>'
        f'<text x="{108 + width:.1f}" y="{middle}">{count:,}</text>'
    )


def _most_complex(report: Report) -> str:
    rows = [
        (_number(row.complexity), (row.name, ""), (row.path, ""), _number(row.line))
        for row in report.functions[:MOST_COMPLEX]
    ]
    columns = (("Complexity", "number"), ("Function", ""), ("File", ""), ("Line", "number"))
    return _table("Most complex functions", columns, rows, len(report.functions), "functions.csv")


def _not_parsed(report: Report) -> str:
    rows = [((row.path, ""), (row.error, "text")) for row in report.not_parsed[:LIMIT]]
    columns = (("File", ""), ("Reason", ""))
    return _table("Files not parsed", columns, rows, len(report.not_parsed), "files.csv")


def _tests(report: Report) -> str:
    counts = [((result or "no result", ""), _number(count)) for result, count in report.test_results.items()]
    section = _table("Tests", (("Result", ""), ("Tests", "number")), counts, len(counts), "tests.csv")
    failed = [row for row in report.tests if row.result not in PASSED]
    if not failed:
        return section
    rows = [
        ((row.result, ""), (row.name, ""), (row.location, ""), _seconds(row.duration), (row.longrepr, "text"))
        for row in failed[:LIMIT]
    ]
    columns = (("Result", ""), ("Test", ""), ("Location", ""), ("Seconds", "number"), ("Report", ""))
    return section + "\n" + _table("Tests that did not pass", columns, rows, len(failed), "tests.csv")


def _table(title: str, columns: Sequence[Cell], rows: Sequence[Sequence[Cell]], total: int, rest: str) -> str:
    head = _row("th", columns)
    body = "\n".join(_row("td", row) for row in rows)
    more = f"\n<p>{total - len(rows):,} more are in {rest}.</p>" if total > len(rows) else ""
    return (
        f'<h2>{_show(title)}</h2>\n<div class="table"><table><thead>{head}</thead>\n'
        f"<tbody>{body}</tbody></table></div>{more}"
    )


def _row(tag: str, cells: Iterable[Cell]) -> str:
    return f"<tr>{''.join(_cell(tag, text, style) for text, style in cells)}</tr>"


def _cell(tag: str, text: str, style: str) -> str:
    attribute = f' class="{style}"' if style else ""
    return f"<{tag}{attribute}>{_show(text)}</{tag}>"


def _number(value: int) -> Cell:
    return f"{value:,}", "number"


def _seconds(value: float | None) -> Cell:
    return "" if value is None else f"{value:.3f}", "number"


def _show(text: str) -> str:
    """Escape a text; characters that HTML forbids are shown as Python writes them."""
    shown = (char if char.isprintable() or char in "\n\t" else ascii(char)[1:-1] for char in text)
    return escape("".join(shown))
