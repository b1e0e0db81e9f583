"""``rigger-mp schema``: the configuration's JSON Schema."""

from __future__ import annotations

import argparse
import json
from typing import Any

from rigger_mp.config_schema import config_schema


def add_parser(commands: Any) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "schema",
        help="print the JSON Schema of configurations",
        description="Print the JSON Schema (draft 2020-12) of configuration files, for editors and validators.",
    )
    parser.set_defaults(run=print_schema)


def print_schema(_options: argparse.Namespace) -> int:
    """Print the schema."""
    print(json.dumps(config_schema(), indent=2))
    return 0
