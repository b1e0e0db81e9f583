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
from rigger_mp.engine.build import spool_path
from rigger_mp.errors import ConfigError, PluginError

Config = Mapping[str, Any]

_FIXED = ("queue_size", "list_merge", "max_output", "retry_delay")
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


def check_changes(present: Candidate, coming: Candidate) -> None:
    """Refuse what a running engine cannot change; their configurations count, not their settings.

    Raises:
        ConfigError: with every such change.
    """
    changes = list(_fixed_changes(present, coming))
    if changes:
        raise ConfigError("\n".join(changes))


def _fixed_changes(present: Candidate, coming: Candidate) -> Iterator[str]:
    configs = present.config, coming.config
    serves = any(config.get("server_enabled") for config in configs)
    for key in KEYS:
        if key.name in _FIXED or (serves and key.name.startswith("server_")):
            before, after = (config.get(key.name, key.default) for config in configs)
            yield from _change(key.name, before, after)
    yield from _change("archive.spool", _spool(present), _spool(coming))
    before, after = ((config.get("archive") or {}).get("synchronous", "normal") for config in configs)
    yield from _change("archive.synchronous", before, after)


def _spool(candidate: Candidate) -> str | None:
    path = spool_path(Settings.from_config(candidate.config), candidate.base)
    return str(path) if path is not None else None


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
