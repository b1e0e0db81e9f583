"""``concurrent.futures.ProcessPoolExecutor``: ``submit``, with the start method that is asked for."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager

from bench.peers.pool import FuturePool, Pool


@contextmanager
def open_pool(workers: int, method: str) -> Iterator[Pool]:
    """Start the executor; it starts its processes with the first call."""
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context(method)) as executor:
        yield FuturePool(executor)
