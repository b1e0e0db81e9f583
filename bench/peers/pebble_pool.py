"""pebble: ``ProcessPool.submit``, without a time limit."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from bench.peers.pool import FuturePool, Pool
from bench.tasks import BY_NAME


class PebblePool(FuturePool):
    """pebble's pool: ``submit`` has a place for a time limit."""

    def submit(self, task: str, value: Any) -> Any:
        """Start one call."""
        return self.executor.submit(BY_NAME[task], None, value)


@contextmanager
def open_pool(workers: int) -> Iterator[Pool]:
    """Start the pool."""
    import pebble

    with pebble.ProcessPool(max_workers=workers, context=multiprocessing.get_context("fork")) as pool:
        yield PebblePool(pool)
        pool.close()
        pool.join()
