"""The killer: sends SIGKILL, or SIGSTOP and a little later SIGCONT, to random processes of an engine."""

from __future__ import annotations

import heapq
import os
import random
import signal
import threading
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any

import psutil

from rigger_mp import Rigger
from rigger_mp.errors import RiggerError

from .ledger import Kill

SHORTEST_STOP, LONGEST_STOP = 0.005, 0.5
WEIGHTS = (("worker", 10.0), ("archive", 3.0), ("manager", 1.0))
"""How often a process of each role is hit, relative to the others."""
DISPATCHER_WEIGHT = ("dispatcher", 0.3)


@dataclass(frozen=True, slots=True)
class Habits:
    """How a killer goes about it.

    Attributes:
        pause: most seconds between two signals.
        stop_share: how many of them are SIGSTOP.
        weights: how often a process of each role is hit, relative to the others.
    """

    pause: float = 0.3
    stop_share: float = 0.3
    weights: tuple[tuple[str, float], ...] = WEIGHTS


class Killer(threading.Thread):
    """A thread that kills until it is told to stop.

    Args:
        rigger: whose processes.
        kills: gets every signal sent, before it is sent.
        rng: decides everything.
        habits: see :class:`Habits`.
    """

    def __init__(self, rigger: Rigger, kills: list[Kill], rng: random.Random, habits: Habits) -> None:
        super().__init__(name="killer", daemon=True)
        self._rigger = rigger
        self._kills = kills
        self._rng = rng
        self._habits = habits
        self._done = threading.Event()
        self._stopped: list[tuple[float, int, psutil.Process, str]] = []
        self.seen: set[psutil.Process] = set()

    def run(self) -> None:
        """Kill."""
        next_kill = time.monotonic()
        while not self._done.is_set():
            self._resume(time.monotonic())
            if time.monotonic() >= next_kill:
                self._strike()
                next_kill = time.monotonic() + self._rng.uniform(0, self._habits.pause)
            wake = min([next_kill, *(entry[0] for entry in self._stopped[:1])])
            self._done.wait(max(0.0, wake - time.monotonic()))
        self._resume(float("inf"))

    def stop(self) -> None:
        """Stop killing, and let everything that was stopped go on."""
        self._done.set()
        self.join()

    def counts(self) -> Counter[str]:
        """Return how often each role got each signal."""
        return Counter(f"{kill.signal} {kill.role}" for kill in list(self._kills))

    def _strike(self) -> None:
        targets = self._targets()
        if not targets:
            return
        weights = dict(self._habits.weights)
        row = self._rng.choices(targets, [weights[row["role"]] for row in targets])[0]
        stops = self._rng.random() < self._habits.stop_share
        process = child_of_this(row["pid"])
        if process is None or not self._may_hit(row["role"], stops):
            return
        self.seen.add(process)
        number = signal.SIGSTOP if stops else signal.SIGKILL
        self._kills.append(Kill(process.pid, row["role"], number.name, time.monotonic()))
        try:
            process.send_signal(number)
        except psutil.NoSuchProcess:
            return  # it has ended by itself
        if stops:
            self._let_stand(process, row["role"])

    def _may_hit(self, role: str, stops: bool) -> bool:
        """Dispatcher and Manager may not die at once: see to it that the other one has all the globals."""
        if any(entry[3] == "manager" for entry in self._stopped):
            return role != "dispatcher"  # the Manager could not tell
        if role == "manager" or (role == "dispatcher" and not stops):
            try:
                return bool(self._rigger.global_data["total"] >= 0)
            except RiggerError:
                return False
        return True

    def _let_stand(self, process: psutil.Process, role: str) -> None:
        seconds = self._rng.uniform(SHORTEST_STOP, LONGEST_STOP)
        if role == "dispatcher":  # nobody could tell the next target
            self._done.wait(seconds)
            _continue(process)
        else:
            heapq.heappush(self._stopped, (time.monotonic() + seconds, process.pid, process, role))

    def _resume(self, now: float) -> None:
        while self._stopped and self._stopped[0][0] <= now:
            _continue(heapq.heappop(self._stopped)[2])

    def _targets(self) -> list[dict[str, Any]]:
        weights = dict(self._habits.weights)
        try:
            rows = self._rigger.stats()["processes"]
        except RiggerError:
            return []
        return [row for row in rows if row["pid"] and row["alive"] and weights.get(row["role"])]


def child_of_this(pid: int) -> psutil.Process | None:
    """Return a process if it descends from this one, else ``None``."""
    try:
        process = psutil.Process(pid)
        return process if any(parent.pid == os.getpid() for parent in process.parents()) else None
    except psutil.Error:
        return None


def _continue(process: psutil.Process) -> None:
    try:
        process.send_signal(signal.SIGCONT)
    except psutil.Error:
        return  # it has been killed meanwhile
