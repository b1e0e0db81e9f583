"""Where each microsecond goes: real timestamps of a blocking event, CPU time of each process, and the bare steps.

All processes of a machine read one monotonic clock, so a function that notes when it runs splits a round trip into the
way there and the way back. CPU time and sleeps of each process are the kernel's count. The bare steps are measured
alone, with the primitives that the engine uses.
"""

from __future__ import annotations

import multiprocessing
import os
import select
import socket
import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import repeat
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import psutil

from bench import tally
from bench.peers import open_pool
from bench.workload import Evidence, Sample, Size, Workload, counted, sum_below
from bench.workloads.calls import expect_every_call

WORKERS = 2
WARM_UP = 300
PAUSE = 0.0005
"""Seconds between hops, so that each finds its receiver asleep, as a blocking event does."""

LABELS = {
    "round_trip": ("round trip, median", "us"),
    "there": ("caller → function runs", "us"),
    "back": ("function has run → caller has the outcome", "us"),
    "per_event": ("time for each event", "us"),
    "cpu_all": ("CPU of all processes, each event", "us"),
    "cpu_caller": ("— the caller's process", "us"),
    "cpu_dispatcher": ("— dispatcher (relay: the middle process)", "us"),
    "cpu_workers": ("— workers", "us"),
    "cpu_manager": ("— Manager", "us"),
    "sleeps_all": ("times a thread went to sleep, each event", "ratio"),
    "sleeps_caller": ("— the caller's process", "ratio"),
    "sleeps_dispatcher": ("— dispatcher", "ratio"),
    "sleeps_workers": ("— workers", "ratio"),
    "sleeps_manager": ("— Manager", "ratio"),
    "encode": ("encode one small argument", "us"),
    "pickle": ("the same by pickle alone", "us"),
    "queue_put": ("mp.Queue.put, in the caller", "us"),
    "queue_hop": ("mp.Queue: put → another process has it", "us"),
    "pipe_write": ("write a small frame to a pipe", "us"),
    "pipe_hop": ("pipe: write → another process has it", "us"),
    "poll_hop": ("socket: write → another process, asleep in epoll, has it", "us"),
    "thread_hop": ("condition: notify → another thread runs", "us"),
    "future": ("make a future, set and read its result", "us"),
    "function": ("the no-op itself, with its count", "us"),
}
"""What tables call each metric, and its unit."""


def role(process: psutil.Process) -> str:
    """Return which part a process plays."""
    name = process.name()
    if name.startswith("rigger-"):
        return "manager" if name == "rigger-manager" else "dispatcher"
    return "dispatcher" if process.children() else "workers"


def load_of(pid: int) -> tuple[int, int]:
    """Return the CPU time of a process in nanoseconds, and how often its threads went to sleep."""
    nanoseconds = sleeps = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        nanoseconds += int((task / "schedstat").read_text().split()[0])
        status = (task / "status").read_text()
        sleeps += int(status.split("\nvoluntary_ctxt_switches:")[1].split()[0])
    return nanoseconds, sleeps


def loads() -> Counter[str]:
    """Return CPU time and sleeps so far of the caller and of all its descendants, by part."""
    caller = psutil.Process()
    parts = [(caller.pid, "caller"), *((child.pid, role(child)) for child in caller.children(recursive=True))]
    total: Counter[str] = Counter()
    for pid, part in parts:
        nanoseconds, sleeps = load_of(pid)
        total[f"cpu_{part}"] += nanoseconds
        total[f"sleeps_{part}"] += sleeps
        total["cpu_all"] += nanoseconds
        total["sleeps_all"] += sleeps
    return total


def per_event(before: Counter[str], after: Counter[str], events: int) -> dict[str, float]:
    """Return the loads of each event: CPU in seconds, sleeps as a number."""
    scale = {"cpu": 1e-9, "sleeps": 1.0}
    return {key: (after[key] - before[key]) * scale[key.split("_")[0]] / events for key in after}


def split_trips(peer: str, size: Size) -> Sample:
    """Time round trips, and when within them the function ran."""
    count = size["events"]
    there, back, whole = [], [], []
    with open_pool(peer, WORKERS) as pool:
        pool.run_each("stamp", repeat(0, WARM_UP))
        for _ in range(WARM_UP):
            pool.call("stamp", 0)
        stamps, before, busy = tally.Stamps(), tally.read(), loads()
        for value in range(count):
            start = time.monotonic_ns()
            pool.call("stamp", value)
            end = time.monotonic_ns()
            ran = stamps.latest()
            there.append(ran - start)
            back.append(end - ran)
            whole.append(end - start)
        used = per_event(busy, loads(), count)
        evidence = counted(before, outcomes=len(whole))
    medians = {"round_trip": whole, "there": there, "back": back}
    return Sample({name: statistics.median(times) / 1e9 for name, times in medians.items()} | used, evidence)


BLOCKING = Workload(
    name="profile-blocking",
    title="a blocking event",
    about="The way there, the way back, and what each process does for it.",
    metric="round_trip",
    unit="us",
    peers=("rigger_mp", "relay", "ppe", "pool"),
    run=split_trips,
    expect=expect_every_call,
    full={"events": 5000},
    quick={"events": 300},
    group="profile",
)


