"""``rigger-mp archive``: the background jobs that a spool keeps, and the dead letters among them."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from rigger_mp.config import Settings, read_yaml
from rigger_mp.engine.build import spool_path
from rigger_mp.engine.spool import Spool
from rigger_mp.engine.spool_file import JobRow, companion, read_dead, read_jobs
from rigger_mp.errors import ConfigError, SpoolError

EXIT_USAGE = 2
_MAGIC = b"SQLite format 3\0"
_DESCRIPTION = """\
With 'archive: {spool: PATH}' in the configuration, background jobs are kept in a file until they are done. A job
that raised, or that was running when its process was killed more often than 'max_retries' allows, stays there as
a dead letter, with the reason and the traceback, until you decide what becomes of it.
"""
_EPILOG = """\
examples:
  rigger-mp archive list rigger.yaml            which jobs are still to be run?
  rigger-mp archive failed rigger.yaml          what went wrong, with tracebacks
  rigger-mp archive retry rigger.yaml 17 18     run these again at the engine's next start
  rigger-mp archive retry rigger.yaml --all     run all dead letters again
  rigger-mp archive drop jobs.spool 17          forget this one for good

Looking is possible at any time; retry and drop need the engine to be stopped.
exit status: 0 done, 1 not done (in use, damaged, no such job), 2 wrong usage or configuration
"""


def add_parser(commands: Any) -> None:
    """Add the subcommand and its own subcommands."""
    parser = commands.add_parser(
        "archive",
        help="list, retry and drop the background jobs of a spool",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    _add_action(actions, "list", list_jobs, "list the jobs that are to be run")
    _add_action(actions, "failed", list_dead, "list the dead letters: reason and traceback of each")
    _add_chosen(actions, "retry", retry, "run dead letters again, at the engine's next start")
    drop_parser = _add_chosen(actions, "drop", drop, "forget dead letters, or waiting jobs that are named, for good")
    drop_parser.add_argument("--yes", action="store_true", help="do not ask")


def _add_action(actions: Any, name: str, run: Any, text: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = actions.add_parser(name, help=text, description=f"{text.capitalize()}.")
    parser.add_argument("spool", metavar="CONFIG", help="the configuration, a YAML file; or the spool itself")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.set_defaults(run=run)
    return parser


def _add_chosen(actions: Any, name: str, run: Any, text: str) -> argparse.ArgumentParser:
    parser = _add_action(actions, name, run, text)
    parser.add_argument("ids", metavar="ID", type=int, nargs="*", help="a job's number, as 'failed' and 'list' show it")
    parser.add_argument("--all", action="store_true", help="all dead letters")
    return parser


# -- the actions -----------------------------------------------------------------------------------------


def list_jobs(options: argparse.Namespace) -> int:
    """List the jobs that are to be run."""
    jobs = read_jobs(find_spool(options.spool))
    if options.json:
        _print_json([_job_fields(job) for job in jobs])
    elif jobs:
        rows = [
            (str(job.id), job.hook, job.label, job.state, str(job.attempts), _time(job.queued_at)) for job in jobs
        ]
        print(_columns([("id", "hook", "function", "state", "interrupted", "queued"), *rows]))
    else:
        print("no jobs")
    return 0


def list_dead(options: argparse.Namespace) -> int:
    """List the dead letters."""
    dead = read_dead(find_spool(options.spool))
    if options.json:
        _print_json([_job_fields(job) | _end_fields(job) for job in dead])
    else:
        print("\n\n".join(map(_render_dead, dead)) or "no dead letters")
    return 0


def retry(options: argparse.Namespace) -> int:
    """Make dead letters jobs again."""
    path = find_spool(options.spool)
    _check_choice(options)
    with _opened(path) as spool:
        moved = spool.retry(_chosen(options, path))
    return _report(options, moved, "retried", "will be run at the engine's next start")


def drop(options: argparse.Namespace) -> int:
    """Forget jobs."""
    path = find_spool(options.spool)
    _check_choice(options)
    with _opened(path) as spool:
        keys = _chosen(options, path)
        if keys and not (options.yes or _confirmed(len(keys))):
            return 1
        moved = spool.drop(keys)
    return _report(options, moved, "dropped", "dropped")


def _check_choice(options: argparse.Namespace) -> None:
    if bool(options.ids) == options.all:
        raise ConfigError("rigger-mp archive: name jobs by their ids, or give --all; one of the two")


def _chosen(options: argparse.Namespace, path: Path) -> list[int]:
    return [job.id for job in read_dead(path)] if options.all else options.ids


def _confirmed(count: int) -> bool:
    if not sys.stdin.isatty():
        raise ConfigError(f"rigger-mp archive drop: would forget {_jobs(count)} for good; give --yes if you mean it")
    print(f"Forget {_jobs(count)} for good? [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _report(options: argparse.Namespace, moved: list[int], key: str, what: str) -> int:
    missing = [] if options.all else sorted(set(options.ids) - set(moved))
    if options.json:
        _print_json({key: moved, "missing": missing})
    else:
        print(f"{_jobs(len(moved))} {what}")
    if missing:
        print(f"rigger-mp: no such job: {', '.join(map(str, missing))}", file=sys.stderr)
    return 1 if missing else 0


def _jobs(count: int) -> str:
    return f"{count} {'job' if count == 1 else 'jobs'}"


@contextmanager
def _opened(path: Path) -> Iterator[Spool]:
    if not path.exists():
        raise SpoolError(f"{path}: there is no spool")
    with closing(Spool(path, os.getpid())) as spool:
        yield spool


# -- finding the spool -----------------------------------------------------------------------------------


def find_spool(name: str) -> Path:
    """Return the spool that a configuration names, or that ``name`` itself is.

    Raises:
        ConfigError: the configuration is wrong or names no spool.
    """
    path = Path(name).absolute()
    if _is_spool(path):
        return path
    settings = Settings.from_config(read_yaml(name).config)
    spool = spool_path(settings, path.parent)
    if spool is None:
        raise ConfigError(f"{name}: it names no spool; expected 'archive: {{spool: PATH}}', or a spool in its place")
    return spool


def _is_spool(path: Path) -> bool:
    if companion(path).exists():
        return True  # whatever has become of the file itself
    try:
        with path.open("rb") as file:
            return file.read(len(_MAGIC)) == _MAGIC
    except OSError:
        return False


# -- what is printed -------------------------------------------------------------------------------------


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=2))


def _job_fields(job: JobRow) -> dict[str, Any]:
    return {
        "id": job.id,
        "hook": job.hook,
        "function": job.label,
        "state": job.state,
        "attempts": job.attempts,
        "queued_at": _time(job.queued_at),
    }


def _end_fields(job: JobRow) -> dict[str, Any]:
    return {"died_at": _time(job.died_at), "reason": job.reason, "traceback": job.traceback}


def _render_dead(job: JobRow) -> str:
    lines = [
        f"{job.id}  {job.label} of hook {job.hook!r}",
        f"    queued {_time(job.queued_at)}, died {_time(job.died_at)}, started {job.attempts} times",
    ]
    text = job.traceback or job.reason
    return "\n".join([*lines, *(f"    {line}" for line in text.rstrip().splitlines())])


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).astimezone().isoformat(" ", "seconds")


def _columns(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
