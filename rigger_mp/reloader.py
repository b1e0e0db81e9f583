"""Carries out reloads, as the user's process sees them.

::

    Candidate ─▶ allowed? ─▶ Finder: plugins found anew ─▶ Boot ─▶ dispatcher ─▶ refused: the old one stays
                                                                       └──────▶ adopted: see Running
"""

from __future__ import annotations

import pickle
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from rigger_mp import errors
from rigger_mp.candidate import Candidate, check_changes, check_found
from rigger_mp.config import configure_logging
from rigger_mp.discovery import Found
from rigger_mp.encoding import dump_value
from rigger_mp.engine.build import build_boot
from rigger_mp.engine.engine import Engine
from rigger_mp.engine.finder import Finder
from rigger_mp.engine.reloading import Reloading
from rigger_mp.errors import ConfigError

Plugins = Mapping[str, type]


@dataclass(frozen=True)
class Running:
    """What serves, or is to serve.

    Attributes:
        candidate: its configuration.
        plugins: the registered plugin classes by name.
        found: its instances.
        config: the configuration, as it was sent to the processes.
    """

    candidate: Candidate
    plugins: Plugins
    found: Found
    config: bytes


class Reloader:
    """Puts one thing that runs in the place of another.

    Args:
        engine: what runs it.
        running: what runs now.
        adopt: called on the results thread with what runs from then on.
    """

    def __init__(self, engine: Engine, running: Running, adopt: Callable[[Running], None]) -> None:
        self._engine = engine
        self._running = running
        self._adopt = adopt
        self._lock = threading.Lock()
        self._under_way: Reloading | None = None
        self._finder: Finder | None = None

    def reload(
        self, read: Callable[[], Candidate], plugins: Callable[[], Plugins], squash: bool | None
    ) -> tuple[str, ...]:
        """Reload; another reload that is under way comes first. See ``Rigger.reload`` for what is raised.

        Args:
            read: returns the configuration.
            plugins: returns the registered plugin classes by name.
            squash: what takes the place of the configuration's ``squash_exceptions``.

        Returns:
            What the user should hear.
        """
        with self._lock:
            if self._under_way is not None:  # whoever waited for it was interrupted
                self._under_way.wait()
            candidate = read()
            present = replace(self._running.candidate, config=pickle.loads(self._running.config))
            check_changes(present, candidate)
            coming = self._find(candidate, plugins())
            problems = self._exchange(coming, squash)
        return (*candidate.warnings, *coming.found.problems, *problems)

    def stop(self) -> None:
        """End what may take for ever."""
        finder = self._finder
        if finder is not None:
            finder.kill()

    def _find(self, candidate: Candidate, plugins: Plugins) -> Running:
        config = encode_config(candidate.config)
        finder = self._finder = Finder()
        try:
            found = finder.find(candidate.config, plugins, candidate.base)
        finally:
            self._finder = None
        missing = frozenset(self._running.found.missing)
        check_found(found, frozenset() if candidate.settings.strict else missing)
        return Running(candidate, plugins, found, config)

    def _exchange(self, coming: Running, squash: bool | None) -> tuple[str, ...]:
        former, logging = self._running.candidate.settings.logging, coming.candidate.settings.logging
        try:
            if logging != former:
                configure_logging(logging)
            return self._send(coming, squash)
        except BaseException:
            if logging != former:
                configure_logging(former)
            raise

    def _send(self, coming: Running, squash: bool | None) -> tuple[str, ...]:
        settings = coming.candidate.settings
        squash = settings.squash_exceptions if squash is None else squash
        base, generation = coming.candidate.base, self._engine.generation + 1
        boot = build_boot(settings, coming.found.instances, coming.config, squash, base, generation=generation)

        def adopt() -> None:
            self._running = coming
            self._adopt(coming)

        reloading = Reloading(boot, ("M", (coming.config,)), adopt)
        self._engine.reload(reloading, self._running.found.missing, settings.strict)
        self._under_way = reloading
        ended = reloading.wait()
        self._under_way = None
        if ended.kind:
            raise getattr(errors, ended.kind)(ended.refusal)
        return ended.problems


def encode_config(config: Mapping[str, object]) -> bytes:
    """Return a configuration as it travels.

    Raises:
        ConfigError: a value cannot be pickled.
    """
    try:
        return dump_value(dict(config))
    except TypeError as error:
        raise ConfigError(f"the configuration cannot be sent to other processes: {error}") from error
