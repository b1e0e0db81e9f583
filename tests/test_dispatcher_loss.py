"""The dispatcher is killed: another takes its place, and every accepted event still has one outcome."""

from __future__ import annotations

import os
import signal
from collections import Counter as Count
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest
from quiet import QuietRigger
from retry_plugins import Moody
from waiting import DEADLINE, wait_for

from rigger_mp import Rigger, RiggerBasePlugin
from rigger_mp.errors import EngineLost

GATE_OPEN = ".open"


class Steps(RiggerBasePlugin):
    """Ordered: writes what it does to a file, and waits at a gate when told to."""

    def plugin_initialize(self) -> None:
        self.added = 0
        for event in ("step", "hold", "spread"):
            self.register_plugin_hook(event)

    def configure(self, add: int) -> None:
        self.added += add

    def step(self, number: int, ledger: str) -> Any:
        with Path(ledger).open("a", encoding="utf-8") as file:
            file.write(f"{number}\n")
        return {"number": number + self.added}, {"steps": {str(number): number}}

    def hold(self, ledger: str) -> Any:
        self.step(-1, ledger)
        wait_for(Path(ledger).with_suffix(GATE_OPEN).exists)

    def spread(self, count: int, ledger: str) -> None:
        for number in range(count):
            self.fire_hook("step", number=1000 + number, ledger=ledger)


class Later(RiggerBasePlugin):
    """Background."""

    def plugin_initialize(self) -> None:
        self.register_plugin_hook("later")

    def later(self, ledger: str) -> None:
        Path(ledger).write_text("later", encoding="utf-8")
        wait_for(Path(ledger).with_suffix(GATE_OPEN).exists)


PLUGINS = {"steps": Steps, "later": Later}


def config(**options: Any) -> dict[str, Any]:
    return {
        "workers": 2,
        "max_restarts": 100,
        "plugins": {"steps": {"plugin": "steps"}, "later": {"plugin": "later", "background": True}},
        **options,
    }


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    path = tmp_path / "ledger.txt"
    path.touch()
    return path


def lines(ledger: Path) -> list[int]:
    return [int(line) for line in ledger.read_text(encoding="utf-8").split()]


def process(rigger: Rigger, role: str) -> dict[str, Any]:
    row: dict[str, Any] = next(row for row in rigger.stats()["processes"] if row["role"] == role)
    return row


def kill(rigger: Rigger, role: str = "dispatcher") -> None:
    os.kill(process(rigger, role)["pid"], signal.SIGKILL)


def test_what_had_not_started_is_run_once_and_in_order(ledger: Path) -> None:
    with QuietRigger(config(), plugins=PLUGINS) as rigger:
        started = rigger.submit("hold", ledger=str(ledger))
        wait_for(lambda: lines(ledger) == [-1])
        rest = [rigger.submit("step", number=number, ledger=str(ledger)) for number in range(200)]
        kill(rigger)
        with pytest.raises(EngineLost, match=r"hold.*dispatcher process died"):
            started.result(DEADLINE)
        assert [future.result(DEADLINE)["number"] for future in rest] == list(range(200))
        assert lines(ledger) == [-1, *range(200)]
        assert rigger.global_data["steps"] == {str(number): number for number in range(200)}


def test_globals_survive_and_so_do_the_results_that_refer_to_them(ledger: Path) -> None:
    with QuietRigger(config(), plugins=PLUGINS) as rigger:
        rigger.global_data["kept"] = {"list": [1, 2]}
        first = rigger.fire_hook("step", number=1, ledger=str(ledger))
        kill(rigger)
        second = rigger.fire_hook("step", number=2, ledger=str(ledger))
        assert first is not None
        assert second is not None
        assert first["steps"] == {"1": 1}
        assert second["steps"] == {"1": 1, "2": 2}
        assert second["kept"] == rigger.global_data["kept"] == {"list": [1, 2]}
    assert rigger.global_data["steps"] == {"1": 1, "2": 2}


def shout(number: int) -> Any:
    return {"shouted": f"{number}!"}, None


