"""``multiprocessing.Pool``: ``apply_async``, which takes one call at a time as events come one at a time."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from bench.peers.pool import Pool
from bench.tasks import BY_NAME


class MultiprocessingPool(Pool):
    """A pool of forked processes."""

    def __init__(self, pool: Any) -> None:
        self.pool = pool

    def submit(self, task: str, value: Any) -> Any:
        """Start one call."""
        return self.pool.apply_async(BY_NAME[task], (value,))

    def result(self, handle: Any) -> None:
        """Wait for an ``AsyncResult``."""
        handle.get()


@contextmanager
def open_pool(workers: int) -> Iterator[Pool]:
    """Start the pool."""
    with multiprocessing.get_context("fork").Pool(workers) as pool:
        yield MultiprocessingPool(pool)
        pool.close()
        pool.join()
