"""The command line: ``python -m bench``."""

from __future__ import annotations

import argparse
import difflib
import json
import sys
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from bench import profile
from bench.charts import write_charts
from bench.figures import Run
from bench.measure import machine, take
from bench.peers import OURS, PEERS
from bench.readme import rewrite
from bench.table import align, goal_rows, workload_table
from bench.tasks import calibrate
from bench.workload import Workload
from bench.workloads import WORKLOADS

ROOT = Path(__file__).resolve().parent.parent
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
  python -m bench profile                       where each microsecond goes
  python -m bench --quick                       everything, small, in about a minute
  python -m bench --json run.json               everything (half an hour or more); keep the samples
  python -m bench --from run.json --charts bench/charts --readme
                                                draw the charts, rewrite the READMEs' figures
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Returns:
        Its exit status: 0 done, 1 some sample was refused, 2 it was called in a wrong way, 130 interrupted.
    """
    options = parser().parse_args(arguments)
    if options.list:
        print(listing())
        return 0
    try:
        options.chosen = choose(options.workloads)
        options.only = choose_peers(options.peers)
        run = load(options.from_) if options.from_ else None
    except UsageError as error:
        print(f"python -m bench: {error}", file=sys.stderr)
        return 2
    interrupted = False
    if run is None:
        run = Run(meta={**machine(), "quick": options.quick, "rounds_per_ms": calibrate()})
        interrupted = measure_all(run, options)
    print(report(run))
    write_files(run, options, interrupted)
    if interrupted:
        progress("interrupted: the tables hold what was measured until then")
        return 130
    return 1 if any(run.refusals(name, peer) for name, peers in run.samples.items() for peer in peers) else 0


class UsageError(Exception):
    """Raised when the command line asks for something that is not there."""


def choose(names: Sequence[str]) -> list[str]:
    """Return the workloads that the command line names: all, single ones, or those of a group."""
    groups = {workload.group for workload in WORKLOADS.values()}
    chosen: list[str] = []
    for name in names or groups:
        if name not in WORKLOADS and name not in groups:
            near = difflib.get_close_matches(name, [*WORKLOADS, *groups], 1)
            hint = f", did you mean {near[0]!r}?" if near else "; --list shows them"
            raise UsageError(f"there is no workload named {name!r}{hint}")
        chosen += [other.name for other in WORKLOADS.values() if name in (other.name, other.group)]
    return [name for name in WORKLOADS if name in chosen]


def choose_peers(names: str | None) -> set[str]:
    """Return the peers to measure."""
    if names is None:
        return set(PEERS)
    chosen = {OURS, *names.split(",")}
    if unknown := chosen - set(PEERS):
        raise UsageError(f"there is no peer named {', '.join(sorted(unknown))}; --list shows them")
    return chosen


def load(path: str) -> Run:
    """Return the run that ``--json`` wrote."""
    try:
        run = Run.from_json(json.loads(Path(path).read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path} holds no run that --json wrote: {error!r}") from error
    if unknown := set(run.samples) - set(WORKLOADS):
        raise UsageError(f"{path} has workloads that are not known any more: {', '.join(sorted(unknown))}")
    return run


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    made = argparse.ArgumentParser(
        prog="python -m bench", description=DESCRIPTION, epilog=EPILOG, formatter_class=argparse.RawTextHelpFormatter
    )
    made.add_argument("workloads", nargs="*", metavar="NAME", help="workloads or groups to run (default: all)")
    made.add_argument("--list", action="store_true", help="list workloads and peers, measure nothing")
    made.add_argument("--quick", action="store_true", help="small sizes, one round, not all peers: a first look")
    made.add_argument("--rounds", type=positive, help="samples of each peer (default: 5, with --quick 1)")
    made.add_argument("--peers", metavar="A,B", help="only these peers (rigger_mp is always measured)")
    made.add_argument("--json", metavar="PATH", help="write all samples to PATH")
    made.add_argument("--from", metavar="PATH", dest="from_", help="measure nothing, take the samples of PATH")
    made.add_argument("--charts", metavar="DIR", help="draw the charts into DIR, as SVG (README shows bench/charts)")
    made.add_argument("--readme", action="store_true", help="rewrite the figures in README.md and bench/README.md")
    return made


def positive(text: str) -> int:
    """Return a number of rounds."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("expected at least 1")
    return number


