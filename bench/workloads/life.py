"""The life of an engine: how long it takes to start, how much memory it keeps."""

from __future__ import annotations

import importlib
import time

import psutil

from bench import tally
from bench.peers import PEERS, open_pool
from bench.workload import Evidence, Sample, Size, Workload, counted, sum_below

WORKERS = 2
MEBIBYTE = 2**20
POOLS = ("rigger_mp", "ppe", "ppe-forkserver", "ppe-spawn", "pool", "loky", "pebble", "mpire", "ray", "dask")
SETTLE = 0.5
"""Seconds that processes get to become idle."""


def start(peer: str, _size: Size) -> Sample:
    """Time from nothing to the first outcome; modules have been imported before."""
    importlib.import_module(f"bench.peers.{PEERS[peer].module}")
    importlib.import_module(PEERS[peer].needs)
    before = tally.read()
    began = time.perf_counter()
    with open_pool(peer, WORKERS) as pool:
        pool.call("noop", 7)
        first = time.perf_counter()
    ended = time.perf_counter()
    return Sample({"first_result": first - began, "stop": ended - first}, counted(before))


def expect_start(_peer: str, _size: Size) -> Evidence:
    """Expect one call."""
    return {"calls": 1, "sum": 7}


START = Workload(
    name="start",
    title="start to first outcome, 2 workers",
    about="From the constructor to the first outcome, in a fresh interpreter, imports not counted.",
    metric="first_result",
    unit="ms",
    peers=POOLS,
    run=start,
    expect=expect_start,
    full={"starts": 1},
    quick={"starts": 1},
)


def idle(peer: str, size: Size) -> Sample:
    """Measure what an idle peer holds, its caller's process included."""
    with open_pool(peer, WORKERS) as pool:
        before = tally.read()
        pool.run_each("noop", range(size["events"]))
        evidence = counted(before)
        time.sleep(SETTLE)
        caller = psutil.Process()
        engine = sum(process.memory_full_info().uss for process in caller.children(recursive=True))
        own = caller.memory_full_info().uss
    return Sample({"uss": (engine + own) / MEBIBYTE, "uss_without_caller": engine / MEBIBYTE}, evidence)


def expect_idle(_peer: str, size: Size) -> Evidence:
    """Expect the calls that woke everything up."""
    return {"calls": size["events"], "sum": sum_below(size["events"])}


MEMORY = Workload(
    name="memory",
    title="memory of an idle engine, 2 workers: sum of USS",
    about="All processes, the caller's included, after 200 no-ops: memory that belongs to one process alone.",
    metric="uss",
    unit="MiB",
    peers=POOLS,
    run=idle,
    expect=expect_idle,
    full={"events": 200},
    quick={"events": 200},
)


def endurance(_peer: str, size: Size) -> Sample:
    """Fire events that nobody waits for, and watch the memory of the caller and of the dispatcher."""
    from bench.peers.our_plugin import Tasks
    from bench.peers.ours import configuration
    from rigger_mp import Rigger

    count, watched = size["events"], []
    with Rigger(configuration(WORKERS, queue_size=10_000), plugins={"tasks": Tasks}) as rigger:
        pids = {row["role"]: row["pid"] for row in rigger.stats()["processes"]}
        processes = [psutil.Process(pids[role]) for role in ("main", "dispatcher")]
        before = tally.read()
        began = time.perf_counter()
        for value in range(count):
            rigger.fire_hook("noop", wait=False, value=value)
            if value % (count // 20) == count // 20 - 1:
                watched.append(sum(process.memory_info().rss for process in processes))
        rigger.drain()
        seconds = time.perf_counter() - began
        evidence = counted(before)
    early, late = max(watched[:5]), max(watched[-5:])
    metrics = {"growth": late / early, "rss_start": watched[0] / MEBIBYTE, "rss_end": watched[-1] / MEBIBYTE}
    return Sample({**metrics, "per_event": seconds / count}, evidence)


ENDURANCE = Workload(
    name="endurance",
    title="1,000,000 events that nobody waits for: memory, last quarter / first quarter",
    about="queue_size 10,000: the largest RSS of caller and dispatcher in the last quarter over that in the first.",
    metric="growth",
    unit="ratio",
    peers=("rigger_mp",),
    run=endurance,
    expect=expect_idle,
    full={"events": 1_000_000},
    quick={"events": 20_000},
    rounds=1,
)
