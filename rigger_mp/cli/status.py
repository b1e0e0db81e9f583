"""``rigger-mp status`` and ``rigger-mp terminate``: look at a server, and stop it."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from typing import Any

from rigger_mp.cli.remote import add_server_options, connect
from rigger_mp.cli.table import align, human_bytes


def add_parser(commands: Any) -> None:
    """Add both subcommands."""
    status = commands.add_parser(
        "status",
        help="what a server is doing",
        description="Print a server's queue depth, processes, and events and failures by hook.",
        epilog="exit status: 0 it answered, 1 it did not, 2 wrong usage",
    )
    status.add_argument("--json", action="store_true", help="print everything as JSON")
    add_server_options(status)
    status.set_defaults(run=print_status)
    terminate = commands.add_parser(
        "terminate",
        help="stop a server",
        description="Have a server refuse new events, finish what it accepted, and end.",
        epilog="exit status: 0 it agreed, 1 it did not, 2 wrong usage",
    )
    add_server_options(terminate)
    terminate.set_defaults(run=terminate_server)


def print_status(options: argparse.Namespace) -> int:
    """Print a server's statistics."""
    with connect(options) as client:
        stats = client.status()
    print(json.dumps(stats, indent=2) if options.json else render_status(stats))
    return 0


def terminate_server(options: argparse.Namespace) -> int:
    """Stop a server."""
    with connect(options) as client:
        client.terminate()
    return 0


def render_status(stats: Mapping[str, Any]) -> str:
    """Return statistics as text."""
    events = [(name, f"{count:,}") for name, count in stats["events"].items()]
    hooks = [
        (name, f"{row['events']:,}", f"{row['failures']:,}", f"{row['seconds']:.2f} s", _order(row))
        for name, row in stats["hooks"].items()
    ]
    processes = [
        (row["name"], row["pid"], f"{row['jobs']:,}", f"{row['cpu_seconds']:.2f} s", human_bytes(row["rss_bytes"]))
        for row in stats["processes"]
    ]
    return "\n\n".join(
        [
            align(events),
            align([("hook", "events", "failures", "time", "order"), *hooks]),
            align([("process", "pid", "jobs", "CPU", "memory"), *processes]),
        ]
    )


def _order(row: Mapping[str, Any]) -> str:
    return "concurrent" if row["concurrent"] else "ordered"
