"""What a peer that runs functions on worker processes can do."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any

from bench.tasks import BY_NAME


class Pool(ABC):
    """A peer that has been started.

    ``task`` is the name of a function of :mod:`bench.tasks`.
    """

    @abstractmethod
    def submit(self, task: str, value: Any) -> Any:
        """Start one call; return its handle."""

    @abstractmethod
    def result(self, handle: Any) -> None:
        """Wait for the outcome of a handle; raise what the function raised."""

    def call(self, task: str, value: Any) -> None:
        """Run one call and wait for its outcome."""
        self.result(self.submit(task, value))

    def run_each(self, task: str, values: Iterable[Any]) -> int:
        """Submit a call for each value, one by one; await all outcomes; return how many there were."""
        handles = [self.submit(task, value) for value in values]
        for handle in handles:
            self.result(handle)
        return len(handles)

    def broadcast(self, task: str, value: Any, copies: int) -> int:
        """Give one value to ``copies`` calls at once; await all outcomes; return how many there were."""
        return self.run_each(task, [value] * copies)


class FuturePool(Pool):
    """A peer whose ``submit`` takes a function and returns a future."""

    def __init__(self, executor: Any) -> None:
        self.executor = executor

    def submit(self, task: str, value: Any) -> Any:
        """Start one call."""
        return self.executor.submit(BY_NAME[task], value)

    def result(self, handle: Any) -> None:
        """Wait for a future."""
        handle.result()
