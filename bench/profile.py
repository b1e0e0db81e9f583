"""Where each microsecond goes: the tables of the workloads of the group ``profile``."""

from __future__ import annotations

from bench.figures import Run
from bench.peers import PEERS
from bench.table import spread_text
from bench.workloads import WORKLOADS
from bench.workloads.steps import LABELS


def rows(run: Run, name: str) -> list[tuple[str, ...]]:
    """Return a table: a row for each metric, a column for each peer that was measured."""
    workload = WORKLOADS[name]
    peers = [peer for peer in workload.peers if run.figure(name, peer, workload.metric)]
    table: list[tuple[str, ...]] = [(workload.title, *(PEERS[peer].title for peer in peers))]
    for metric, (label, unit) in LABELS.items():
        figures = [run.figure(name, peer, metric) for peer in peers]
        if any(figures):
            table.append((label, *(spread_text(figure, unit) if figure else "–" for figure in figures)))
    return table