def test_callbacks_options_and_configure_calls_are_told_again(ledger: Path) -> None:
    with QuietRigger(config(), plugins=PLUGINS) as rigger:
        rigger.configure_plugin("steps", 100)
        rigger.register_hook_callback("step", "post", shout, "shout")
        rigger.register_hook_callback("step", "post", shout, "gone")
        rigger.unregister_hook_callback("step", "post", "gone")
        rigger.squash_exceptions = True
        kill(rigger)
        result = rigger.fire_hook("step", number=1, ledger=str(ledger))
        assert result is not None
        assert (result["number"], result["shouted"]) == (101, "101!")
        assert rigger.fire_hook("step") is not None  # squashed, though arguments are missing
        wait_for(lambda: rigger.failures)


def test_a_callback_does_not_reach_events_fired_before_it(ledger: Path) -> None:
    with QuietRigger(config(), plugins=PLUGINS) as rigger:
        held = rigger.submit("hold", ledger=str(ledger))
        wait_for(lambda: lines(ledger) == [-1])
        before = rigger.submit("step", number=1, ledger=str(ledger))
        rigger.register_hook_callback("step", "post", shout, "shout")
        after = rigger.submit("step", number=2, ledger=str(ledger))
        kill(rigger)
        assert isinstance(held.exception(DEADLINE), EngineLost)
        assert "shouted" not in before.result(DEADLINE)
        assert after.result(DEADLINE)["shouted"] == "2!"


def test_nested_and_background_work_that_is_lost_is_reported(ledger: Path, tmp_path: Path) -> None:
    later = tmp_path / "later.txt"
    with QuietRigger(config(), plugins=PLUGINS) as rigger:
        rigger.fire_hook("later", ledger=str(later))
        wait_for(later.exists)
        held = rigger.submit("hold", ledger=str(ledger))
        wait_for(lambda: lines(ledger) == [-1])
        kill(rigger)
        assert isinstance(held.exception(DEADLINE), EngineLost)
        wait_for(lambda: rigger.failures)
        assert "1 background handler had" in str(rigger.failures[0])
        rigger.failures.clear()
        rigger.fire_hook("spread", count=5, ledger=str(ledger))
        rigger.drain(DEADLINE)
        assert lines(ledger) == [-1, *range(1000, 1005)]
        assert rigger.failures == []


def test_nobody_waits_and_the_loss_is_told(ledger: Path) -> None:
    with QuietRigger(config(), plugins=PLUGINS) as rigger:
        rigger.fire_hook("hold", ledger=str(ledger), wait=False)
        wait_for(lambda: lines(ledger) == [-1])
        kill(rigger)
        wait_for(lambda: rigger.failures)
        assert isinstance(rigger.failures[0], EngineLost)
        assert process(rigger, "dispatcher")["restarts"] == 1


def test_killed_again_and_again_under_load(ledger: Path) -> None:
    with QuietRigger(config(), plugins=PLUGINS) as rigger:
        futures = []
        for number in range(600):
            futures.append(rigger.submit("step", number=number, ledger=str(ledger)))
            if number % 150 == 100:
                kill(rigger)
        losses = [number for number, future in enumerate(futures) if future.exception(DEADLINE) is not None]
        done = Count(lines(ledger))
        assert max(done.values()) == 1
        assert set(range(600)) - set(losses) <= set(done)
        assert {int(name) for name in rigger.global_data["steps"]} >= set(range(600)) - set(losses)
        assert [number for number in lines(ledger) if number >= 0] == sorted(done)


def test_dispatcher_and_manager_killed_at_once_is_said(ledger: Path) -> None:
    with QuietRigger(config(), plugins=PLUGINS) as rigger:
        rigger.fire_hook("step", number=1, ledger=str(ledger))
        pids = [process(rigger, role)["pid"] for role in ("dispatcher", "manager")]
        os.kill(pids[0], signal.SIGSTOP)  # or it would give the globals to the next Manager
        os.kill(pids[1], signal.SIGKILL)
        os.kill(pids[0], signal.SIGKILL)
        rigger.fire_hook("step", number=2, ledger=str(ledger))
        wait_for(lambda: rigger.failures)
        assert "global namespace is lost" in str(rigger.failures[0])
        assert rigger.global_data["steps"] == {"2": 2}


