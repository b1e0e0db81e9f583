"""The command line: ``python -m bench``."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from bench.figures import Run
from bench.measure import machine, take
from bench.peers import PEERS
from bench.table import workload_table
from bench.tasks import calibrate
from bench.workload import Workload
from bench.workloads import WORKLOADS

DESCRIPTION = """\
Measure rigger_mp and what a user would pick instead of it, side by side.

Each workload is run on each peer, the peers in turn, several rounds. The table shows medians with their spread
(smallest-largest), and how many times rigger_mp's time each peer takes: the median of the rounds' ratios. A sample that
cannot prove its work by counts and checksums is refused: it gives no figure and no ratio.

Figures of a busy machine are noisy: look at the spread, quote ratios.
"""
EPILOG = """\
examples:
  python -m bench --list                        what can be measured, and with whom
  python -m bench blocking submit               two workloads
  python -m bench blocking --peers ppe,relay    with these peers only
  python -m bench --quick                       everything, small, in less than a minute
  python -m bench --json run.json               everything; keep the samples
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status: 0 done, 1 something was refused, 2 usage, 130 interrupted."""
    options = parser().parse_args(arguments)
    if options.list:
        print(listing())
        return 0
    run = Run(meta={**machine(), "quick": options.quick, "rounds_per_ms": calibrate()})
    interrupted = measure_all(run, options)
    print(report(run))
    if options.json:
        Path(options.json).write_text(json.dumps(run.as_json(), indent=1) + "\n")
    if interrupted:
        print("interrupted: the tables hold what was measured until then", file=sys.stderr)
        return 130
    return 0


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    made = argparse.ArgumentParser(
        prog="python -m bench", description=DESCRIPTION, epilog=EPILOG, formatter_class=argparse.RawTextHelpFormatter
    )
    made.add_argument("workloads", nargs="*", metavar="NAME", help="workloads to run (default: all)")
    made.add_argument("--list", action="store_true", help="list workloads and peers, measure nothing")
    made.add_argument("--quick", action="store_true", help="small sizes, two rounds, without Ray and Dask")
    made.add_argument("--rounds", type=int, help="samples of each peer (default: 5, with --quick 2)")
    made.add_argument("--peers", metavar="A,B", help="only these peers (rigger_mp is always measured)")
    made.add_argument("--json", metavar="PATH", help="write all samples to PATH")
    return made


def listing() -> str:
    """Return what can be measured."""
    lines = ["workloads:"]
    lines += [f"  {workload.name:<12} {workload.title}. {workload.about}" for workload in WORKLOADS.values()]
    lines += ["", "peers:"]
    lines += [f"  {name:<22} {peer.title}{'' if peer.installed else ' (not installed)'}" for name, peer in PEERS.items()]
    return "\n".join(lines)


def measure_all(run: Run, options: argparse.Namespace) -> bool:
    """Take all samples; return whether the user interrupted."""
    chosen = options.workloads or list(WORKLOADS)
    try:
        for name in chosen:
            measure_workload(run, WORKLOADS[name], options)
    except KeyboardInterrupt:
        return True
    return False


def measure_workload(run: Run, workload: Workload, options: argparse.Namespace) -> None:
    """Take the samples of one workload: every peer once, then the next round."""
    run.samples.setdefault(workload.name, {})
    run.absent[workload.name] = left_out(workload, options)
    peers = [peer for peer in workload.peers if peer not in run.absent[workload.name]]
    rounds = min(options.rounds or (2 if options.quick else 5), workload.rounds or sys.maxsize)
    for turn in range(rounds):
        for peer in peers:
            start = time.monotonic()
            size = {**workload.size(peer, options.quick), "rounds_per_ms": run.meta["rounds_per_ms"]}
            taken = take(workload, peer, size)
            run.add(workload.name, peer, taken)
            note = f": refused: {taken.refused}" if taken.refused else ""
            progress(f"{workload.name} {turn + 1}/{rounds} {peer} {time.monotonic() - start:.1f} s{note}")


def left_out(workload: Workload, options: argparse.Namespace) -> dict[str, str]:
    """Return the peers that are not measured, and why."""
    wanted = set(options.peers.split(",")) | {"rigger_mp"} if options.peers else set(workload.peers)
    reasons = {}
    for name in workload.peers:
        if name not in wanted:
            reasons[name] = "not asked for"
        elif missing := [needed for needed in (PEERS[name].needs, workload.needs) if not find_spec(needed)]:
            reasons[name] = f"absent: {missing[0]} is not installed"
        elif options.quick and PEERS[name].heavy:
            reasons[name] = "left out: it takes seconds to start (--quick)"
    return reasons


def progress(line: str) -> None:
    """Tell how far it is."""
    print(line, file=sys.stderr, flush=True)


def report(run: Run) -> str:
    """Return all tables."""
    return "\n\n".join(workload_table(run, WORKLOADS[name]) for name in run.samples)
