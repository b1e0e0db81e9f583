"""``rigger-mp fire``: fire hooks at a server."""

from __future__ import annotations

import argparse
import json
import sys
import threading
from collections import deque
from collections.abc import Iterable
from functools import partial
from typing import Any

from rigger_mp.cli.inputs import Input, Source, open_inputs
from rigger_mp.cli.progress import Progress
from rigger_mp.cli.remote import add_server_options, connect
from rigger_mp.cli.session import describe_error
from rigger_mp.errors import ConfigError, RiggerError
from rigger_mp.net.calls import RemoteFuture
from rigger_mp.net.client import RiggerClient

EXIT_FAILED = 1

_DESCRIPTION = """\
Fire one hook with the given arguments, or, with --events, one event per JSON line
{"hook_name": "NAME", "data": {...}}, at a running server ('rigger-mp serve').
"""
_EPILOG = """\
A value that is JSON is taken as such (number, true, null, "text", [..], {..}), anything else as text.
With --events, --json prints one line for each event, in their order: its output, or null where it failed.

exit status: 0 all fired (and, with --wait, ended well), 1 not so, 2 wrong usage

examples:
  rigger-mp fire start_session name=nightly
  rigger-mp fire add a=1 b=2 --wait --json
  rigger-mp fire --events events.jsonl --wait
  rigger-mp fire --events - --json < events.jsonl > outputs.jsonl
"""


def add_parser(commands: Any) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "fire",
        help="fire hooks at a server",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("hook", metavar="HOOK", nargs="?", help="the hook to fire")
    parser.add_argument("arguments", metavar="KEY=VALUE", nargs="*", help="its arguments")
    parser.add_argument("--events", metavar="FILE", help="JSON lines, one event each; - is standard input")
    parser.add_argument("--wait", action="store_true", help="wait until the events have ended")
    parser.add_argument("--json", action="store_true", help="print the events' outputs as JSON; implies --wait")
    add_server_options(parser)
    parser.set_defaults(run=fire)


def fire(options: argparse.Namespace) -> int:
    """Carry out the subcommand and return its exit status."""
    if bool(options.hook) == bool(options.events):
        raise ConfigError("give a HOOK, or --events FILE, one of the two")
    with connect(options) as client:
        if options.events:
            inputs, _ = open_inputs(Source(events=options.events))
            return _Stream(client, wait=options.wait, grab=options.json).run(inputs)
        return _fire_one(client, options)


def _fire_one(client: RiggerClient, options: argparse.Namespace) -> int:
    arguments = dict(map(parse_argument, options.arguments))
    future = client.submit(options.hook, grab_result=options.json, wait_for_task=options.wait, **arguments)
    try:
        output = future.result()
    except RiggerError as error:
        print(f"{options.hook}: {describe_error(error)}", file=sys.stderr)
        return EXIT_FAILED
    if options.json:
        print(json.dumps(output, indent=2))
    return 0


def parse_argument(text: str) -> tuple[str, Any]:
    """Return name and value of ``KEY=VALUE``.

    Raises:
        ConfigError: it is something else.
    """
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise ConfigError(f"argument {text!r}: expected KEY=VALUE")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


class _Stream:
    """Fires many events over one connection, counts how they end, and prints what they return if that is wanted."""

    def __init__(self, client: RiggerClient, *, wait: bool, grab: bool) -> None:
        self._client = client
        self._wait = wait
        self._grab = grab
        self._unprinted: deque[RemoteFuture | None] = deque()
        self._progress = Progress(None)
        self._changed = threading.Condition()
        self._fired = self._done = self._failures = 0
        self._errors: list[str] = []

    def run(self, inputs: Iterable[Input]) -> int:
        """Fire all; return the exit status."""
        for item in inputs:
            self._fired += 1
            if item.problem:
                self._note(item, item.problem)
            self._unprinted.append(None if item.problem else self._fire(item))
            self._show()
        with self._changed:
            while self._done < self._fired:
                self._changed.wait()
                self._show()
        self._progress.finish(self._done, self._failures)
        return EXIT_FAILED if self._failures else 0

    def _fire(self, item: Input) -> RemoteFuture:
        future = self._client.submit(item.hook, self._grab, self._wait, **item.arguments)
        future.add_done_callback(partial(self._ended, item))
        return future

    def _ended(self, item: Input, future: Any) -> None:
        self._note(item, future.exception())

    def _note(self, item: Input, error: object) -> None:
        with self._changed:
            self._done += 1
            if error:
                self._failures += 1
                self._errors.append(f"{item.label}: {describe_error(error)}")
            self._changed.notify_all()

    def _show(self) -> None:
        while self._errors:
            self._progress.message(self._errors.pop(0))
        while self._unprinted and (self._unprinted[0] is None or self._unprinted[0].done()):
            self._print_output(self._unprinted.popleft())
        self._progress.show(self._done, self._failures)

    def _print_output(self, future: RemoteFuture | None) -> None:
        if self._grab:
            print(json.dumps(None if future is None or future.exception() else future.result()))
