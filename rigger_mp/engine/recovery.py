"""What it takes to put another dispatcher in the place of one that died.

::

    the dispatcher dies
      ├─ its workers are killed, and seen dead: nothing starts any more
      ├─ the Manager has read all that was published: those are the globals to go on with
      ├─ another dispatcher starts with them, and makes the instances again
      └─ marks: started events ──▶ EngineLost        the rest ──▶ sent again, in order
                nested events and background handlers ──▶ counted, and reported as lost
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections import deque
from typing import Any

from rigger_mp.engine.blueprint import Boot, Limits
from rigger_mp.engine.manager_client import GlobalsReader
from rigger_mp.engine.marks import Marks
from rigger_mp.engine.process import open_sentinel
from rigger_mp.errors import EngineLost

KILL_TIME = 10.0
"""Seconds that the kernel may take to end a killed process."""

Globals = tuple[int, Any]
"""Version and chains of the global namespace."""


class Recovery:
    """Counts how often the dispatcher died, and collects what it left behind.

    Args:
        limits: how often it may die in a row.
        marks: the memory that outlives it.

    Attributes:
        limits: how often it may die in a row.
        restarts: how often it was replaced.
        detail: what happened to events that had started.
    """

    detail = "the engine's dispatcher process died"

    def __init__(self, limits: Limits, marks: Marks) -> None:
        self.limits = limits
        self._marks = marks
        self._deaths: deque[float] = deque()
        self._left = (0, 0)
        self.restarts = 0

    def refuse(self, finished: bool, was_ready: bool) -> str:
        """Return why there will be no other dispatcher, ``""`` if there will.

        Args:
            finished: it said that everything accepted has ended.
            was_ready: it had made the instances.
        """
        if finished:
            return "the engine was stopped"
        if not was_ready:
            return self.detail
        now = time.monotonic()
        self._deaths.append(now)
        while self._deaths[0] < now - self.limits.restart_period:
            self._deaths.popleft()
        if len(self._deaths) <= self.limits.max_restarts:
            return ""
        return f"{self.detail} {len(self._deaths)} times within {self.limits.restart_period:g} s (max_restarts)"

    def end_workers(self) -> None:
        """Kill the dispatcher's processes with what they started, and wait until they can run nothing more."""
        sentinels = {pid: open_sentinel(pid) for pid in self._marks.pids()}
        for pid in sentinels:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, signal.SIGKILL)
        deadline = time.monotonic() + KILL_TIME
        for pid, sentinel in sentinels.items():
            _wait_for_end(pid, sentinel, deadline)
        self._left = self._marks.take_unfinished()

    def take_globals(self, reader: GlobalsReader, latest: int) -> tuple[Globals, str]:
        """Return the globals to go on with, and what is wrong with them, ``""`` if nothing is.

        Args:
            reader: reads them from the Manager.
            latest: the version that the user's process has seen.
        """
        try:
            version, chains = reader.settle()
        except EngineLost as error:
            version, chains = 0, {}
            problem = f"the global namespace is lost: {error}"
        else:
            problem = "" if version >= latest else "the global namespace is lost: dispatcher and Manager died at once"
        return (max(version, latest), chains), problem

    def next_boot(self, boot: Boot, globals_: Globals, problem: str) -> Boot:
        """Return what the next dispatcher is told."""
        self.restarts += 1
        return boot._replace(globals=globals_, republish=bool(problem))

    def losses(self, problem: str) -> list[EngineLost]:
        """Return what to report that nobody waits for; ``problem`` is that of the globals."""
        (nested, background), self._left = self._left, (0, 0)
        counted = [
            f"{number} {what}{'' if number == 1 else 's'}"
            for number, what in ((nested, "nested event"), (background, "background handler"))
            if number
        ]
        texts = [f"{self.detail} before {' and '.join(counted)} had ended"] if counted else []
        return [EngineLost(text) for text in [*texts, problem] if text]


def _wait_for_end(pid: int, sentinel: int | None, deadline: float) -> None:
    remaining = max(0.0, deadline - time.monotonic())
    if sentinel is not None:
        poller = select.poll()
        poller.register(sentinel, select.POLLIN)
        poller.poll(remaining * 1000)
        os.close(sentinel)
        return
    import psutil  # noqa: PLC0415 - where the kernel has no descriptors of processes

    with contextlib.suppress(psutil.Error):
        psutil.Process(pid).wait(remaining)
