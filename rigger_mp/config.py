"""Reading and checking a configuration: every mistake at once, each with its place.

::

    YAML text ─▶ nodes ─▶ values ──▶ check_values ─▶ problems, warnings ─▶ ConfigError, or Settings
                   └────▶ places ────────┘  (a mapping has no places: its paths are named instead)
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rigger_mp.config_keys import KEYS, Key, usable_cpus
from rigger_mp.errors import ConfigError
from rigger_mp.yaml_places import Place, Places, YamlProblem, load_with_places

NEAR = 0.8
"""How alike (``difflib``'s ratio) an unknown key must be to a known one to be taken for a slip of the pen."""
_PYTHON_TYPES: dict[str, tuple[type, ...]] = {
    "boolean": (bool,),
    "integer": (int,),
    "number": (int, float),
    "string": (str,),
    "object": (Mapping,),
    "array": (list, tuple),
}
_NAMES = {"boolean": "true or false", "integer": "a whole number", "number": "a number", "string": "a string"}
_NAMES |= {"object": "a mapping", "array": "a list"}

KeyPath = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Finding:
    """Something wrong, or suspicious, at a path; ``at_key``: it is the key, not its value."""

    path: KeyPath
    text: str
    fatal: bool = True
    at_key: bool = False


@dataclass(frozen=True, slots=True)
class Loaded:
    """A configuration read from a file: the mapping, and warnings for the user to see."""

    config: dict[str, Any]
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class Settings:
    """The typed values of the known keys; see :mod:`rigger_mp.config_keys` for their meaning and units."""

    squash_exceptions: bool = False
    threaded: bool = True
    server_address: str = "127.0.0.1"
    server_port: int = 21212
    server_enabled: bool = False
    workers: int = 1
    queue_size: int = 10_000
    list_merge: str = "extend"
    graceful_timeout: float = 25.0
    time_limit: float | None = None
    max_retries: int = 0
    retry_delay: float = 0.1
    max_tasks_per_child: int | None = None
    max_memory_per_child: int | None = None
    max_restarts: int = 5
    restart_period: float = 60.0
    max_nesting: int = 1000
    max_output: int = 8 << 20
    logging: Mapping[str, Any] = field(default_factory=dict)
    archive: Mapping[str, Any] = field(default_factory=dict)
    hooks: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    inputs: Mapping[str, Any] = field(default_factory=dict)
    plugin_path: tuple[str, ...] = ()
    strict: bool = False

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Settings:
        """Return the settings of a configuration.

        Raises:
            ConfigError: it is wrong; the message lists every mistake.
        """
        check_mapping(config)
        values = {key.name: _value(key, config.get(key.name)) for key in KEYS if key.name != "plugins"}
        values["workers"] = values["workers"] or usable_cpus()
        values["hooks"] = {name: options or {} for name, options in (values["hooks"] or {}).items()}
        path = values["plugin_path"] or ()
        values["plugin_path"] = (path,) if isinstance(path, str) else tuple(path)
        known = cls.__dataclass_fields__
        return cls(**{name: value for name, value in values.items() if name in known})


def configure_logging(config: Mapping[str, Any]) -> None:
    """Apply what ``logging`` says, as ``logging.config.dictConfig`` takes it; loggers that exist stay enabled.

    Raises:
        ConfigError: it is wrong.
    """
    if not config:
        return
    import logging.config  # noqa: PLC0415 - only where it is configured

    try:
        logging.config.dictConfig({"version": 1, "disable_existing_loggers": False, **config})
    except (ValueError, TypeError, AttributeError, ImportError) as error:
        cause = f": {error.__cause__}" if error.__cause__ else ""
        raise ConfigError(f"logging: {error}{cause}, expected what logging.config.dictConfig takes") from error


def _value(key: Key, value: Any) -> Any:
    if value is not None:
        return value
    return {} if "object" in key.types else key.default


def read_yaml(path: str | os.PathLike[str]) -> Loaded:
    """Read and check a configuration file.

    Args:
        path: a YAML file, UTF-8. An empty one is an empty configuration.

    Raises:
        ConfigError: it cannot be read, or is wrong: one line ``file:line:column: what is wrong, what was
            expected`` for each mistake.
    """
    name = os.fspath(path)
    try:
        value, places, problems = load_with_places(_read_text(name))
    except YamlProblem as problem:
        raise ConfigError(f"{name}:{problem.place}: {problem}") from None
    config = {} if value is None else value
    findings = sorted([*_yaml_findings(problems), *check_values(config)], key=lambda found: _place(places, found))
    # What aliases share is found once for each of them.
    lines = {f"{name}:{_place(places, found)}: {found.text}": found.fatal for found in findings}
    errors = [line for line, fatal in lines.items() if fatal]
    if errors:
        raise ConfigError("\n".join(errors))
    return Loaded(config, tuple(lines))


def _read_text(name: str) -> str:
    try:
        return Path(name).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{name}: byte {error.start} is not UTF-8; expected a UTF-8 encoded YAML file") from None
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{name}: the configuration file cannot be read ({getattr(error, 'strerror', error)}); "
            "expected the path of a YAML file, such as rigger.yaml"
        ) from None


