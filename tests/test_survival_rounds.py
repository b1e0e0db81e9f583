"""A process is killed, again and again: the next event works, and no other process is restarted."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from chaos.user_kills import LIFE, METHODS, kill_user
from quiet import QuietRigger
from survival_plugins import Blocker, Clerk
from waiting import wait_for

from rigger_mp import Rigger
from rigger_mp.errors import EngineLost, WorkerLost

PLUGINS = {"blocker": Blocker, "clerk": Clerk}
ROUNDS = 20


def config(**keys: Any) -> dict[str, Any]:
    return {"workers": 3, "max_restarts": 2 * ROUNDS, "plugins": {name: {"plugin": name} for name in PLUGINS}, **keys}


@pytest.fixture
def rigger() -> Iterator[QuietRigger]:
    with QuietRigger(config(), plugins=PLUGINS) as engine:
        engine.global_data = {"kept": {"a": 1}}
        yield engine


def rows(rigger: Rigger) -> dict[str, dict[str, Any]]:
    """Return what stats() tells of each process, by name."""
    return {row["name"]: row for row in rigger.stats()["processes"]}


def restarts(rigger: Rigger) -> dict[str, tuple[int, int]]:
    return {name: (row["pid"], row["restarts"]) for name, row in rows(rigger).items()}


def kill(rigger: Rigger, name: str) -> int:
    """Kill a process by its name; return its pid."""
    pid = rows(rigger)[name]["pid"]
    assert isinstance(pid, int)
    os.kill(pid, signal.SIGKILL)
    return pid


def works(rigger: Rigger) -> bool:
    return bool(rigger.submit("fine").result(60)["pid"]) and rigger.global_data["kept"] == {"a": 1}


def changed(before: dict[str, tuple[int, int]], after: dict[str, tuple[int, int]]) -> set[str]:
    return {name for name in before if before[name] != after[name]}


def test_idle_workers(rigger: QuietRigger) -> None:
    for number in range(ROUNDS):
        before, victim = restarts(rigger), f"worker-{number % 3}"
        kill(rigger, victim)
        assert works(rigger)
        wait_for(lambda known=before: changed(known, restarts(rigger)))
        assert changed(before, restarts(rigger)) == {victim}
    assert rigger.failures == []


def test_busy_workers(rigger: QuietRigger, tmp_path: Path) -> None:
    for number in range(ROUNDS):
        before, gate = restarts(rigger), tmp_path / f"gate-{number}"
        started = tmp_path / f"gate-{number}.started"
        blocked = rigger.submit("block", gate=str(gate))
        wait_for(lambda known=started: known.exists() and known.read_text().endswith("\n"))
        victim = int(started.read_text())
        os.kill(victim, signal.SIGKILL)
        with pytest.raises(WorkerLost, match=rf"\(pid {victim}\) was killed by SIGKILL"):
            blocked.result(60)
        assert works(rigger)
        wait_for(lambda known=before: changed(known, restarts(rigger)))
        (name,) = changed(before, restarts(rigger))
        assert before[name][0] == victim


def test_the_last_worker(tmp_path: Path) -> None:
    with QuietRigger(config(workers=1), plugins=PLUGINS) as rigger:
        rigger.global_data = {"kept": {"a": 1}}
        for _ in range(ROUNDS):
            kill(rigger, "worker-0")
            assert works(rigger)
        assert rigger.failures == []


def test_the_archive(rigger: QuietRigger, tmp_path: Path) -> None:
    for number in range(ROUNDS):
        before = restarts(rigger)
        kill(rigger, "archive")
        assert works(rigger)
        rigger.fire_hook("file", log=str(tmp_path / f"log-{number}"))
        rigger.drain(60)
        assert (tmp_path / f"log-{number}").read_text() == "filed\n"
        assert changed(before, restarts(rigger)) == {"archive"}
    assert rigger.failures == []


def test_the_manager(rigger: QuietRigger) -> None:
    for number in range(ROUNDS):
        before = restarts(rigger)
        kill(rigger, "manager")
        if number % 2:
            rigger.global_data["written"] = number
            assert rigger.global_data["written"] == number
        assert works(rigger)
        assert changed(before, restarts(rigger)) == {"manager"}
    assert rigger.failures == []


def test_the_dispatcher(rigger: QuietRigger, tmp_path: Path) -> None:
    for number in range(5):
        started = tmp_path / f"gate-{number}.started"
        blocked = rigger.submit("block", gate=str(tmp_path / f"gate-{number}"))
        wait_for(started.exists)
        kill(rigger, "dispatcher")
        with pytest.raises(EngineLost):
            blocked.result(60)
        assert works(rigger)
        assert rows(rigger)["dispatcher"]["restarts"] == number + 1


def test_a_hook_that_kills_the_dispatcher_ends_in_a_named_loss(rigger: QuietRigger) -> None:
    rigger.register_hook_callback("fine", "pre", lambda: os.kill(os.getppid(), signal.SIGKILL), name="regicide")
    with pytest.raises(EngineLost):
        rigger.submit("fine").result(60)
    rigger.unregister_hook_callback("fine", "pre", "regicide")
    assert works(rigger)


@pytest.mark.parametrize("method", METHODS)
def test_nothing_outlives_the_users_process_killed_at_a_random_moment(tmp_path: Path, method: str) -> None:
    for moment in (random.uniform(0, LIFE / 2), random.uniform(LIFE / 2, LIFE)):
        kill_user(method, tmp_path, moment)  # 2 s are promised, on a machine that is not busy
