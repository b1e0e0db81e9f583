"""``rigger-mp serve``: an engine with its TCP server, in the foreground."""

from __future__ import annotations

import argparse
import os
import socket
import threading
from typing import Any

from rigger_mp.cli.command_rigger import CommandRigger
from rigger_mp.cli.interrupts import Interrupts
from rigger_mp.cli.log_format import FORMATS, LEVELS, handle_records
from rigger_mp.config import configure_logging

EXIT_KILLED = 137

_DESCRIPTION = """\
Start the engine and its TCP server, and serve until SIGTERM, Ctrl-C, or 'rigger-mp terminate'. Then accept no more,
finish what was accepted, and end; a second signal kills everything.
"""
_EPILOG = """\
A line on standard error says when it is ready, and where; under systemd (Type=notify) so does NOTIFY_SOCKET.

exit status: 0 stopped and drained, 1 it cannot start, 2 wrong configuration or usage, 137 killed by a second signal

examples:
  rigger-mp serve rigger.yaml
  rigger-mp serve rigger.yaml --port 0          on any free port
"""


def add_parser(commands: Any) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "serve",
        help="serve events over TCP",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("config", metavar="CONFIG", help="the configuration, a YAML file")
    parser.add_argument("--address", help="where to listen, instead of the configuration's server_address")
    parser.add_argument("--port", type=int, help="the port, instead of server_port; 0: any free one")
    parser.add_argument("--log-format", choices=FORMATS, default="text", help="json: one object a line (text)")
    parser.add_argument(
        "--log-level", choices=LEVELS, default="info", help="of log records, where 'logging:' says nothing (info)"
    )
    parser.set_defaults(run=serve)


def serve(options: argparse.Namespace) -> int:
    """Carry out the subcommand and return its exit status."""
    given = {"server_address": options.address, "server_port": options.port}
    overrides = {key: value for key, value in given.items() if value is not None}
    rigger = CommandRigger(options.config, log_format=options.log_format, server_enabled=True, **overrides)
    configure_logging(rigger.config.get("logging") or {})
    handle_records(options.log_format, options.log_level)
    with Interrupts() as interrupts:
        return _Service(rigger, interrupts).run()


class _Service:
    """One engine from its start to its end."""

    def __init__(self, rigger: CommandRigger, interrupts: Interrupts) -> None:
        self._rigger = rigger
        self._interrupts = interrupts
        self._changed = threading.Condition()
        self._stopped = False

    def run(self) -> int:
        """Serve; return the exit status."""
        with self._interrupts.calling(self._wake):
            self._rigger.start()
            host, port = self._rigger.server_address or ("", 0)
            self._rigger.say(f"ready: listening at {host}:{port}, pid {os.getpid()}")
            notify_service_manager("READY=1")
            threading.Thread(target=self._watch, daemon=True).start()
            self._wait_for(1)
            if self._stopped:
                return 0
            return self._drain()

    def _drain(self) -> int:
        self._rigger.say("stopping: finishing what was accepted; another signal kills")
        notify_service_manager("STOPPING=1")
        stopper = threading.Thread(target=self._rigger.stop)
        stopper.start()
        self._wait_for(2)
        killed = not self._stopped
        if killed:
            self._rigger.stop(graceful_timeout=0)
        stopper.join()
        return EXIT_KILLED if killed else 0

    def _watch(self) -> None:
        self._rigger.wait()
        self._stopped = True
        self._wake()

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _wait_for(self, interrupts: int) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._stopped or self._interrupts.count >= interrupts)


def notify_service_manager(state: str) -> None:
    """Tell a service manager, if one asked for it (``sd_notify(3)``): ``READY=1``, ``STOPPING=1``."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notifier:
        notifier.sendto(state.encode(), address)