def busy_stream(peer: str, size: Size) -> Sample:
    """Submit all, await all, and see what each process did for it."""
    count = size["events"]
    with open_pool(peer, WORKERS) as pool:
        pool.run_each("noop", repeat(0, WARM_UP))
        before, busy = tally.read(), loads()
        start = time.perf_counter()
        outcomes = pool.run_each("noop", range(count))
        seconds = time.perf_counter() - start
        used = per_event(busy, loads(), count)
        evidence = counted(before, outcomes=outcomes)
    return Sample({"per_event": seconds / count, **used}, evidence)


SUBMIT = Workload(
    name="profile-submit",
    title="submitted events",
    about="Throughput: what each process does for an event.",
    metric="per_event",
    unit="us",
    peers=("rigger_mp", "relay", "ppe", "pool"),
    run=busy_stream,
    expect=expect_every_call,
    full={"events": 50_000},
    quick={"events": 2000},
    group="profile",
)


def bare_steps(_peer: str, size: Size) -> Sample:
    """Measure each primitive by itself."""
    count = size["repeats"]
    before = tally.read()
    metrics = {
        **costs_in_process(count),
        **queue_hops(count),
        **pipe_hops(count),
        "poll_hop": poll_hop(count),
        "thread_hop": thread_hop(count),
    }
    return Sample(metrics, counted(before))


def expect_steps(_peer: str, size: Size) -> Evidence:
    """Expect the calls of the function that was timed."""
    return {"calls": size["repeats"], "sum": sum_below(size["repeats"])}


def costs_in_process(count: int) -> dict[str, float]:
    """Return what the steps take that need no other thread."""
    import pickle
    from concurrent.futures import Future

    from bench.tasks import noop
    from rigger_mp.encoding import dump_arguments

    def use_future(value: int) -> None:
        future: Future[int] = Future()
        future.set_result(value)
        future.result()

    return {
        "encode": mean_time(lambda value: dump_arguments({"value": value}), count),
        "pickle": mean_time(lambda value: pickle.dumps({"value": value}, pickle.HIGHEST_PROTOCOL), count),
        "future": mean_time(use_future, count),
        "function": mean_time(noop, count),
    }


def mean_time(function: Callable[[int], object], count: int) -> float:
    """Return how long a call takes, in seconds."""
    start = time.perf_counter()
    for value in range(count):
        function(value)
    return (time.perf_counter() - start) / count


def hops(count: int, send: Callable[[], object], arrived: Callable[[], int]) -> dict[str, float]:
    """Send again and again to a receiver that has gone to sleep; return the medians of sending and of arriving."""
    sending, arriving = [], []
    for _ in range(count):
        time.sleep(PAUSE)
        start = time.monotonic_ns()
        send()
        sending.append(time.monotonic_ns() - start)
        arriving.append(arrived() - start)
    return {"send": statistics.median(sending) / 1e9, "hop": statistics.median(arriving) / 1e9}


@contextmanager
def receiving(receive: Callable[[], object]) -> Iterator[Callable[[], int]]:
    """Run a process that receives for ever; give a function that returns when it had received."""
    back, out = os.pipe()

    def loop() -> None:
        while True:
            receive()
            os.write(out, time.monotonic_ns().to_bytes(8))

    process = multiprocessing.get_context("fork").Process(target=loop, daemon=True)
    process.start()
    try:
        yield lambda: int.from_bytes(os.read(back, 8))
    finally:
        process.kill()
        process.join()
        os.close(back)
        os.close(out)


def queue_hops(count: int) -> dict[str, float]:
    """Measure ``multiprocessing.Queue``, whose feeder thread is one more hop."""
    queue: Any = multiprocessing.get_context("fork").Queue()
    with receiving(queue.get) as arrived:
        result = hops(count, lambda: queue.put(b"x"), arrived)
    queue.close()
    queue.join_thread()
    return {"queue_put": result["send"], "queue_hop": result["hop"]}


def pipe_hops(count: int) -> dict[str, float]:
    """Measure a pipe whose reader is asleep in ``read``."""
    reading, writing = os.pipe()
    with receiving(lambda: os.read(reading, 64)) as arrived:
        result = hops(count, lambda: os.write(writing, b"x" * 32), arrived)
    os.close(reading)
    os.close(writing)
    return {"pipe_write": result["send"], "pipe_hop": result["hop"]}


def poll_hop(count: int) -> float:
    """Measure a socket whose reader is asleep in ``epoll``, as the dispatcher is."""
    near, far = socket.socketpair()

    def receive() -> bytes:
        poller.poll()
        return far.recv(64)

    with select.epoll() as poller, near, far:
        poller.register(far.fileno(), select.EPOLLIN)
        with receiving(receive) as arrived:
            return hops(count, lambda: near.send(b"x" * 32), arrived)["hop"]


def thread_hop(count: int) -> float:
    """Measure a condition on which another thread of this process waits."""
    condition, arrivals = threading.Condition(), SimpleQueue[int]()

    def loop() -> None:
        with condition:
            for _ in range(count):
                condition.wait()
                arrivals.put(time.monotonic_ns())

    def notify() -> None:
        with condition:
            condition.notify()

    thread = threading.Thread(target=loop)
    thread.start()
    hop = hops(count, notify, arrivals.get)["hop"]
    thread.join()
    return hop


STEPS = Workload(
    name="profile-steps",
    title="steps, each alone",
    about="The primitives that an engine on processes is made of, measured by themselves.",
    metric="pipe_hop",
    unit="us",
    peers=("rigger_mp",),
    run=bare_steps,
    expect=expect_steps,
    full={"repeats": 2000},
    quick={"repeats": 200},
    group="profile",
)
