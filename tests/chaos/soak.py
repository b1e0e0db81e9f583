"""Many events through recycled workers: is the memory of main process and dispatcher flat?

Three kinds of events take turns: ordered ones that update the globals, concurrent ones with a result, and
nested ones. Memory is sampled at equal distances; *flat* means that after the first tenth the largest sample
exceeds the one at that point by no more than a fixed allowance.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from rigger_mp import Rigger, RiggerBasePlugin

ALLOWANCE = 4 << 20
"""Bytes that memory may grow after the first tenth: allocators do not give everything back."""
MOST_PENDING = 2000
SAMPLES = 40
ROLES = ("main", "dispatcher", "manager")

EPILOG = """
examples:
  python -m tests.chaos.soak                        2,000,000 events
  python -m tests.chaos.soak --events 100000        a quick look
  python -m tests.chaos.soak --tasks-per-child 50   replace workers more often

The exit status is 1 if memory was not flat.
"""


class Soaker(RiggerBasePlugin):
    """Stateless: any worker answers."""

    stateless = True

    def plugin_initialize(self) -> None:
        self.register_plugin_hook("answer")
        self.register_plugin_hook("parent")
        self.register_plugin_hook("child")

    def answer(self, number: int) -> Any:
        return {"answer": number + 1}, None

    def parent(self, number: int) -> None:
        self.fire_hook("child", number=number)

    def child(self, number: int) -> Any:
        return None, {"latest": {str(number % 100): number}}


class Counter(RiggerBasePlugin):
    """Stateful, so ordered."""

    def plugin_initialize(self) -> None:
        self.register_plugin_hook("count")

    def count(self, number: int, total: int) -> Any:
        return {"answer": number + 1}, {"total": total + 1, "recent": {str(number % 1000): "x" * 100}}


@dataclass(frozen=True, slots=True)
class Sample:
    """Resident bytes by role after so many events, and how often workers were replaced."""

    events: int
    seconds: float
    memory: dict[str, int]
    replaced: int


def soak(events: int, workers: int, tasks_per_child: int) -> list[Sample]:
    """Fire events and return the samples."""
    config = {
        "workers": workers,
        "max_tasks_per_child": tasks_per_child,
        "plugins": {"soaker": {"plugin": "soaker"}, "counter": {"plugin": "counter"}},
    }
    samples: list[Sample] = []
    pending: deque[Future[Any]] = deque()
    began = time.monotonic()
    with Rigger(config, plugins={"soaker": Soaker, "counter": Counter}) as rigger:
        rigger.global_data = {"total": 0}
        for number in range(events):
            pending.append(rigger.submit(("answer", "count", "answer", "parent")[number // 50 % 4], number=number))
            if len(pending) > MOST_PENDING:
                pending.popleft().result()
            if number % max(1, events // SAMPLES) == 0:
                samples.append(_sample(rigger, number, began))
                print(_row(samples[-1]), flush=True)
        while pending:
            pending.popleft().result()
        rigger.drain()
        samples.append(_sample(rigger, events, began))
        print(_row(samples[-1]))
        total = rigger.global_data["total"]
    expected = sum(1 for number in range(events) if number // 50 % 4 == 1)
    if total != expected:
        raise SystemExit(f"{expected} events counted, and the total is {total}")
    return samples


def _sample(rigger: Rigger, events: int, began: float) -> Sample:
    rows = rigger.stats()["processes"]
    memory = {row["role"]: row["rss_bytes"] for row in rows if row["role"] in ROLES}
    return Sample(events, time.monotonic() - began, memory, sum(row["restarts"] for row in rows))


def _row(sample: Sample) -> str:
    memory = "".join(f"{sample.memory[role] / (1 << 20):12.1f}" for role in ROLES)
    return f"{sample.events:>10}{sample.seconds:>9.0f}{memory}{sample.replaced:>12}"


def growth(samples: Sequence[Sample]) -> dict[str, int]:
    """Return how many bytes each role's memory grew at most after the first tenth of the events."""
    settled = [sample for sample in samples if sample.events >= samples[-1].events / 10]
    return {role: max(sample.memory[role] for sample in settled) - settled[0].memory[role] for role in ROLES}


def main(arguments: Sequence[str] | None = None) -> int:
    """Soak; return the exit status."""
    parser = argparse.ArgumentParser(
        "python -m tests.chaos.soak", description=__doc__, epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--events", type=int, default=2_000_000, help="how many (default: 2000000)")
    parser.add_argument("--workers", type=int, default=2, help="worker processes (default: 2)")
    parser.add_argument("--tasks-per-child", type=int, default=1000, help="max_tasks_per_child (default: 1000)")
    options = parser.parse_args(arguments)
    print(f"{'events':>10}{'seconds':>9}" + "".join(f"{role:>12}" for role in ROLES) + f"{'replaced':>12}  (MiB)")
    grown = growth(soak(options.events, options.workers, options.tasks_per_child))
    print("grown after the first tenth: " + ", ".join(f"{role} {grown[role] / (1 << 20):.1f} MiB" for role in ROLES))
    flat = all(grown[role] <= ALLOWANCE for role in ("main", "dispatcher"))
    print("flat" if flat else f"not flat: more than {ALLOWANCE >> 20} MiB")
    return 0 if flat else 1


if __name__ == "__main__":
    sys.exit(main())
