"""Work that takes CPU time: how much of two cores is used, and who waits for whom."""

from __future__ import annotations

import multiprocessing
import statistics
import time
from typing import Any

from bench import tally
from bench.peers import open_pool
from bench.peers.engine import Program, open_engine
from bench.tasks import burn, churn
from bench.workload import Evidence, Sample, Size, Workload, counted

WORKERS = 2
POOLS = ("ppe", "pool", "loky", "pebble", "mpire", "ray", "dask")


def rounds(size: Size, milliseconds: int | None = None) -> int:
    """Return how many rounds of the calibrated loop a hook runs."""
    return size["rounds_per_ms"] * (milliseconds if milliseconds is not None else size["milliseconds"])


def burn_many(peer: str, size: Size) -> Sample:
    """Run equal hooks, all submitted at once; time the whole."""
    count, value = size["calls"], rounds(size)
    if peer == "serial":
        return _loop(count, value)
    if peer == "bare":
        return _bare(count, value)
    with open_pool(peer, WORKERS) as pool:
        pool.run_each("burn", [1] * 50)
        pool.run_each("burn", [value] * 2 * WORKERS)
        before = tally.read()
        start = time.perf_counter()
        outcomes = pool.run_each("burn", [value] * count)
        seconds = time.perf_counter() - start
        return Sample({"per_call": seconds / count}, counted(before, outcomes=outcomes))


def _loop(count: int, value: int) -> Sample:
    before = tally.read()
    start = time.perf_counter()
    for _ in range(count):
        burn(value)
    seconds = time.perf_counter() - start
    return Sample({"per_call": seconds / count}, counted(before, outcomes=count))


