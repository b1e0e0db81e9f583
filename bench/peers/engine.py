"""Peers that are event engines, behind one face: rigger_mp, and riggerlib threaded and not."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

Hooks = Mapping[str, Callable[..., Any]]


@dataclass(frozen=True)
class Program:
    """What is loaded into an engine.

    Attributes:
        plugins: for each instance the hooks that it answers.
        callbacks: functions by (hook, ``"pre"`` or ``"post"``).
        globals: the global namespace at first.
        stateless: whether any worker may run the plugins, where there are workers.
    """

    plugins: Mapping[str, Hooks]
    callbacks: Mapping[tuple[str, str], Callable[..., Any]] = field(default_factory=dict)
    globals: Mapping[str, Any] = field(default_factory=dict)
    stateless: bool = False


class EventEngine(Protocol):
    """A running engine."""

    def fire(self, hook: str, **kwargs: Any) -> None:
        """Fire an event, do not wait."""

    def drain(self) -> None:
        """Wait until all that was fired is done."""

    def fire_and_wait(self, hook: str, **kwargs: Any) -> None:
        """Fire an event and wait for its end."""

    def read_globals(self) -> Mapping[str, Any]:
        """Return the global namespace."""


def open_engine(peer: str, program: Program, workers: int = 2) -> AbstractContextManager[EventEngine]:
    """Start an engine by the peer's name."""
    if peer.startswith("rigger_mp"):
        return _open_ours(program, workers, threaded=peer != "rigger_mp-sequential")
    return _open_theirs(program, threaded=peer == "riggerlib-threaded")


class _Ours:
    def __init__(self, rigger: Any) -> None:
        self.rigger = rigger
        self.drain = rigger.drain
        self.fire_and_wait = rigger.fire_hook

    def fire(self, hook: str, **kwargs: Any) -> None:
        self.rigger.fire_hook(hook, wait=False, **kwargs)

    def read_globals(self) -> Mapping[str, Any]:
        return dict(self.rigger.global_data)


@contextmanager
def _open_ours(program: Program, workers: int, threaded: bool) -> Iterator[_Ours]:
    from rigger_mp import Rigger, RiggerBasePlugin

    class Answering(RiggerBasePlugin):
        def plugin_initialize(self) -> None:
            for hook, function in program.plugins[self.ident].items():
                self.register_plugin_hook(hook, function)

    instances = {ident: {"plugin": "answering", "stateless": program.stateless} for ident in program.plugins}
    rigger = Rigger({"workers": workers, "threaded": threaded, "plugins": instances}, plugins={"answering": Answering})
    for (hook, stage), function in program.callbacks.items():
        rigger.register_hook_callback(hook, stage, function)
    rigger.global_data = dict(program.globals)
    with rigger:
        yield _Ours(rigger)


def import_riggerlib() -> Any:
    """Import riggerlib on a Python that it was not written for."""
    import collections
    import collections.abc

    warnings.simplefilter("ignore")
    collections.Mapping = collections.abc.Mapping  # type: ignore[attr-defined]  # Python 3.10 took it away
    import riggerlib  # type: ignore[import-untyped,unused-ignore]

    return riggerlib


class _Theirs:
    def __init__(self, rigger: Any) -> None:
        self.rigger = rigger
        self.fire = rigger.fire_hook

    def drain(self) -> None:
        self.rigger._global_queue.join()

    def fire_and_wait(self, hook: str, **kwargs: Any) -> None:
        # riggerlib's fire_hook cannot wait, so this runs the event without its queue: the least it can take
        self.rigger.process_hook(hook, **kwargs)

    def read_globals(self) -> Mapping[str, Any]:
        globals_: Mapping[str, Any] = self.rigger.global_data
        return globals_


@contextmanager
def _open_theirs(program: Program, threaded: bool) -> Iterator[_Theirs]:
    rigger = load_riggerlib(program, {"threaded": threaded})
    try:
        yield _Theirs(rigger)
    finally:
        rigger._global_queue_shutdown = rigger._background_queue_shutdown = True


def load_riggerlib(program: Program, options: Mapping[str, Any]) -> Any:
    """Return a started riggerlib with a program."""
    riggerlib = import_riggerlib()

    class Answering(riggerlib.RiggerBasePlugin):  # type: ignore[misc, name-defined]  # untyped
        def plugin_initialize(self) -> None:
            for hook, function in program.plugins[self.ident].items():
                self.register_plugin_hook(hook, function)

    class Configured(riggerlib.Rigger):  # type: ignore[misc, name-defined]  # untyped
        def read_config(self, _file: Any) -> None:
            instances = {ident: {"enabled": True, "plugin": "answering"} for ident in program.plugins}
            self.config = {**options, "plugins": instances}

    rigger = Configured(None)
    rigger.register_plugin(Answering, "answering")
    for number, ((hook, stage), function) in enumerate(program.callbacks.items()):
        rigger.register_hook_callback(hook, stage, function, name=str(number))
    rigger.global_data = dict(program.globals)
    rigger.parse_config()
    rigger.initialized = True
    return rigger
