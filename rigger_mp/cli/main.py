"""The ``rigger-mp`` command: one module a subcommand, each with ``add_parser`` and a function to run."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import metadata

from rigger_mp.cli import archive, check, fire, run, schema, serve, status
from rigger_mp.errors import ConfigError, RiggerError

EXIT_USAGE = 2

_EPILOG = """\
examples:
  rigger-mp run plugins/audit.yaml              audit the standard library with the shipped plugins
  rigger-mp run rigger.yaml --events -          fire events given as JSON lines on standard input
  rigger-mp serve rigger.yaml                   serve events over TCP until SIGTERM or Ctrl-C
  rigger-mp fire start_session name=nightly     fire a hook at that server
  rigger-mp status                              what is that server doing?
  rigger-mp archive failed rigger.yaml          which background jobs failed, and why?
  rigger-mp check rigger.yaml                   what is in this configuration, and is it right?
  rigger-mp schema > rigger.schema.json         let your editor complete and check configurations

'rigger-mp COMMAND --help' explains each command.
"""


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line."""
    parser = argparse.ArgumentParser(
        prog="rigger-mp",
        description="An event-hook engine: plugins respond to events, on all cores.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"rigger-mp {metadata.version('rigger_mp')}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for module in (run, check, schema, serve, fire, status, archive):
        module.add_parser(commands)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    options = make_parser().parse_args(arguments)
    if not sys.flags.safe_path and "" not in sys.path:
        sys.path.insert(0, "")  # modules in the current directory, as "python -m" finds them
    try:
        status: int = options.run(options)
        sys.stdout.flush()
    except ConfigError as error:
        print(error, file=sys.stderr)
        return EXIT_USAGE
    except RiggerError as error:
        print(f"rigger-mp: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return run.EXIT_INTERRUPTED
    except BrokenPipeError:  # whoever read the output has enough
        _drop_output()
        return 141
    except OSError as error:
        if error.filename is not None:
            raise
        _drop_output()
        print(f"rigger-mp: the output cannot be written: {error.strerror}", file=sys.stderr)
        return 1
    return status


def _drop_output() -> None:
    """Keep the interpreter from trying to flush the rest when it exits."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
