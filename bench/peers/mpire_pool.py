"""mpire: ``WorkerPool.apply_async``; its maps would batch, but events come one at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from bench.peers.mp_pool import MultiprocessingPool
from bench.peers.pool import Pool


@contextmanager
def open_pool(workers: int) -> Iterator[Pool]:
    """Start the pool."""
    import mpire

    with mpire.WorkerPool(n_jobs=workers, start_method="fork") as pool:
        yield MultiprocessingPool(pool)
        pool.stop_and_join()
