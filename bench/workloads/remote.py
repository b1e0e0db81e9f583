"""Events from another process, over TCP: rigger_mp's client and server, and riggerlib's.

What clients see: events with nothing asked back (one connection, pipelined), round trips with ``grab_result``, one
after another and with many in flight, and many connections at once.
"""

from __future__ import annotations

import asyncio
import json
import time

from bench import tally
from bench.servers import import_client, serving
from bench.workload import Evidence, Sample, Size, Workload, counted, sum_below
from bench.workloads.calls import latencies

WARM_UP = 100
PATIENCE = 60.0
"""Seconds that a server gets to do what it has accepted."""


def settle(calls: int, since: tally.Tally) -> None:
    """Wait until the server has done what it accepted."""
    deadline = time.monotonic() + PATIENCE
    while tally.read().since(since).calls < calls and time.monotonic() < deadline:
        time.sleep(0.01)


def stream(peer: str, size: Size) -> Sample:
    """Fire events without asking for results; time until all are accepted, and until all are done."""
    count = size["events"]
    with serving(peer) as port, import_client(peer)(port) as client:
        client.round_trip(0, 0)
        before = tally.read()
        start = time.perf_counter()
        client.fire_all(count)
        accepted = time.perf_counter() - start
        settle(count, before)
        done = time.perf_counter() - start
        evidence = counted(before)
    return Sample({"per_event": accepted / count, "done_per_event": done / count}, evidence)


def expect_stream(_peer: str, size: Size) -> Evidence:
    """Expect every event once."""
    return {"calls": size["events"], "sum": sum_below(size["events"])}


STREAM = Workload(
    name="remote-events",
    title="remote: events without results, one connection",
    about="A client in another process fires; time for each until all have been accepted.",
    metric="per_event",
    unit="us",
    peers=("rigger_mp", "riggerlib-client"),
    run=stream,
    expect=expect_stream,
    full={"events": 10_000},
    quick={"events": 1000},
)


def trips(peer: str, size: Size) -> Sample:
    """Fire events that ask for their result, one after another; time each."""
    count, laps, total = size["events"], [], 0
    with serving(peer) as port, import_client(peer)(port) as client:
        for _ in range(min(WARM_UP, count)):
            client.round_trip(0, 0)
        before = tally.read()
        start = time.perf_counter()
        for value in range(count):
            total += client.round_trip(value, 1)
            laps.append(time.perf_counter())
        evidence = counted(before, results=total)
    times = [later - earlier for earlier, later in zip([start, *laps], laps, strict=False)]
    return Sample(latencies(times), evidence)


def expect_trips(_peer: str, size: Size) -> Evidence:
    """Expect the right sum back from every event."""
    count = size["events"]
    return {"calls": count, "sum": sum_below(count), "results": sum_below(count) + count}


TRIPS = Workload(
    name="remote-trips",
    title="remote: round trips with grab_result",
    about="A client in another process fires and waits for the result, one after another: the median.",
    metric="median",
    unit="us",
    peers=("rigger_mp", "riggerlib-client"),
    run=trips,
    expect=expect_trips,
    full={"events": 2000},
    quick={"events": 200},
    smaller={"riggerlib-client": {"events": 10}},
)


def in_flight(peer: str, size: Size) -> Sample:
    """Fire events that ask for their result, all in flight at once."""
    count = size["events"]
    with serving(peer) as port, import_client(peer)(port) as client:
        for _ in range(WARM_UP):
            client.round_trip(0, 0)
        before = tally.read()
        start = time.perf_counter()
        total = client.fly(count)
        seconds = time.perf_counter() - start
        evidence = counted(before, results=total)
    return Sample({"per_event": seconds / count}, evidence)


IN_FLIGHT = Workload(
    name="remote-flight",
    title="remote: results of many events in flight",
    about="One connection, all events sent before the first result is read. riggerlib's client cannot do that.",
    metric="per_event",
    unit="us",
    peers=("rigger_mp",),
    run=in_flight,
    expect=expect_trips,
    full={"events": 5000},
    quick={"events": 500},
)


async def one_of_many(port: int, first: int, events: int) -> int:
    """Fire over one of many connections; return how many outcomes came."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    lines = (
        {"hook_name": "add", "data": {"a": number, "b": 1}, "id": number, "wait_for_task": True}
        for number in range(first, first + events)
    )
    writer.write(b"".join(json.dumps(line).encode() + b"\n" for line in lines))
    seen = set()
    for _ in range(events):
        reply = json.loads(await reader.readline())
        assert reply["message"] == "OK", reply
        seen.add(reply["id"])
    writer.close()
    await writer.wait_closed()
    return len(seen)


def connections(peer: str, size: Size) -> Sample:
    """Fire over many connections at once, over raw sockets."""
    many, events = size["connections"], size["events"]

    async def all_of_them(port: int) -> int:
        return sum(await asyncio.gather(*(one_of_many(port, number * events, events) for number in range(many))))

    with serving(peer) as port:
        before = tally.read()
        start = time.perf_counter()
        outcomes = asyncio.run(all_of_them(port))
        seconds = time.perf_counter() - start
        evidence = counted(before, outcomes=outcomes)
    return Sample({"per_event": seconds / (many * events)}, evidence)


def expect_connections(_peer: str, size: Size) -> Evidence:
    """Expect none lost, none twice."""
    count = size["connections"] * size["events"]
    return {"calls": count, "sum": sum_below(count), "outcomes": count}


CONNECTIONS = Workload(
    name="remote-many",
    title="remote: 1,000 connections at once, 100 events each",
    about="Plain sockets and JSON lines, outcomes awaited: time for each event.",
    metric="per_event",
    unit="us",
    peers=("rigger_mp",),
    run=connections,
    expect=expect_connections,
    full={"connections": 1000, "events": 100},
    quick={"connections": 100, "events": 20},
)
