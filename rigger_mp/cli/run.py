"""``rigger-mp run``: start an engine, fire one event per input, and say what happened."""

from __future__ import annotations

import argparse
import json
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from typing import Any

from rigger_mp.cli.command_rigger import CommandRigger
from rigger_mp.cli.inputs import Input, Source, open_inputs, source_from_config
from rigger_mp.cli.interrupts import Interrupts
from rigger_mp.cli.progress import Progress
from rigger_mp.cli.table import render, summarize
from rigger_mp.errors import Failure, HookError, RiggerError
from rigger_mp.rigger import Rigger

EXIT_FAILED = 1
EXIT_INTERRUPTED = 130
EXIT_KILLED = 137
MOST_SHOWN = 20
IN_FLIGHT = 1000
"""Events that are fired and not ended at any time: enough to keep every worker busy."""

_DESCRIPTION = """\
Start the engine, fire start_session, one event per input, then finish_session; end with a table of events,
failures, seconds, time by plugin, and CPU and memory by process.

Inputs come from the configuration's 'inputs' section, or from these options: JSON lines, each
{"hook_name": "NAME", "data": {...}}, or one event per file that matches a pattern.
"""
_EPILOG = """\
Ctrl-C stops feeding, finishes what was fired, and still fires finish_session; a second one kills everything.

exit status: 0 done (events may have failed), 1 with --fail-on-error if any failed, 2 wrong configuration or
usage, 130 interrupted and drained, 137 killed by a second Ctrl-C

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
    parser.add_argument("--events", metavar="FILE", help="JSON lines, one event each; - is standard input")
    parser.add_argument("--files", metavar="PATTERN", help="one event for each file that matches, such as '**/*.py'")
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
    overrides = {} if options.workers is None else {"workers": options.workers}
    rigger = CommandRigger(options.config, **overrides)
    inputs, total = open_inputs(_source(options, rigger))
    progress = Progress(total)
    rigger.say = progress.message
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


class Session:
    """One run over all inputs.

    Args:
        rigger: the engine, not started yet.
        progress: where to show how far it is.
        interrupts: tells of Ctrl-C.
        verbose: name every failure.
    """

    def __init__(self, rigger: Rigger, progress: Progress, interrupts: Interrupts, *, verbose: bool) -> None:
        self._rigger = rigger
        self._progress = progress
        self._interrupts = interrupts
        self._most_shown = sys.maxsize if verbose else MOST_SHOWN
        self._changed = threading.Condition()
        self._fired = 0
        self._ended: list[tuple[Input, Future[Any] | None]] = []
        self._done = 0
        self._failures = 0

    def run(self, inputs: Iterator[Input], *, bracketed: bool) -> dict[str, Any] | None:
        """Run everything; return the summary, ``None`` if a second Ctrl-C killed it."""
        start = time.monotonic()
        with self._interrupts.calling(self._wake):
            self._rigger.start()
            try:
                if bracketed:
                    self._fire_bracket("start_session")
                self._feed(inputs)
                self._settle(0)
                if bracketed:
                    self._fire_bracket("finish_session")
                self._in_thread(self._rigger.drain)
                self._finish()
                stats = self._rigger.stats()
                self._in_thread(self._rigger.stop)
            except _Killed:
                self._rigger.stop(graceful_timeout=0)
                return None
            except BaseException:
                self._rigger.stop(graceful_timeout=0)
                raise
        return summarize(stats, time.monotonic() - start, self._done, self._failures)

    def _feed(self, inputs: Iterable[Input]) -> None:
        for item in inputs:
            self._settle(IN_FLIGHT - 1, unless_interrupted=True)
            if self._interrupts.count:
                self._progress.message("interrupted: finishing what was fired; Ctrl-C again kills")
                break
            self._fired += 1
            if item.problem:
                self._note(item, None)
            else:
                future = self._rigger.submit(item.hook, **item.arguments)
                future.add_done_callback(partial(self._note, item))

    def _note(self, item: Input, future: Future[Any] | None) -> None:
        with self._changed:
            self._ended.append((item, future))
            self._changed.notify_all()

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _settle(self, most: int, *, unless_interrupted: bool = False) -> None:
        """Wait until at most so many events are in flight, or for an interrupt, telling of those that end."""
        enough = 1 if unless_interrupted else 2
        self._tell()
        while self._fired - self._done > most and self._interrupts.count < enough:
            with self._changed:
                self._changed.wait_for(lambda: self._ended or self._interrupts.count >= enough)
            self._tell()
        if self._interrupts.count > 1:
            raise _Killed

    def _tell(self) -> None:
        with self._changed:
            ended, self._ended = self._ended, []
        for item, future in ended:
            self._done += 1
            error = item.problem if future is None else future.exception()
            if error:
                self._failures += 1
                if self._failures <= self._most_shown:
                    self._progress.message(f"{item.label}: {describe_error(error)}")
        self._progress.show(self._done, self._failures)

    def _fire_bracket(self, hook: str) -> None:
        future = self._rigger.submit(hook)
        item = Input(hook)
        future.add_done_callback(lambda done: self._wake())
        with self._changed:
            self._changed.wait_for(lambda: future.done() or self._interrupts.count > 1)
        if not future.done():
            raise _Killed
        error = future.exception()
        if error is not None:
            self._failures += 1
            self._progress.message(f"{item.label}: {describe_error(error)}")

    def _finish(self) -> None:
        self._progress.finish(self._done, self._failures)
        hidden = self._failures - self._most_shown
        if hidden > 0:
            self._progress.message(f"... and {hidden:,} more failures; --verbose names all")

    def _in_thread(self, wait: Callable[[], None]) -> None:
        """Call what waits for the engine in a thread, so that a second Ctrl-C still works."""
        ended = threading.Event()

        def call() -> None:
            try:
                wait()
            except RiggerError as error:
                self._progress.message(describe_error(error))
            finally:
                ended.set()
                self._wake()

        thread = threading.Thread(target=call, daemon=True)
        thread.start()
        with self._changed:
            self._changed.wait_for(lambda: ended.is_set() or self._interrupts.count > 1)
        if not ended.is_set():
            raise _Killed
        thread.join()


def describe_error(error: object) -> str:
    """Return one line that says what went wrong."""
    if isinstance(error, HookError) and error.failures:
        return "; ".join(dict.fromkeys(_describe_failure(failure) for failure in error.failures))
    text = f"{type(error).__name__}: {error}" if isinstance(error, RiggerError) else str(error)
    return text.splitlines()[0]


def _describe_failure(failure: Failure) -> str:
    first, *_ = failure.message.splitlines() or [""]
    return f"{failure.function}: {failure.type_name}: {first}"


class _Killed(Exception):
    """Raised when a second Ctrl-C came."""