def _bare(count: int, value: int) -> Sample:
    """Share the calls out among processes that exist already: what the machine can do at most."""
    context = multiprocessing.get_context("fork")
    gate = context.Barrier(WORKERS + 1)

    def work(share: int) -> None:
        gate.wait()
        for _ in range(share):
            burn(value)

    shares = [count // WORKERS + (number < count % WORKERS) for number in range(WORKERS)]
    processes = [context.Process(target=work, args=(share,)) for share in shares]
    for process in processes:
        process.start()
    before = tally.read()
    gate.wait()
    start = time.perf_counter()
    for process in processes:
        process.join()
    seconds = time.perf_counter() - start
    return Sample({"per_call": seconds / count}, counted(before, outcomes=count))


def expect_burns(_peer: str, size: Size) -> Evidence:
    """Expect every call to have computed the same, to its end."""
    count = size["calls"]
    return {"calls": count, "sum": count * churn(rounds(size)), "outcomes": count}


def _cpu_workload(milliseconds: int, full: int, quick: int) -> Workload:
    return Workload(
        name=f"cpu-{milliseconds}ms",
        title=f"CPU-bound hooks of {milliseconds} ms, 2 workers",
        about=f"{full} hooks submitted at once; half of the serial loop's time is the ideal.",
        metric="per_call",
        unit="ms",
        peers=("rigger_mp", "serial", "bare", *POOLS),
        run=burn_many,
        expect=expect_burns,
        full={"calls": full, "milliseconds": milliseconds},
        quick={"calls": quick, "milliseconds": milliseconds},
    )


CPU_10MS = _cpu_workload(10, 300, 30)
CPU_1MS = _cpu_workload(1, 2000, 200)


def fan_out(peer: str, size: Size) -> Sample:
    """Fire events that several plugins answer, each awaited; time each."""
    copies, events, value = size["plugins"], size["events"], rounds(size)
    if peer == "serial":
        return Sample({"per_event": _loop(events * copies, value).metrics["per_call"] * copies}, _fan_evidence(size))
    if peer.startswith("rigger"):
        return _fan_out_engine(peer, size, value)
    with open_pool(peer, WORKERS) as pool:
        pool.broadcast("burn", 1, copies)
        before = tally.read()
        start = time.perf_counter()
        for _ in range(events):
            pool.broadcast("burn", value, copies)
        return Sample({"per_event": (time.perf_counter() - start) / events}, counted(before))


def _fan_evidence(_size: Size) -> Evidence:
    return counted(tally.Tally(0, 0))


def _fan_out_engine(peer: str, size: Size, value: int) -> Sample:
    program = Program({f"plugin-{number}": {"event": burn} for number in range(size["plugins"])}, stateless=True)
    with open_engine(peer, program) as engine:
        engine.fire_and_wait("event", value=value)
        before = tally.read()
        start = time.perf_counter()
        for _ in range(size["events"]):
            engine.fire_and_wait("event", value=value)
        return Sample({"per_event": (time.perf_counter() - start) / size["events"]}, counted(before))


def expect_fan_out(_peer: str, size: Size) -> Evidence:
    """Expect every plugin to have answered every event."""
    calls = size["plugins"] * size["events"]
    return {"calls": calls, "sum": calls * churn(rounds(size))}


FAN_OUT = Workload(
    name="fan-out",
    title="one event, 4 stateless CPU-bound plugins of 50 ms",
    about="Each event is awaited. rigger_mp runs the plugins in parallel, with threaded: false one after another.",
    metric="per_event",
    unit="ms",
    peers=("rigger_mp", "rigger_mp-sequential", "serial", "ppe", "pool", "riggerlib", "riggerlib-threaded"),
    run=fan_out,
    expect=expect_fan_out,
    full={"events": 10, "plugins": 4, "milliseconds": 50},
    quick={"events": 1, "plugins": 4, "milliseconds": 50},
)


def mixed(peer: str, size: Size) -> Sample:
    """Time short calls, alone, then while a long call is always running on one of two workers."""
    short, long, count = rounds(size), rounds(size, size["long_milliseconds"]), size["calls"]
    with open_pool(peer, WORKERS) as pool:
        pool.run_each("burn", [short] * 100)
        before = tally.read()
        alone = [_lap(pool, short) for _ in range(count)]
        beside, longs, handle = [], 1, pool.submit("burn", long)
        deadline = time.perf_counter() + 0.9 * size["long_milliseconds"] / 1000
        for _ in range(count):
            beside.append(_lap(pool, short))
            if time.perf_counter() > deadline:
                pool.result(handle)
                longs, handle = longs + 1, pool.submit("burn", long)
                deadline = time.perf_counter() + 0.9 * size["long_milliseconds"] / 1000
        pool.result(handle)
        evidence = counted(before)
    evidence["sum"] = (evidence["sum"] - longs * churn(long)) % 2**64
    evidence["calls"] -= longs
    medians = {"alone": statistics.median(alone), "median": statistics.median(beside)}
    return Sample({**medians, "slowdown": medians["median"] / medians["alone"]}, evidence)


def _lap(pool: Any, value: int) -> float:
    start = time.perf_counter()
    pool.call("burn", value)
    return time.perf_counter() - start


def expect_mixed(_peer: str, size: Size) -> Evidence:
    """Expect all short calls; the long ones have been taken off."""
    calls = 2 * size["calls"]
    return {"calls": calls, "sum": calls * churn(rounds(size))}


MIXED = Workload(
    name="mixed",
    title="hooks of 1 ms beside hooks of 500 ms",
    about="One long call is always running, one worker is free; the median latency of short calls, one after another.",
    metric="median",
    unit="ms",
    peers=("rigger_mp", "ppe", "pool", "loky", "pebble", "mpire", "ray", "dask"),
    run=mixed,
    expect=expect_mixed,
    full={"calls": 1000, "milliseconds": 1, "long_milliseconds": 500},
    quick={"calls": 100, "milliseconds": 1, "long_milliseconds": 500},
    smaller={"dask": {"calls": 300}, "ray": {"calls": 500}, "mpire": {"calls": 10}},
)
