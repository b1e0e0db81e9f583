"""A configuration that is to take the place of the present one: read, checked, its plugins found."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rigger_mp.config import Settings, check_mapping, read_yaml
from rigger_mp.config_keys import KEYS
from rigger_mp.discovery import Found
from rigger_mp.errors import ConfigError, PluginError

Config = Mapping[str, Any]

_FIXED = ("queue_size", "list_merge", "max_output")
"""Keys that what runs already was built with; so were those of the server."""


@dataclass(frozen=True)
class Candidate:
    """See the module.

    Attributes:
        config: the configuration.
        config_file: where it was read, ``None``: it was given.
        settings: its typed values.
        warnings: for the user to see.
    """

    config: Config
    config_file: Path | None
    settings: Settings
    warnings: tuple[str, ...]

    @property
    def base(self) -> Path | None:
        """What relative directories of ``plugin_path`` are relative to."""
        return self.config_file.parent if self.config_file is not None else None


def read_candidate(source: str | os.PathLike[str] | Config) -> Candidate:
    """Read and check a configuration.

    Raises:
        ConfigError: with every mistake.
    """
    if isinstance(source, Mapping):
        return Candidate(source, None, Settings.from_config(source), check_mapping(source))
    loaded = read_yaml(source)
    return Candidate(loaded.config, Path(source), Settings.from_config(loaded.config), loaded.warnings)


def check_changes(present: Config, coming: Config) -> None:
    """Refuse what a running engine cannot change.

    Raises:
        ConfigError: with every such change.
    """
    changes = list(_fixed_changes(present, coming))
    if changes:
        raise ConfigError("\n".join(changes))


def _fixed_changes(present: Config, coming: Config) -> Iterator[str]:
    serves = present.get("server_enabled") or coming.get("server_enabled")
    for key in KEYS:
        if key.name in _FIXED or (serves and key.name.startswith("server_")):
            before, after = (config.get(key.name, key.default) for config in (present, coming))
            yield from _change(key.name, before, after)
    before, after = ((config.get("archive") or {}).get("spool") for config in (present, coming))
    yield from _change("archive.spool", before, after)


def _change(name: str, before: Any, after: Any) -> Iterator[str]:
    if before != after:
        yield f"{name}: a reload cannot change it (it is {before!r}, would be {after!r}): stop, and start again"


def check_found(found: Found, tolerated: frozenset[str]) -> None:
    """Refuse plugins that cannot be found, unless it is tolerated.

    Raises:
        PluginError: naming each.
    """
    named = zip(found.missing, found.problems, strict=True)
    problems = [text.removeprefix("disabling ") for ident, text in named if ident not in tolerated]
    if problems:
        raise PluginError("\n".join(problems))
