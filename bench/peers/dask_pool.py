"""Dask distributed: ``Client.submit`` on a local cluster of one-thread processes, results gathered at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from bench.peers.pool import FuturePool, Pool
from bench.tasks import BY_NAME


class DaskPool(FuturePool):
    """A client of a local cluster. ``pure=False``: every call is run, none is taken from a cache."""

    def submit(self, task: str, value: Any) -> Any:
        """Start one call."""
        return self.executor.submit(BY_NAME[task], value, pure=False)

    def run_each(self, task: str, values: Iterable[Any]) -> int:
        """Submit all, then gather all at once."""
        return len(self.executor.gather([self.submit(task, value) for value in values]))

    def broadcast(self, task: str, value: Any, copies: int) -> int:
        """Scatter the value to all workers once, and give its future to every call."""
        return self.run_each(task, [self.executor.scatter(value, broadcast=True)] * copies)


@contextmanager
def open_pool(workers: int) -> Iterator[Pool]:
    """Start a cluster on this machine."""
    import distributed

    cluster = distributed.LocalCluster(
        n_workers=workers, threads_per_worker=1, processes=True, dashboard_address=None, silence_logs=50
    )
    with cluster, distributed.Client(cluster) as client:
        yield DaskPool(client)
