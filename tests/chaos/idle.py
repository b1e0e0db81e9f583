"""How soon the engine answers after an idle worker was killed."""

from __future__ import annotations

import os
import signal
import statistics
import time
from typing import Any

from rigger_mp import Rigger, RiggerBasePlugin

WORKERS = 4


class Responder(RiggerBasePlugin):
    """Answers at once, from any worker."""

    stateless = True

    def plugin_initialize(self) -> None:
        self.register_plugin_hook("answer")

    def answer(self) -> Any:
        return {"pid": os.getpid()}, None


def restarts(rigger: Rigger) -> dict[str, tuple[int, int]]:
    """Return pid and number of restarts of each worker by name."""
    rows = rigger.stats()["processes"]
    return {row["name"]: (row["pid"], row["restarts"]) for row in rows if row["role"] == "worker"}


def measure_idle_kills(rounds: int) -> int:
    """Kill one idle worker after another, and print how soon the next event was answered; 1 if others suffered."""
    config = {"workers": WORKERS, "max_restarts": rounds, "plugins": {"responder": {"plugin": "responder"}}}
    seconds: list[float] = []
    disturbed = 0
    with Rigger(config, plugins={"responder": Responder}) as rigger:
        rigger.fire_hook("answer")
        for number in range(rounds):
            before = restarts(rigger)
            name = f"worker-{number % WORKERS}"
            os.kill(before[name][0], signal.SIGKILL)
            start = time.monotonic()
            rigger.fire_hook("answer")
            seconds.append(time.monotonic() - start)
            after = _wait_for_restart(rigger, name, before[name][1])
            rigger.configure_plugin("responder")  # which every worker does, so that all are there again
            disturbed += any(after[other] != before[other] for other in before if other != name)
    milliseconds = sorted(1000 * value for value in seconds)
    print(f"{rounds} idle workers killed, one of {WORKERS} each time; the next event was answered within")
    late = milliseconds[min(len(milliseconds) - 1, int(0.99 * len(milliseconds)))]
    print(f"  median {statistics.median(milliseconds):.2f} ms, 99 % {late:.2f} ms, most {milliseconds[-1]:.2f} ms")
    print(f"rounds in which another worker was restarted: {disturbed}")
    return 1 if disturbed else 0


def _wait_for_restart(rigger: Rigger, name: str, known: int) -> dict[str, tuple[int, int]]:
    while True:
        now = restarts(rigger)
        if now[name][1] > known:
            return now
        time.sleep(0.002)