def listing() -> str:
    """Return what can be measured."""
    lines = []
    for group in dict.fromkeys(workload.group for workload in WORKLOADS.values()):
        lines += [f"workloads of the group {group}:"]
        lines += [f"  {one.name:<16} {one.title}. {one.about}" for one in WORKLOADS.values() if one.group == group]
        lines += [""]
    lines += ["peers:"]
    for name, peer in PEERS.items():
        lines.append(f"  {name:<21} {peer.title}{'' if peer.installed else ' (not installed)'}")
    return "\n".join(lines)


def measure_all(run: Run, options: argparse.Namespace) -> bool:
    """Take all samples; return whether the user interrupted."""
    try:
        for name in options.chosen:
            measure_workload(run, WORKLOADS[name], options)
    except KeyboardInterrupt:
        return True
    return False


def measure_workload(run: Run, workload: Workload, options: argparse.Namespace) -> None:
    """Take the samples of one workload: every peer once, then the next round."""
    run.samples.setdefault(workload.name, {})
    run.absent[workload.name] = left_out(workload, options)
    peers = [peer for peer in workload.peers if peer not in run.absent[workload.name]]
    rounds = min(options.rounds or (1 if options.quick else 5), workload.rounds or sys.maxsize)
    for turn in range(rounds):
        for peer in rotated(peers, turn):
            start = time.monotonic()
            size = {**workload.size(peer, options.quick), "rounds_per_ms": run.meta["rounds_per_ms"]}
            taken = take(workload, peer, size)
            run.add(workload.name, peer, taken)
            note = f": refused: {taken.refused}" if taken.refused else ""
            progress(f"{workload.name} {turn + 1}/{rounds} {peer} {time.monotonic() - start:.1f} s{note}")


def rotated(peers: list[str], turn: int) -> list[str]:
    """Return the peers in a round's order: another one is first each time."""
    first = turn % max(1, len(peers))
    return peers[first:] + peers[:first]


def left_out(workload: Workload, options: argparse.Namespace) -> dict[str, str]:
    """Return the peers that are not measured, and why."""
    reasons = {}
    for name in workload.peers:
        if name not in options.only:
            reasons[name] = "not asked for"
        elif missing := [needed for needed in (PEERS[name].needs, workload.needs) if not find_spec(needed)]:
            reasons[name] = f"absent: {missing[0]} is not installed"
        elif options.quick and PEERS[name].slow:
            reasons[name] = "left out by --quick"
    return reasons


def progress(line: str) -> None:
    """Tell how far it is."""
    print(line, file=sys.stderr, flush=True)


def report(run: Run) -> str:
    """Return all tables, the one of goals last."""
    parts = [
        workload_table(run, WORKLOADS[name]) if WORKLOADS[name].group == "speed" else align(profile.rows(run, name))
        for name in run.samples
    ]
    if rows := goal_rows(run):
        sizes = " (they are meant for full sizes: this was --quick)" if run.meta.get("quick") else ""
        parts.append(align([("goals" + sizes, "measured", "verdict"), *rows]))
    return "\n\n".join(parts)


def write_files(run: Run, options: argparse.Namespace, interrupted: bool) -> None:
    """Write what the options ask for; the READMEs not from half a run."""
    if options.json:
        Path(options.json).write_text(json.dumps(run.as_json(), indent=1) + "\n", encoding="utf-8")
    if options.charts:
        for path in write_charts(run, Path(options.charts)):
            progress(f"wrote {path}")
    if options.readme and not interrupted:
        for path in rewrite(run, [ROOT / "README.md", ROOT / "bench" / "README.md"]):
            progress(f"wrote {path}")