def test_killed_too_often_it_is_given_up(ledger: Path) -> None:
    with QuietRigger(config(max_restarts=1), plugins=PLUGINS) as rigger:
        kill(rigger)
        rigger.fire_hook("step", number=1, ledger=str(ledger))
        held = rigger.submit("hold", ledger=str(ledger))
        wait_for(lambda: -1 in lines(ledger))
        kill(rigger)
        with pytest.raises(EngineLost, match=r"2 times within 60 s \(max_restarts\)"):
            held.result(DEADLINE)


def test_given_up_it_loses_nothing_in_silence(ledger: Path, tmp_path: Path) -> None:
    later = tmp_path / "later.txt"
    with QuietRigger(config(max_restarts=0), plugins=PLUGINS) as rigger, ThreadPoolExecutor(1) as pool:
        rigger.fire_hook("step", number=1, ledger=str(ledger))
        rigger.fire_hook("later", ledger=str(later))
        wait_for(later.exists)
        manager = process(rigger, "manager")["pid"]
        stop_still(dispatcher := process(rigger, "dispatcher")["pid"])
        asked = pool.submit(rigger.stats)
        wait_for(lambda: rigger._engine is not None and rigger._engine._answers)
        os.kill(dispatcher, signal.SIGKILL)
        with pytest.raises(EngineLost, match=r"stats.*max_restarts"):
            asked.result(DEADLINE)
        wait_for(lambda: rigger.failures)
        assert "before 1 background handler had ended" in str(rigger.failures[0])
        assert rigger.global_data["steps"] == {"1": 1}
        os.kill(manager, signal.SIGKILL)
        with pytest.raises(EngineLost, match="Manager process is gone"):
            rigger.global_data.copy()


def test_a_question_that_it_had_not_answered_is_asked_again(ledger: Path) -> None:
    with QuietRigger(config(), plugins=PLUGINS) as rigger, ThreadPoolExecutor(1) as pool:
        stop_still(dispatcher := process(rigger, "dispatcher")["pid"])
        asked = pool.submit(rigger.stats)
        wait_for(lambda: rigger._engine is not None and rigger._engine._answers)
        os.kill(dispatcher, signal.SIGKILL)
        assert asked.result(DEADLINE)["processes"][1]["restarts"] == 1


def test_an_instance_that_its_successor_cannot_make_is_named(ledger: Path, tmp_path: Path) -> None:
    entry = {"plugin": "moody", "switch": str(tmp_path / "switch"), "log": str(tmp_path / "log")}
    options = config()
    options["plugins"]["moody"] = entry
    with QuietRigger(options, plugins={**PLUGINS, "moody": Moody}) as rigger:
        assert rigger.fire_hook("moody")["moody"]
        (tmp_path / "switch").write_text("raise", encoding="utf-8")
        kill(rigger)
        assert rigger.fire_hook("step", number=1, ledger=str(ledger))["number"] == 1
        wait_for(lambda: rigger.messages)
        assert "'moody'" in rigger.messages[0]
        assert "no database" in rigger.messages[0]


def stop_still(pid: int) -> None:
    os.kill(pid, signal.SIGSTOP)
    wait_for(lambda: psutil.Process(pid).status() == psutil.STATUS_STOPPED)


def test_killed_while_the_engine_stops(ledger: Path) -> None:
    rigger = QuietRigger(config(), plugins=PLUGINS).start()
    pid = process(rigger, "dispatcher")["pid"]
    futures = [rigger.submit("step", number=number, ledger=str(ledger)) for number in range(300)]
    wait_for(lambda: lines(ledger))
    os.kill(pid, signal.SIGKILL)
    rigger.stop()
    assert all(future.done() for future in futures)
    lost = sum(future.exception() is not None for future in futures)
    assert len(lines(ledger)) >= 300 - lost
    assert max(Count(lines(ledger)).values()) == 1


def test_what_hooks_started_ends_with_the_dispatcher(ledger: Path) -> None:
    with QuietRigger(config(), plugins=PLUGINS) as rigger:
        workers = [row["pid"] for row in rigger.stats()["processes"] if row["role"] == "worker"]
        kill(rigger)
        rigger.fire_hook("step", number=1, ledger=str(ledger))
        assert not any(psutil.pid_exists(pid) and psutil.Process(pid).ppid() == os.getpid() for pid in workers)
        assert not any(_runs(pid) for pid in workers)


def _runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
