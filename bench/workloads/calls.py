"""Events that do nothing: what one costs, alone and in thousands."""

from __future__ import annotations

import statistics
import time
from itertools import repeat

from bench import tally
from bench.peers import open_pool
from bench.workload import Evidence, Sample, Size, Workload, counted, sum_below

WORKERS = 2
WARM_UP = 200


def trips(peer: str, size: Size) -> Sample:
    """Make one call after another, each awaited; time each."""
    if peer == "riggerlib-client":
        return over_client(size)
    count, laps = size["events"], []
    with open_pool(peer, WORKERS) as pool:
        pool.run_each("noop", repeat(0, WARM_UP))
        for _ in range(min(WARM_UP, count)):
            pool.call("noop", 0)
        before = tally.read()
        start = time.perf_counter()
        for value in range(count):
            pool.call("noop", value)
            laps.append(time.perf_counter())
        evidence = counted(before, outcomes=len(laps))
    times = [later - earlier for earlier, later in zip([start, *laps], laps, strict=False)]
    return Sample(latencies(times), evidence)


def over_client(size: Size) -> Sample:
    """Do it as riggerlib can: with its client, which waits for results by asking for them."""
    from bench.servers import import_client, serving

    count, laps = size["events"], []
    with serving("riggerlib-client") as port, import_client("riggerlib-client")(port) as client:
        client.client.fire_hook("noop", grab_result=True, value=0)
        before = tally.read()
        start = time.perf_counter()
        for value in range(count):
            assert client.client.fire_hook("noop", grab_result=True, value=value) is not None
            laps.append(time.perf_counter())
        evidence = counted(before, outcomes=len(laps))
    times = [later - earlier for earlier, later in zip([start, *laps], laps, strict=False)]
    return Sample(latencies(times), evidence)


def latencies(times: list[float]) -> dict[str, float]:
    """Return median, mean and 99th percentile in seconds."""
    ordered = sorted(times)
    return {
        "median": statistics.median(ordered),
        "mean": statistics.fmean(ordered),
        "p99": ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)],
    }


def stream(peer: str, size: Size) -> Sample:
    """Submit all calls one by one, then await all outcomes; time the whole."""
    count = size["events"]
    with open_pool(peer, WORKERS) as pool:
        pool.run_each("noop", repeat(0, WARM_UP))
        before = tally.read()
        start = time.perf_counter()
        outcomes = pool.run_each("noop", range(count))
        seconds = time.perf_counter() - start
        evidence = counted(before, outcomes=outcomes)
    return Sample({"per_event": seconds / count, "events_per_second": count / seconds}, evidence)


def expect_every_call(_peer: str, size: Size) -> Evidence:
    """Expect each value once."""
    count = size["events"]
    return {"calls": count, "sum": sum_below(count), "outcomes": count}


POOLS = ("rigger_mp", "relay", "ppe", "pool", "loky", "pebble", "mpire", "ray", "dask")

BLOCKING = Workload(
    name="blocking",
    title="blocking call of a no-op",
    about="One call after another, each awaited: the median round trip.",
    metric="median",
    unit="us",
    peers=(*POOLS, "riggerlib-client"),
    run=trips,
    expect=expect_every_call,
    full={"events": 5000},
    quick={"events": 500},
    smaller={"ray": {"events": 1000}, "dask": {"events": 300}, "riggerlib-client": {"events": 15}},
)

SUBMIT = Workload(
    name="submit",
    title="50,000 no-ops submitted, outcomes awaited",
    about="All calls are submitted one by one, then all outcomes awaited: time for each.",
    metric="per_event",
    unit="us",
    peers=POOLS,
    run=stream,
    expect=expect_every_call,
    full={"events": 50_000},
    quick={"events": 3000},
    smaller={"ray": {"events": 10_000}, "dask": {"events": 3000}},
)
