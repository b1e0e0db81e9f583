"""``rigger-mp run``: start an engine, fire one event per input, and say what happened."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from typing import Any

from rigger_mp.cli.command_rigger import CommandRigger
from rigger_mp.cli.inputs import Source, open_inputs, source_from_config
from rigger_mp.cli.interrupts import Interrupts
from rigger_mp.cli.progress import Progress
from rigger_mp.cli.session import MOST_SHOWN, Session
from rigger_mp.cli.table import render
from rigger_mp.rigger import Rigger

EXIT_FAILED = 1
EXIT_INTERRUPTED = 130
EXIT_KILLED = 137

_DESCRIPTION = """\
Start the engine, fire start_session, one event per input, then finish_session; end with a table of events,
failures, seconds, time by plugin, and CPU and memory by process.

Inputs come from the configuration's 'inputs' section, or from these options: JSON lines, each
{"hook_name": "NAME", "data": {...}}, or one event per file that matches a pattern.
"""
_EPILOG = """\
Ctrl-C stops feeding, finishes what was fired, and still fires finish_session; a second one kills everything.
SIGTERM counts as Ctrl-C.

exit status: 0 done (events may have failed), 1 the engine was lost, or any event failed with --fail-on-error,
2 wrong configuration or usage, 130 interrupted and drained, 137 killed by a second Ctrl-C, 141 nobody reads the output

examples:
  rigger-mp run plugins/audit.yaml
  rigger-mp run rigger.yaml --files '**/*.log' --root /var/log --hook scan --argument path
  generate-events | rigger-mp run rigger.yaml --events -
"""


def add_parser(commands: Any) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "run",
        help="fire one event per input and print what happened",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("config", metavar="CONFIG", help="the configuration, a YAML file")
    parser.add_argument("--workers", type=int, metavar="N", help="worker processes, instead of the configuration's")
    inputs = parser.add_mutually_exclusive_group()
    inputs.add_argument("--events", metavar="FILE", help="JSON lines, one event each; - is standard input")
    inputs.add_argument("--files", metavar="PATTERN", help="one event for each file that matches, such as '**/*.py'")
    parser.add_argument("--root", metavar="DIR", help="the directory that PATTERN is relative to")
    parser.add_argument("--hook", metavar="NAME", help="the hook to fire for each file")
    parser.add_argument("--argument", metavar="NAME", help="the name by which the hook gets the path (path)")
    parser.add_argument("--no-session", action="store_true", help="fire neither start_session nor finish_session")
    parser.add_argument("--fail-on-error", action="store_true", help="exit with 1 if any event failed")
    parser.add_argument("--verbose", action="store_true", help=f"name every failure, not the first {MOST_SHOWN} only")
    parser.add_argument("--json", action="store_true", help="print the table as JSON")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Carry out the subcommand and return its exit status."""
    overrides: dict[str, Any] = {} if options.workers is None else {"workers": options.workers}
    rigger = CommandRigger(options.config, prints_aside=options.json, **overrides)
    inputs, total = open_inputs(_source(options, rigger))
    progress = Progress(total)
    rigger.say = progress.message
    if total == 0:
        progress.message("no file matches: is the pattern right, and its root?")
    with Interrupts() as interrupts:
        session = Session(rigger, progress, interrupts, verbose=options.verbose)
        summary = session.run(inputs, bracketed=not options.no_session)
    if summary is None:
        return EXIT_KILLED
    print(json.dumps(summary, indent=2) if options.json else render(summary))
    if interrupts.count:
        return EXIT_INTERRUPTED
    return EXIT_FAILED if options.fail_on_error and summary["failures"] else 0


def _source(options: argparse.Namespace, rigger: Rigger) -> Source:
    source = source_from_config(rigger.config)
    if options.files is not None:
        source = replace(source, events="", pattern=options.files, root=".", exclude=())
    given = {name: getattr(options, name) for name in ("events", "root", "hook", "argument")}
    return replace(source, **{name: value for name, value in given.items() if value is not None})
