"""Where the events of a run come from: JSON lines, or one event per file."""

from __future__ import annotations

import fnmatch
import json
import os
import sysconfig
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rigger_mp.errors import ConfigError

STDIN = "-"
CHUNK = 1 << 16
"""Bytes read at once."""
_TEXTS = ("events", "hook", "pattern", "root", "argument")


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
    problems = list(_problems_of_section(section))
    if problems:
        raise ConfigError("\n".join(problems))
    files = section.get("files") or {}
    given = {name: value for name, value in (*section.items(), *files.items()) if value is not None}
    exclude = given.get("exclude", ())
    texts = {name: given[name] for name in _TEXTS if name in given}
    return Source(**texts, exclude=(exclude,) if isinstance(exclude, str) else tuple(exclude))


def _problems_of_section(section: Any) -> Iterator[str]:
    example = "a mapping such as {root: DIR, pattern: '**/*.py'}"
    if not isinstance(section, Mapping):
        yield f"inputs: {section!r}, expected a mapping such as {{hook: NAME, files: {example[18:]}}}"
        return
    yield from _problems_of_texts(section, ("events", "hook"), "inputs")
    files = section.get("files") if section.get("files") is not None else {}
    if not isinstance(files, Mapping):
        yield f"inputs.files: {files!r}, expected {example}"
        return
    yield from _problems_of_texts(files, ("pattern", "root", "argument"), "inputs.files")
    exclude = files.get("exclude")
    patterns = exclude if isinstance(exclude, list | tuple) else [exclude]
    if exclude is not None and not all(isinstance(pattern, str) for pattern in patterns):
        yield f"inputs.files.exclude: {exclude!r}, expected a pattern or a list of patterns"


def _problems_of_texts(values: Mapping[str, Any], names: Iterable[str], where: str) -> Iterator[str]:
    for name in names:
        if not isinstance(values.get(name), str | None):
            yield f"{where}.{name}: {values[name]!r}, expected a string"


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
        _check_readable(source.events)
        return
    if not source.pattern:
        raise ConfigError(
            "no inputs: give --events FILE or --files PATTERN --hook NAME, or an 'inputs' section in the configuration"
        )
    if not source.hook:
        raise ConfigError("no hook for the files: give --hook NAME, or 'hook' in the 'inputs' section")


def _check_readable(name: str) -> None:
    """Tell before the engine starts what would fail after it: the file is missing, or a directory."""
    if name != STDIN and (Path(name).is_dir() or not os.access(name, os.R_OK)):
        raise ConfigError(f"{name}: the events cannot be read, expected a file of JSON lines, or - for standard input")


def _matching_files(source: Source) -> Iterator[Path]:
    root, pattern = _root(source)
    if not root.is_dir():
        raise ConfigError(f"inputs: {str(root)!r} is no directory, expected the root of the files")
    try:
        paths = sorted(root.glob(pattern))
    except ValueError as error:
        raise ConfigError(f"inputs: pattern {source.pattern!r}: {error}, expected one such as '**/*.py'") from error
    for path in paths:
        relative = path.relative_to(root).as_posix()
        if path.is_file() and not any(fnmatch.fnmatchcase(relative, excluded) for excluded in source.exclude):
            yield path


def _root(source: Source) -> tuple[Path, str]:
    """Return the directory of the files, and the pattern relative to it; an absolute pattern has its own."""
    pattern = Path(source.pattern)
    if pattern.is_absolute():
        return Path(pattern.anchor), str(pattern.relative_to(pattern.anchor))
    return Path(source.root.replace("{stdlib}", sysconfig.get_paths()["stdlib"])), source.pattern


def _read_events(name: str) -> Iterator[Input]:
    stdin = name == STDIN
    label = "standard input" if stdin else name
    try:
        # Unbuffered: a daemon thread that is blocked in a buffered read aborts the interpreter's exit.
        with open(0 if stdin else name, "rb", buffering=0, closefd=not stdin) as file:
            yield from parse_events(split_lines(lambda: file.read(CHUNK)), label)
    except OSError as error:
        raise ConfigError(f"{label}: the events cannot be read: {error.strerror}") from error


def split_lines(read: Callable[[], bytes]) -> Iterator[bytes]:
    """Return the lines, without their ends, of what ``read`` returns piece by piece until it returns ``b""``."""
    parts: list[bytes] = []
    while chunk := read():
        first, *others = chunk.split(b"\n")
        parts.append(first)
        if others:
            yield b"".join(parts)
            yield from others[:-1]
            parts = [others[-1]]
    yield b"".join(parts)


def parse_events(lines: Iterable[str | bytes], name: str) -> Iterator[Input]:
    """Return the events of JSON lines; empty lines are skipped, a wrong one becomes an input with a problem."""
    for number, line in enumerate(lines, 1):
        if line.strip():
            yield _parse_event(line, f"{name}:{number}")


def _parse_event(line: str | bytes, label: str) -> Input:
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
