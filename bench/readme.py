"""The figures in the READMEs: blocks between two comments, rewritten from a run.

<!-- bench: goals -->
…what was there is replaced…
<!-- /bench -->
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from bench import profile
from bench.figures import Run
from bench.peers import OURS, PEERS
from bench.table import amount, goal_rows, number, spread_text
from bench.workloads import WORKLOADS

_BLOCK = re.compile(r"(<!-- bench: (?P<name>[a-z-]+) -->\n).*?(<!-- /bench -->)", re.DOTALL)
HEADLINE = ("ppe", "pool", "riggerlib")
"""The peers that the short table shows; for riggerlib, whichever of its ways the workload measures."""


class ReadmeError(Exception):
    """Raised when a README has a block that nothing can fill."""


def rewrite(run: Run, files: Iterable[Path]) -> list[Path]:
    """Rewrite the blocks of the files from a run; return the files that changed.

    Raises:
        ReadmeError: a block has a name that is not known; nothing has been written then.
    """
    changed = {}
    for file in files:
        text = file.read_text(encoding="utf-8")
        new = _BLOCK.sub(lambda match: match[1] + fill(run, match["name"]) + "\n" + match[3], text)
        if new != text:
            changed[file] = new
    for file, new in changed.items():
        file.write_text(new, encoding="utf-8")
    return list(changed)


def fill(run: Run, name: str) -> str:
    """Return what belongs into a block."""
    if name not in BLOCKS:
        raise ReadmeError(f"there is no block named {name!r}, expected one of {', '.join(BLOCKS)}")
    return BLOCKS[name](run)


def machine_line(run: Run) -> str:
    """Return what the figures depend on, in one line."""
    meta = run.meta
    versions = ", ".join(f"{name} {version}" for name, version in meta["versions"].items() if version)
    rounds = max((len(rows) for peers in run.samples.values() for rows in peers.values()), default=0)
    options = f"{rounds} round{'s' * (rounds != 1)}{', --quick' if meta.get('quick') else ''}"
    load = f"load average {meta['load']:.1f} at the start" if "load" in meta else ""
    return f"Python {meta['python']}, {meta['system']}, {meta['cpus']} CPUs, {load}; {options}; {versions}."


def headline(run: Run) -> str:
    """Return the short table: ours and what most would pick instead."""
    rows = [("workload", "rigger_mp", *(PEERS[peer].title.removesuffix(" 3.1.6") for peer in HEADLINE))]
    for name in run.samples:
        workload = WORKLOADS[name]
        ours = run.figure(name, OURS, workload.metric)
        if workload.group == "speed" and workload.unit != "ratio" and ours:
            cells = [_peer_cell(run, name, peer) for peer in HEADLINE]
            if any(cells):
                rows.append((workload.title, amount(ours.median, workload.unit), *(cell or "–" for cell in cells)))
    return markdown(rows)


def _peer_cell(run: Run, name: str, start: str) -> str:
    workload = WORKLOADS[name]
    for peer in workload.peers:
        if peer == start or (start == "riggerlib" and peer.startswith(start)):
            figure = run.figure(name, peer, workload.metric)
            ratio = run.ratio(name, (peer, workload.metric), (OURS, workload.metric))
            if figure and ratio:
                return f"{amount(figure.median, workload.unit)} ({number(ratio.median)} ×)"
    return ""


def goals(run: Run) -> str:
    """Return the table of goals."""
    return markdown([("goal", "measured: median (min–max)", "verdict"), *goal_rows(run)])


def workloads(_run: Run) -> str:
    """Return what each workload does."""
    speed = [workload for workload in WORKLOADS.values() if workload.group == "speed"]
    return markdown([("name", "workload", "what is done"), *((f"`{one.name}`", one.title, one.about) for one in speed)])


def tables(run: Run) -> str:
    """Return every workload's table."""
    return "\n\n".join(_table(run, name) for name in run.samples if WORKLOADS[name].group == "speed")


def _table(run: Run, name: str) -> str:
    workload = WORKLOADS[name]
    rows = [(f"{name}: {workload.title}", "median (min–max)", "× rigger_mp")]
    for peer in workload.peers:
        figure = run.figure(name, peer, workload.metric)
        ratio = run.ratio(name, (peer, workload.metric), (OURS, workload.metric))
        why = run.absent.get(name, {}).get(peer) or next(iter(run.refusals(name, peer)), "not measured")
        rows.append(
            (
                PEERS[peer].title,
                spread_text(figure, workload.unit) if figure else why,
                spread_text(ratio, "ratio") if ratio else "",
            )
        )
    return markdown(rows)


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """Return rows as a Markdown table; the first is its head."""
    head, *body = rows
    lines = [head, ["---"] * len(head), *body]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


BLOCKS: dict[str, Callable[[Run], str]] = {
    "machine": machine_line,
    "headline": headline,
    "goals": goals,
    "workloads": workloads,
    "tables": tables,
    "profile-blocking": lambda run: markdown(profile.rows(run, "profile-blocking")),
    "profile-submit": lambda run: markdown(profile.rows(run, "profile-submit")),
    "profile-steps": lambda run: markdown(profile.rows(run, "profile-steps")),
}
