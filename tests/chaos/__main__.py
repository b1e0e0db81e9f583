"""The command line of the chaos suite."""

from __future__ import annotations

import argparse
import random
import shlex
import sys
from collections.abc import Sequence

from .idle import measure_idle_kills
from .killer import DISPATCHER_WEIGHT, WEIGHTS, Habits
from .run import Options, run
from .user_kills import measure_user_kills

DESCRIPTION = """
Runs a random load on one engine, ordered, concurrent, nested and background events, large values, clients over a
connection that is cut, hooks that hang, exit, crash, leak and return garbage, while random processes of
the engine get SIGKILL, or SIGSTOP and a little later SIGCONT. Every run of a hook is noted in a ledger, which is
compared with the outcomes: each event has exactly one outcome, each success ran exactly once, nobody is blamed for
another's death, the globals are the fold of the successful events' updates, and nothing is left behind.
"""

EPILOG = """
examples:
  python -m tests.chaos                             10 s, a random seed
  python -m tests.chaos --seconds 600 --seed 7      as long as you like, the same decisions again
  python -m tests.chaos --pause 0.02                kill as fast as possible
  python -m tests.chaos --idle-kills 200            only measure how soon the engine answers after a kill
  python -m tests.chaos --user-kills 50             only kill the user's process, 50 times for each start method
  python -m tests.chaos.soak --help                 many events through recycled workers: is memory flat?

Ctrl-C ends the load early and checks what has been done so far. The exit status is 1 if a promise was broken; the
ledger is then kept, and named with the command that repeats the run's decisions.
"""

INTERRUPTED = 130
MOST_SHOWN = 20
"""Violations that are printed; the file ``violations`` beside the ledger has all."""


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        "python -m tests.chaos", description=DESCRIPTION, epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--seconds", type=float, default=10.0, help="how long the load lasts (default: 10)")
    parser.add_argument("--seed", type=int, help="of every decision (default: a random one, printed)")
    parser.add_argument("--pause", type=float, default=0.3, help="most seconds between signals (default: 0.3)")
    parser.add_argument("--stops", type=float, default=0.3, help="share of SIGSTOP among them (default: 0.3)")
    parser.add_argument("--kill-dispatcher", action="store_true", help="aim at the dispatcher, too")
    parser.add_argument("--idle-kills", type=int, metavar="N", help="kill N idle workers, print latencies, and end")
    parser.add_argument("--user-kills", type=int, metavar="N", help="kill N programs for each start method, and end")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run; return the exit status."""
    options = parse(arguments)
    if options.idle_kills is not None:
        return measure_idle_kills(options.idle_kills)
    if options.user_kills is not None:
        return measure_user_kills(options.user_kills)
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(1 << 32)
    weights = (*WEIGHTS, DISPATCHER_WEIGHT) if options.kill_dispatcher else WEIGHTS
    print(f"chaos for {options.seconds:g} s, seed {seed}")
    try:
        verdict = run(Options(options.seconds, seed, Habits(options.pause, options.stops, weights)))
    except KeyboardInterrupt:
        print("interrupted before the load had begun, or again while its end was awaited: nothing is checked")
        return INTERRUPTED
    print("\n".join(verdict.summary))
    if not verdict.violations:
        return 0
    print("\n".join(f"violation: {violation}" for violation in verdict.violations[:MOST_SHOWN]))
    if len(verdict.violations) > MOST_SHOWN:
        print(f"... and {len(verdict.violations) - MOST_SHOWN} more")
    flags = ["--seconds", f"{options.seconds:g}", "--seed", str(seed), "--pause", str(options.pause)]
    flags += ["--stops", str(options.stops), *(["--kill-dispatcher"] if options.kill_dispatcher else [])]
    print(f"ledger: {verdict.folder}\nto run it again: {shlex.join(['python', '-m', 'tests.chaos', *flags])}")
    return 1


if __name__ == "__main__":
    sys.exit(main())
