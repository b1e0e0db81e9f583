"""Importing source files as they are now, even where Python takes an older version for the present one.

Python compares a source file's size and time, in whole seconds, with those of the source that the cached bytecode
was made from. A file that is edited within the second in which it was imported, and keeps its size, so runs
as it was before. But then the cached bytecode is older than the source: that is what is looked at here.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import sys
from importlib.machinery import (
    BYTECODE_SUFFIXES,
    EXTENSION_SUFFIXES,
    SOURCE_SUFFIXES,
    ExtensionFileLoader,
    FileFinder,
    SourceFileLoader,
    SourcelessFileLoader,
)
from pathlib import Path
from typing import Any


class FreshSourceLoader(SourceFileLoader):
    """A loader of source files that drops cached bytecode which is older than its source."""

    def path_stats(self, path: Any) -> Any:
        """Return what cached bytecode must agree with.

        Raises:
            OSError: cached bytecode cannot be used.
        """
        stats = super().path_stats(path)
        with contextlib.suppress(NotImplementedError, FileNotFoundError):
            cached = importlib.util.cache_from_source(path)
            if os.stat(cached).st_mtime_ns < os.stat(path).st_mtime_ns:  # noqa: PTH116 - no need of more than strings
                Path(cached).unlink()
        return stats


_LOADERS: list[tuple[Any, list[str]]] = [
    (ExtensionFileLoader, EXTENSION_SUFFIXES),
    (FreshSourceLoader, SOURCE_SUFFIXES),
    (SourcelessFileLoader, BYTECODE_SUFFIXES),
]
_find_fresh = FileFinder.path_hook(*_LOADERS)


def import_fresh_sources() -> None:
    """Have this process, and those forked from it, import modules with :class:`FreshSourceLoader`."""
    if _find_fresh in sys.path_hooks:
        return
    hooks = [hook for hook in sys.path_hooks if "FileFinder" not in getattr(hook, "__qualname__", "")]
    sys.path_hooks[:] = [*hooks, _find_fresh]
    sys.path_importer_cache.clear()
