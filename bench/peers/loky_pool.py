"""loky: its reusable executor, with its own start method (a fresh interpreter for each worker)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from bench.peers.pool import FuturePool, Pool


@contextmanager
def open_pool(workers: int) -> Iterator[Pool]:
    """Start the executor."""
    import loky  # type: ignore[import-untyped,unused-ignore]

    executor = loky.get_reusable_executor(max_workers=workers, timeout=None)
    try:
        yield FuturePool(executor)
    finally:
        executor.shutdown(wait=True)
