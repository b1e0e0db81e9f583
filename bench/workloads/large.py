"""Large values: one of them to several plugins."""

from __future__ import annotations

import random
import time
from typing import Any

from bench import tally
from bench.peers import open_pool
from bench.tasks import checksum
from bench.workload import Evidence, Sample, Size, Workload, counted

WORKERS = 2
MEBIBYTE = 2**20


def block(seed: int) -> bytes:
    """Return a mebibyte that is known by its number."""
    return random.Random(seed).randbytes(MEBIBYTE)


def as_bytes(seed: int, mebibytes: int) -> bytes:
    """Return a large value as ``bytes``."""
    return block(seed) * mebibytes


def as_array(seed: int, mebibytes: int) -> Any:
    """Return a large value as a NumPy array."""
    import numpy as np

    return np.tile(np.frombuffer(block(seed), dtype=np.uint8), mebibytes)


def broadcast(make: Any, peer: str, size: Size) -> Sample:
    """Give a large value to several plugins at once, each time another value; time each."""
    copies, times = size["plugins"], []
    with open_pool(peer, WORKERS) as pool:
        pool.broadcast("measure", make(0, size["mebibytes"]), copies)
        before = tally.read()
        for seed in range(1, size["events"] + 1):
            value = make(seed, size["mebibytes"])
            start = time.perf_counter()
            pool.broadcast("measure", value, copies)
            times.append(time.perf_counter() - start)
        evidence = counted(before)
    return Sample({"per_event": sum(times) / len(times)}, evidence)


def expect_broadcast(_peer: str, size: Size) -> Evidence:
    """Expect every page of every value to have been read by every plugin."""
    sums = (checksum(as_bytes(seed, size["mebibytes"])) for seed in range(1, size["events"] + 1))
    return {"calls": size["plugins"] * size["events"], "sum": size["plugins"] * sum(sums)}


def run_bytes(peer: str, size: Size) -> Sample:
    """Measure ``bytes``."""
    return broadcast(as_bytes, peer, size)


def run_array(peer: str, size: Size) -> Sample:
    """Measure a NumPy array."""
    return broadcast(as_array, peer, size)


def _workload(kind: str, title: str, run: Any, needs: str) -> Workload:
    return Workload(
        name=f"large-{kind}",
        title=f"64 MiB {title} to 4 plugins",
        about="One event, four plugins, each of which reads every page of the value.",
        metric="per_event",
        unit="ms",
        peers=("rigger_mp", "ppe", "pool", "loky", "pebble", "mpire", "ray", "dask"),
        run=run,
        expect=expect_broadcast,
        full={"events": 5, "plugins": 4, "mebibytes": 64},
        quick={"events": 1, "plugins": 4, "mebibytes": 64},
        needs=needs,
    )


LARGE_BYTES = _workload("bytes", "of bytes", run_bytes, "sys")
LARGE_ARRAY = _workload("array", "as a NumPy array", run_array, "numpy")
