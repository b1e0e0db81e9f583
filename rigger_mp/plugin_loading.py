"""Importing plugin classes, from where :mod:`rigger_mp.discovery` found them; all of it that a host needs."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import operator
import pickle
import sys
import traceback
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

from rigger_mp.engine.spec import PluginSource
from rigger_mp.errors import PluginError
from rigger_mp.fresh_source import FreshSourceLoader
from rigger_mp.plugin import RiggerBasePlugin

_IMPORTERS = (__file__, importlib.__file__, "<frozen importlib")
"""Where the frames of a traceback are that lead from here to the module being imported."""


def load_class(source: PluginSource) -> Any:
    """Return the class of a source, importing what is needed.

    Raises:
        PluginError: it cannot be imported; the message names the file and line where the import failed.
    """
    if source.kind == "pickled":
        return _unpickle(source.payload)
    if source.kind == "module":
        return _attribute(_import(source.location), source.attribute, source.location)
    return _attribute(import_file(Path(source.location), source.module), source.attribute, source.location)


def _unpickle(payload: bytes) -> Any:
    try:
        return pickle.loads(payload)
    except Exception as error:
        raise _import_problem("the registered class", error) from error


def _attribute(module: ModuleType, attribute: str, where: str) -> Any:
    try:
        return operator.attrgetter(attribute)(module)
    except AttributeError as error:
        near = nearest(attribute, plugin_classes(module))
        hint = f", did you mean {near!r}?" if near else ""
        raise PluginError(f"{where} has no {attribute!r}{hint}") from error
    except BaseException as error:
        raise _import_problem(f"{where}:{attribute}", error) from error


def _import(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except BaseException as error:
        raise _import_problem(name, error) from error


def import_file(path: Path, name: str) -> ModuleType:
    """Return the module of a Python file, which is in ``sys.modules`` under that name, or imported now.

    Raises:
        PluginError: it cannot be imported.
    """
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path, loader=FreshSourceLoader(name, str(path)))
    if spec is None or spec.loader is None:
        raise PluginError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        sys.modules.pop(name, None)
        raise _import_problem(str(path), error) from error
    return module


def _import_problem(what: str, error: BaseException) -> PluginError:
    if isinstance(error, KeyboardInterrupt):
        raise error
    if isinstance(error, SyntaxError) and error.filename:
        place = f"{error.filename}:{error.lineno or 1}"
    else:
        frames = traceback.extract_tb(error.__traceback__)
        own = [frame for frame in frames if not frame.filename.startswith(_IMPORTERS)]
        place = f"{own[-1].filename}:{own[-1].lineno}" if own else what
    return PluginError(f"{what} cannot be imported: {place}: {_text(error)}")


def _text(error: BaseException) -> str:
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:  # noqa: BLE001 - its class is a plugin author's
        return type(error).__name__


def plugin_classes(module: ModuleType) -> list[str]:
    """Return the names of the plugin classes that a module defines itself, one for each class."""
    names = {
        value: name
        for name, value in reversed(vars(module).items())
        if inspect.isclass(value)
        and issubclass(value, RiggerBasePlugin)
        and value.__module__ == module.__name__
        and not name.startswith("_")
    }
    return list(reversed(names.values()))


def nearest(name: str, known: Iterable[str]) -> str:
    """Return what somebody may have meant, ``""`` if nothing is near."""
    import difflib  # noqa: PLC0415 - every worker imports this module, and few look for a name in vain

    return next(iter(difflib.get_close_matches(name, list(known), 1)), "")
