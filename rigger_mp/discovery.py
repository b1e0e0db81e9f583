"""Finding plugin classes: registered, by ``package.module:Class``, by entry point, by file name.

The user's process finds the class of each enabled instance once, to tell mistakes early and to learn whether
it is stateless. What hosts get is a :class:`~rigger_mp.engine.spec.PluginSource`, from which
:func:`~rigger_mp.plugin_loading.load_class` gets the class again.
"""

from __future__ import annotations

import binascii
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rigger_mp.encoding import dump_value
from rigger_mp.engine.spec import InstanceSpec, PluginSource
from rigger_mp.errors import EncodingError, PluginError, PluginNotFoundError
from rigger_mp.plain_text import plain_name
from rigger_mp.plugin import RiggerBasePlugin
from rigger_mp.plugin_loading import import_file, load_class, nearest, plugin_classes

ENTRY_POINTS = "rigger_mp.plugins"
"""The entry point group in which packages offer plugins."""
_FILE_MODULES = "rigger_mp_plugin_path_"


@dataclass(frozen=True, slots=True)
class Found:
    """The instances whose plugin was found, and what is wrong with the others: ``missing``, in the same order."""

    instances: tuple[InstanceSpec, ...]
    problems: tuple[str, ...]
    missing: tuple[str, ...] = ()


def find_instances(
    config: Mapping[str, Any], registered: Mapping[str, type | bytes], base_dir: Path | None = None
) -> Found:
    """Find the plugins of all enabled instances.

    Args:
        config: the configuration, checked before.
        registered: plugin classes by name, pickled ones among them.
        base_dir: what relative directories of ``plugin_path`` are relative to; default: here.
    """
    search = _Search(registered, _directories(config, base_dir or Path()))
    instances: list[InstanceSpec] = []
    problems: dict[str, str] = {}
    for ident, entry in (config.get("plugins") or {}).items():
        if not entry.get("enabled", True):
            continue
        try:
            instances.append(_spec(ident, entry, search))
        except PluginError as problem:
            problems[ident] = f"disabling instance [{ident}]: {problem}"
    return Found(tuple(instances), tuple(problems.values()), tuple(problems))


def _directories(config: Mapping[str, Any], base: Path) -> tuple[Path, ...]:
    path = config.get("plugin_path") or ()
    return tuple(base / directory for directory in ((path,) if isinstance(path, str) else path))


def _spec(ident: str, entry: Mapping[str, Any], search: _Search) -> InstanceSpec:
    name = entry["plugin"]
    source = search.find(name)
    plugin = _checked(name, load_class(source))
    stateless = entry.get("stateless")
    if stateless is None:
        stateless = bool(plugin.stateless)
    return InstanceSpec(
        ident=plain_name(ident, "an instance"),
        plugin=plain_name(name, "a plugin"),
        source=source,
        data=dict(entry),
        stateless=stateless,
        background=bool(entry.get("background", False)),
        dedicated=bool(entry.get("dedicated", False)),
        time_limit=entry.get("time_limit"),
        max_retries=entry.get("max_retries", 0),
    )


def _checked(name: str, found: Any) -> type[RiggerBasePlugin]:
    if not (isinstance(found, type) and issubclass(found, RiggerBasePlugin)):
        raise PluginError(f"plugin [{name}] is {found!r}, expected a class derived from RiggerBasePlugin")
    return found


class _Search:
    """Looks a plugin's name up in each of the places, in their order."""

    def __init__(self, registered: Mapping[str, type | bytes], directories: Iterable[Path]) -> None:
        self._registered = registered
        self._directories = tuple(directories)

    def find(self, name: str) -> PluginSource:
        """Return the source of a plugin.

        Raises:
            PluginNotFoundError: it is nowhere.
            PluginError: it is there, and unusable.
        """
        for place in (self._find_registered, self._find_file, self._find_module, self._find_entry_point):
            source = place(name)
            if source is not None:
                return source
        raise PluginNotFoundError(self._describe_search(name))

    def _find_registered(self, name: str) -> PluginSource | None:
        if name not in self._registered:
            return None
        plugin = self._registered[name]
        try:
            return PluginSource("pickled", payload=plugin if isinstance(plugin, bytes) else dump_value(plugin))
        except EncodingError as error:
            raise PluginError(f"plugin [{name}]: its class cannot be sent to other processes: {error}") from error

    def _find_module(self, name: str) -> PluginSource | None:
        return _module_source(name, name) if ":" in name else None

    def _find_entry_point(self, name: str) -> PluginSource | None:
        # What may follow the class, in brackets, are extras of its package.
        targets = sorted({entry.value.partition("[")[0].strip() for entry in _entry_points() if entry.name == name})
        if len(targets) > 1:
            raise PluginError(f"plugin [{name}] is the entry point of several packages: {', '.join(targets)}; name one")
        return _module_source(name, targets[0]) if targets else None

    def _find_file(self, name: str) -> PluginSource | None:
        stem, _, attribute = name.partition(":")
        if not stem.isidentifier():
            return None
        files = [directory / f"{stem}.py" for directory in self._directories]
        files = list(dict.fromkeys(file.resolve() for file in files if os.path.isfile(file)))  # noqa: PTH113 - is_file() raises where access is denied
        if not files:
            return None
        if len(files) > 1:
            both = ", ".join(map(str, files))
            raise PluginError(f"plugin [{name}] is in several directories of plugin_path: {both}; rename one")
        return _file_source(files[0], attribute)

    def _describe_search(self, name: str) -> str:
        known = [*self._registered, *(entry.name for entry in _entry_points()), *self._file_names()]
        near = nearest(name, known)
        hint = f"; did you mean {near!r}?" if near else ""
        registered = ", ".join(self._registered) or "none"
        path = ", ".join(map(str, self._directories)) or "empty"
        return (
            f"Plugin [{name}] was not found among the registered plugins ({registered}), the entry points of "
            f"{ENTRY_POINTS!r}, and the files of plugin_path ({path}); package.module:Class names one anywhere"
            f"{hint}"
        )

    def _file_names(self) -> Iterator[str]:
        for directory in self._directories:
            if os.path.isdir(directory):  # noqa: PTH112 - is_dir() raises where access is denied
                yield from (file.stem for file in directory.glob("*.py"))


def _module_source(name: str, target: str) -> PluginSource:
    module, _, attribute = (part.strip() for part in target.partition(":"))
    if not all([*module.split("."), *attribute.split(".")]):
        raise PluginError(f"plugin [{name}] is looked for in {target!r}, expected package.module:Class")
    return PluginSource("module", location=module, attribute=attribute)


def _file_source(file: Path, attribute: str) -> PluginSource:
    digest = f"{binascii.crc32(os.fsencode(file)):08x}"
    module_name = f"{_FILE_MODULES}{file.stem}_{digest}"
    if not attribute:
        classes = plugin_classes(import_file(file, module_name))
        if len(classes) != 1:
            found = ", ".join(classes) or "none"
            raise PluginError(
                f"{file} must define one class derived from RiggerBasePlugin, found {found}; "
                f"name one: {file.stem}:ClassName"
            )
        attribute = classes[0]
    return PluginSource("file", location=str(file), attribute=attribute, module=module_name)


def _entry_points() -> Iterable[Any]:
    import importlib.metadata  # noqa: PLC0415 - 30 ms that hosts never need

    return importlib.metadata.entry_points(group=ENTRY_POINTS)