def _yaml_findings(problems: Iterable[tuple[KeyPath, str]]) -> list[Finding]:
    return [Finding(path, text, at_key=True) for path, text in problems]


def _place(places: Places, finding: Finding) -> Place:
    return places.find(finding.path, finding.at_key)


def check_mapping(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Check a configuration that comes from no file and return warnings for the user to see.

    Raises:
        ConfigError: it is wrong: one line ``key.path: what is wrong, what was expected`` for each mistake.
    """
    findings = list(check_values(config))
    errors = [_unplaced(finding) for finding in findings if finding.fatal]
    if errors:
        raise ConfigError("\n".join(errors))
    return tuple(_unplaced(finding) for finding in findings)


def _unplaced(finding: Finding) -> str:
    return f"{'.'.join(finding.path) or 'configuration'}: {finding.text}"


def check_values(config: Any) -> Iterator[Finding]:
    """Find everything that is wrong with a configuration."""
    if not isinstance(config, Mapping):
        yield Finding((), f"the configuration is {_describe(config)}, expected a mapping of keys")
        return
    yield from _check_keys(config, KEYS, ())


def _check_keys(values: Mapping[Any, Any], keys: tuple[Key, ...], path: KeyPath) -> Iterator[Finding]:
    by_name = {key.name: key for key in keys}
    for name, value in values.items():
        if not isinstance(name, str):
            yield Finding((*path, str(name)), f"the key is {_describe(name)}, expected a string", at_key=True)
        elif name in by_name:
            yield from _check_value(value, by_name[name], (*path, name))
        else:
            yield from _near_miss(name, by_name, values, (*path, name))
    for key in keys:
        if key.required and key.name not in values and values.get("enabled", True):
            yield Finding(path, f"{key.name!r} is missing, expected {key.help}", at_key=True)


def _near_miss(name: str, known: Iterable[str], values: Mapping[Any, Any], path: KeyPath) -> Iterator[Finding]:
    absent = [key for key in known if key not in values]
    for near in difflib.get_close_matches(name.lower(), absent, 1, NEAR):
        yield Finding(path, f"unknown key {name!r}, did you mean {near!r}?", fatal=False, at_key=True)


def _check_value(value: Any, key: Key, path: KeyPath) -> Iterator[Finding]:
    if value is None and key.nullable:
        return
    if not (_has_type(value, key) and _in_bounds(value, key)):
        yield Finding(path, f"{key.name} is {_describe(value)}, expected {_expected(key)}")
    elif key.keys:
        yield from _check_keys(value, key.keys, path)
    elif key.values:
        yield from _check_named(value, key, path)
    elif "array" in key.types and not isinstance(value, str):
        yield from _check_items(value, path)


def _check_named(values: Mapping[Any, Any], key: Key, path: KeyPath) -> Iterator[Finding]:
    for name, value in values.items():
        inner = (*path, str(name))
        if not isinstance(name, str):
            yield Finding(inner, f"the name is {_describe(name)}, expected a string", at_key=True)
        elif isinstance(value, Mapping):
            yield from _check_keys(value, key.values, inner)
        elif value is not None or any(part.required for part in key.values):
            yield Finding(inner, f"{name!r} is {_describe(value)}, expected a mapping of its keys", at_key=True)


def _check_items(values: Iterable[Any], path: KeyPath) -> Iterator[Finding]:
    for number, value in enumerate(values):
        if not isinstance(value, str):
            inner = (*path, str(number))
            yield Finding(inner, f"item {number + 1} of {path[-1]} is {_describe(value)}, expected a string")


def _has_type(value: Any, key: Key) -> bool:
    if isinstance(value, bool):
        return "boolean" in key.types
    return any(isinstance(value, _PYTHON_TYPES[name]) for name in key.types if name != "boolean")


def _in_bounds(value: Any, key: Key) -> bool:
    if key.choices:
        return value in key.choices
    if not isinstance(value, int | float) or isinstance(value, bool):
        return True
    return (
        (key.minimum is None or value >= key.minimum)
        and (key.maximum is None or value <= key.maximum)
        and (key.above is None or value > key.above)
    )


def _expected(key: Key) -> str:
    if key.choices:
        return " or ".join(map(repr, key.choices))
    text = " or ".join(_NAMES[name] for name in key.types)
    bounds = [("at least", key.minimum), ("more than", key.above), ("at most", key.maximum)]
    limits = [f"{word} {number:.15g}" for word, number in bounds if number is not None]
    return " ".join([text, ", ".join(limits)]).strip() + (" (or null)" if key.nullable else "")


def _describe(value: Any) -> str:
    if value is None:
        return "empty"
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list"
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001 - a class may define it, and an int may be too long for it
        return f"a value of type {type(value).__name__!r}"
    return text if len(text) <= 60 else f"{text[:57]}..."
