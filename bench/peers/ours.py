"""rigger_mp as a pool: one stateless plugin, with a hook for each task."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from bench.peers.our_plugin import Tasks
from bench.peers.pool import Pool
from bench.tasks import BY_NAME
from rigger_mp import Rigger


class RiggerPool(Pool):
    """An engine. Tasks on many plugins at once are hooks of another name: ``many-noop``."""

    def __init__(self, rigger: Rigger) -> None:
        self.rigger = rigger

    def submit(self, task: str, value: Any) -> Any:
        """Fire a hook, get its future."""
        return self.rigger.submit(task, value=value)

    def result(self, handle: Any) -> None:
        """Wait for a future."""
        handle.result()

    def call(self, task: str, value: Any) -> None:
        """Fire a hook and wait."""
        self.rigger.fire_hook(task, value=value)

    def broadcast(self, task: str, value: Any, copies: int) -> int:
        """Fire one event, which ``copies`` plugins answer."""
        self.rigger.fire_hook(f"many-{task}", value=value)
        return copies


def configuration(workers: int, copies: int = 0, **options: Any) -> dict[str, Any]:
    """Return a configuration with one plugin for all tasks, and ``copies`` more for the hooks of many."""
    single = {"plugin": "tasks", "tasks": {name: name for name in BY_NAME}}
    many = {"plugin": "tasks", "tasks": {f"many-{name}": name for name in BY_NAME}}
    instances = {"single": single} | {f"copy-{number}": many for number in range(copies)}
    return {"workers": workers, "plugins": instances, **options}


@contextmanager
def open_pool(workers: int, copies: int = 4, **options: Any) -> Iterator[Pool]:
    """Start the engine."""
    with Rigger(configuration(workers, copies, **options), plugins={"tasks": Tasks}) as rigger:
        yield RiggerPool(rigger)
