"""Where the events of a run come from: JSON lines, or one event per file."""

from __future__ import annotations

import fnmatch
import json
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rigger_mp.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Input:
    """One event to fire, or a line that is none.

    Attributes:
        label: what it is called in messages: a path, or ``events.jsonl:3``.
        hook: the event's hook.
        arguments: its local namespace.
        problem: why it is no event, ``""`` if it is one.
    """

    label: str
    hook: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Source:
    """What to take inputs from.

    Attributes:
        events: a file of JSON lines, ``-`` for standard input, ``""`` for none.
        pattern: the glob pattern of the files, relative to ``root``.
        root: a directory; ``{stdlib}`` stands for that of the running Python's standard library.
        hook: the hook fired for each file.
        argument: the name under which the hook gets the file's path.
        exclude: patterns of files to leave out, relative to ``root``.
    """

    events: str = ""
    pattern: str = ""
    root: str = "."
    hook: str = ""
    argument: str = "path"
    exclude: tuple[str, ...] = ()


def source_from_config(config: Mapping[str, Any]) -> Source:
    """Return the source that a configuration's ``inputs`` section describes.

    Raises:
        ConfigError: the section is wrong.
    """
    section = config.get("inputs")
    if section is None:
        return Source()
    files = section.get("files", {}) if isinstance(section, Mapping) else None
    if not isinstance(section, Mapping) or not isinstance(files, Mapping):
        raise ConfigError("inputs: expected a mapping such as {hook: NAME, files: {root: DIR, pattern: '**/*.py'}}")
    exclude = files.get("exclude", ())
    return Source(
        events=str(section.get("events", "")),
        pattern=str(files.get("pattern", "")),
        root=str(files.get("root", ".")),
        hook=str(section.get("hook", "")),
        argument=str(files.get("argument", "path")),
        exclude=(exclude,) if isinstance(exclude, str) else tuple(exclude),
    )


def open_inputs(source: Source) -> tuple[Iterator[Input], int | None]:
    """Return the inputs of a source, and how many there are (``None`` if only reading them would tell).

    Raises:
        ConfigError: it names nothing to read; also while the inputs are taken: it cannot be read.
    """
    _check(source)
    if source.events:
        return _read_events(source.events), None
    inputs = [Input(str(path), source.hook, {source.argument: str(path)}) for path in _matching_files(source)]
    return iter(inputs), len(inputs)


def _check(source: Source) -> None:
    if source.events:
        return
    if not source.pattern:
        raise ConfigError(
            "no inputs: give --events FILE or --files PATTERN --hook NAME, or an 'inputs' section in the configuration"
        )
    if not source.hook:
        raise ConfigError("no hook for the files: give --hook NAME, or 'hook' in the 'inputs' section")


def _matching_files(source: Source) -> Iterator[Path]:
    root = Path(source.root.replace("{stdlib}", sysconfig.get_paths()["stdlib"]))
    if not root.is_dir():
        raise ConfigError(f"inputs: {str(root)!r} is no directory, expected the root of the files")
    for path in sorted(root.glob(source.pattern)):
        relative = path.relative_to(root).as_posix()
        if path.is_file() and not any(fnmatch.fnmatchcase(relative, pattern) for pattern in source.exclude):
            yield path


def _read_events(name: str) -> Iterator[Input]:
    if name == "-":
        yield from parse_events(sys.stdin, "standard input")
        return
    try:
        with Path(name).open(encoding="utf-8", errors="surrogateescape") as lines:
            yield from parse_events(lines, name)
    except OSError as error:
        raise ConfigError(f"{name}: the events cannot be read: {error.strerror}") from error


def parse_events(lines: Iterable[str], name: str) -> Iterator[Input]:
    """Return the events of JSON lines; empty lines are skipped, a wrong one becomes an input with a problem."""
    for number, line in enumerate(lines, 1):
        if line.strip():
            yield _parse_event(line, f"{name}:{number}")


def _parse_event(line: str, label: str) -> Input:
    expected = 'expected {"hook_name": "NAME", "data": {...}}'
    try:
        event = json.loads(line)
    except (ValueError, RecursionError) as error:
        return Input(label, problem=f"no JSON ({error}), {expected}")
    if not isinstance(event, dict) or not isinstance(event.get("hook_name"), str):
        return Input(label, problem=f"no hook_name, {expected}")
    data = event.get("data", {})
    if not isinstance(data, dict):
        return Input(label, problem=f"data is no object, {expected}")
    return Input(label, event["hook_name"], data)
