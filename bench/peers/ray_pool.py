"""Ray: remote functions, awaited with one ``ray.get``; a large value is put into its object store once."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from bench.peers.pool import Pool
from bench.tasks import BY_NAME


class RayPool(Pool):
    """A local Ray, with as many CPUs as workers."""

    def __init__(self, ray: Any) -> None:
        self.ray = ray
        self.functions = {name: ray.remote(function) for name, function in BY_NAME.items()}

    def submit(self, task: str, value: Any) -> Any:
        """Start one call."""
        return self.functions[task].remote(value)

    def result(self, handle: Any) -> None:
        """Wait for a reference."""
        self.ray.get(handle)

    def run_each(self, task: str, values: Iterable[Any]) -> int:
        """Submit all, then wait for all at once, as Ray's page on anti-patterns says."""
        function = self.functions[task]
        return len(self.ray.get([function.remote(value) for value in values]))

    def broadcast(self, task: str, value: Any, copies: int) -> int:
        """Put the value into the object store once, and give its reference to every call."""
        return self.run_each(task, [self.ray.put(value)] * copies)


@contextmanager
def open_pool(workers: int) -> Iterator[Pool]:
    """Start Ray on this machine."""
    os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"
    import ray

    ray.init(num_cpus=workers, include_dashboard=False, logging_level=logging.ERROR, log_to_driver=False)
    try:
        yield RayPool(ray)
    finally:
        ray.shutdown()
