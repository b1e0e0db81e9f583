"""``rigger-mp serve``: an engine with its TCP server, in the foreground."""

from __future__ import annotations

import argparse
import os
import socket
import threading
import time
from typing import Any

from rigger_mp.cli.command_rigger import CommandRigger
from rigger_mp.cli.interrupts import Interrupts
from rigger_mp.cli.log_format import FORMATS, LEVELS, handle_records
from rigger_mp.config import configure_logging
from rigger_mp.errors import NotRunningError

EXIT_KILLED = 137

_DESCRIPTION = """\
Start the engine and its TCP server, and serve until SIGTERM, Ctrl-C, or 'rigger-mp terminate'. Then accept no more,
finish what was accepted, and end; a second signal kills everything.

SIGHUP reloads: the configuration is read again and every plugin imported anew, in new processes, which take over
while events keep flowing; none is lost, none runs twice. If anything is wrong with the new configuration or a
plugin, standard error says what, and the old ones go on serving. What only a restart can change is refused, too:
queue_size, list_merge, max_output, retry_delay, archive.spool, server_...
"""
_EPILOG = """\
A line on standard error says when it is ready, and where, and what became of a reload. A service manager is told,
too, if it asks for it by NOTIFY_SOCKET (systemd: Type=notify, or notify-reload).

exit status: 0 stopped and drained, 1 it cannot start, 2 wrong configuration or usage, 137 killed by a second signal

examples:
  rigger-mp serve rigger.yaml
  rigger-mp serve rigger.yaml --port 0          on any free port
  kill -HUP PID                                 reload; the line that says "ready" tells the PID
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
    with Interrupts(hangups=True) as interrupts:
        return _Service(rigger, interrupts).run()


class _Service:
    """One engine from its start to its end."""

    def __init__(self, rigger: CommandRigger, interrupts: Interrupts) -> None:
        self._rigger = rigger
        self._interrupts = interrupts
        self._changed = threading.Condition()
        self._stopped = False
        self._reloader = Reloader(rigger)

    def run(self) -> int:
        """Serve; return the exit status."""
        try:
            return self._run()
        except BaseException:
            self._rigger.stop(graceful_timeout=0)  # or the server would keep the process alive
            raise

    def _run(self) -> int:
        with self._interrupts.calling(self._wake):
            self._rigger.start()
            host, port = self._rigger.server_address or ("", 0)
            self._rigger.say(f"ready: listening at {host}:{port}, pid {os.getpid()}")
            notify_service_manager("READY=1")
            threading.Thread(target=self._watch, daemon=True).start()
            self._serve()
            if self._stopped:
                return 0
            return self._drain()

    def _serve(self) -> None:
        """Return when it is to stop, or has been stopped; reload whenever a hangup says so."""
        heard = 0
        while not self._wait_for(1, hangups=heard + 1):
            heard = self._interrupts.hangups
            self._reloader.wake()

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

    def _wait_for(self, interrupts: int, hangups: int | None = None) -> bool:
        """Wait for its stop or some interrupts, and return true, or for some hangups, and return false."""

        def over() -> bool:
            return self._stopped or self._interrupts.count >= interrupts

        def hung_up() -> bool:
            return hangups is not None and self._interrupts.hangups >= hangups

        with self._changed:
            self._changed.wait_for(lambda: over() or hung_up())
            return over()


class Reloader:
    """Reloads an engine in a thread of its own: the main thread obeys signals meanwhile.

    Args:
        rigger: the engine.
    """

    def __init__(self, rigger: CommandRigger) -> None:
        self._rigger = rigger
        self._lock = threading.Lock()
        self._wanted = False
        self._works = False

    def wake(self) -> None:
        """Reload; once more, if a reload is under way: it may have read the configuration already."""
        with self._lock:
            self._wanted = True
            if self._works:
                return
            self._works = True
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while self._take():
            notify_service_manager(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")
            try:
                self._rigger.say(self._reload())
            except NotRunningError:
                return  # it is stopping, and has said so
            notify_service_manager("READY=1")

    def _take(self) -> bool:
        with self._lock:
            self._works, self._wanted = self._wanted, False
            return self._works

    def _reload(self) -> str:
        start = time.monotonic()
        try:
            self._rigger.reload()
        except NotRunningError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever is wrong, it serves on
            return f"not reloaded, the old configuration serves on: {error}"
        return f"reloaded in {time.monotonic() - start:.1f} s"


def notify_service_manager(state: str) -> None:
    """Tell a service manager, if one asked for it (``sd_notify(3)``): ``READY=1``, ``RELOADING=1``, ``STOPPING=1``."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notifier:
        notifier.sendto(state.encode(), address)
