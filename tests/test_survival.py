"""Whatever is killed, whatever a hook does: one outcome for each event, only the culprit blamed, and on it goes."""

from __future__ import annotations

import contextlib
import os
import random
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest
from quiet import QuietRigger
from survival_plugins import (
    Blocker,
    Clerk,
    Digger,
    Forger,
    Forker,
    Holder,
    Napper,
    Poison,
    Receiver,
    SlowClerk,
    SlowToArrive,
    Writer,
)
from waiting import wait_for

from rigger_mp import Rigger
from rigger_mp.engine import manager_client
from rigger_mp.errors import EngineLost, HookError, NotRunningError, TimeLimitExceeded, WorkerLost

RECEIVER: dict[str, Any] = {"workers": 1, "plugins": {"receiver": {"plugin": "receiver"}}}
BLOCKING = {"blocker": Blocker, "clerk": Clerk}


def pids(rigger: Rigger, role: str) -> list[int]:
    return [row["pid"] for row in rigger.stats()["processes"] if row["role"] == role]


def kill(rigger: Rigger, role: str) -> int:
    """Kill the first process of a role; return its pid."""
    pid = pids(rigger, role)[0]
    os.kill(pid, signal.SIGKILL)
    return pid


def test_a_function_that_ends_just_when_it_is_late_leaves_no_blame_on_the_next() -> None:
    config: dict[str, Any] = {"workers": 1, "hooks": {"nap": {"time_limit": 0.05}}}
    config["plugins"] = {"napper": {"plugin": "napper"}}
    with QuietRigger(config, plugins={"napper": Napper}) as rigger:
        for _ in range(15):
            for _ in range(40):  # so that naps are expected to be short, and what follows is sent along with them
                rigger.fire_hook("nap", seconds=0)
                rigger.fire_hook("quick", seconds=0)
            # Limits are looked at every 0.1 s.
            rigger.submit("nap", seconds=random.uniform(0.097, 0.109))
            behind = [rigger.submit("quick", seconds=0.0005) for _ in range(40)]
            assert all(future.result()["done"] for future in behind)


def test_the_time_limit_holds_while_arguments_are_unpickled() -> None:
    with QuietRigger({**RECEIVER, "time_limit": 0.3}, plugins={"receiver": Receiver}) as rigger:
        with pytest.raises(TimeLimitExceeded, match="receive"):
            rigger.submit("receive", value=SlowToArrive()).result(timeout=20)
        assert rigger.fire_hook("fine")["fine"]


def test_a_callback_that_cannot_be_unpickled_fails_the_events_that_call_it() -> None:
    poison = Poison()
    with QuietRigger(RECEIVER, plugins={"receiver": Receiver}) as rigger:
        rigger.register_hook_callback("fine", "pre", lambda: print(poison), name="bad")
        with pytest.raises(HookError, match=r"bad \(pre\)(.|\n)*cannot be unpickled(.|\n)*poison"):
            rigger.submit("fine").result(timeout=20)
        rigger.unregister_hook_callback("fine", "pre", "bad")
        assert rigger.submit("fine").result(timeout=20)["fine"]


def test_a_manager_that_is_killed_again_while_it_starts_costs_no_reader_anything() -> None:
    with QuietRigger(RECEIVER, plugins={"receiver": Receiver}) as rigger:
        rigger.global_data = {"kept": 1}
        result = rigger.fire_hook("fine")
        assert result is not None
        with ThreadPoolExecutor(1) as reader:
            for _ in range(4):
                first = kill(rigger, "manager")
                reading = reader.submit(lambda: (rigger.global_data["kept"], result["kept"]))
                for _ in range(2):
                    wait_for(lambda known=first: pids(rigger, "manager") != [known])
                    first = kill(rigger, "manager")
                assert reading.result(30) == (1, 1)


@pytest.mark.parametrize("killed", [True, False])
def test_a_manager_that_stands_still_holds_up_outcomes_until_it_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed: bool
) -> None:
    log, text = tmp_path / "log", "x" * 50_000
    with QuietRigger({"workers": 1, "plugins": {"writer": {"plugin": "writer"}}}, plugins={"writer": Writer}) as rigger:
        rigger.fire_hook("write", log=str(log), number=0, text=text)
        (manager,) = pids(rigger, "manager")
        os.kill(manager, signal.SIGSTOP)
        wait_for(lambda: psutil.Process(manager).status() == psutil.STATUS_STOPPED)
        futures = [rigger.submit("write", log=str(log), number=number, text=text) for number in range(1, 40)]
        wait_for(lambda: len(log.read_text().splitlines()) == 40)
        assert not futures[-1].done()  # it was not published, so nobody may hear of it
        if killed:
            os.kill(manager, signal.SIGKILL)
        else:
            monkeypatch.setattr(manager_client, "CALL_TIME", 0.2)
            assert rigger.global_data["numbers"]
            monkeypatch.undo()
        assert all(future.result(30)["numbers"] for future in futures)
        assert rigger.global_data["numbers"] == list(range(40))
        assert pids(rigger, "manager") != [manager]


def test_a_background_handler_that_ran_is_not_run_again_when_the_dispatcher_dies(tmp_path: Path) -> None:
    config = {"workers": 1, "plugins": {name: {"plugin": name} for name in BLOCKING}}
    gate, log = tmp_path / "gate", tmp_path / "log"
    with QuietRigger(config, plugins=BLOCKING) as rigger:
        rigger.submit("block", gate=str(gate))
        wait_for((tmp_path / "gate.started").exists)
        filed = rigger.submit("file", log=str(log))
        wait_for(log.exists)
        kill(rigger, "dispatcher")
        with pytest.raises(EngineLost):
            filed.result(30)
        rigger.drain(30)
        assert log.read_text() == "filed\n"
        assert rigger.fire_hook("fine")["pid"]


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="descriptors are found in /proc")
def test_what_a_hook_writes_to_the_engines_descriptor_costs_no_more_than_its_process() -> None:
    config = {"workers": 2, "plugins": {"forger": {"plugin": "forger"}}}
    with QuietRigger(config, plugins={"forger": Forger}) as rigger:
        dispatcher = pids(rigger, "dispatcher")
        with contextlib.suppress(WorkerLost):
            rigger.submit("forge").result(30)
        assert [rigger.submit("fine").result(30)["pid"] for _ in range(20)]
        wait_for(lambda: any("no message of the engine" in message for message in rigger.messages))
        assert pids(rigger, "dispatcher") == dispatcher


def test_a_manager_that_is_killed_while_the_engine_stops_takes_no_globals_with_it(tmp_path: Path) -> None:
    config = {"workers": 1, "plugins": {name: {"plugin": name} for name in BLOCKING}}
    gate = tmp_path / "gate"
    rigger = QuietRigger(config, plugins=BLOCKING).start()
    rigger.global_data = {"kept": 1}
    blocked = rigger.submit("block", gate=str(gate))
    wait_for((tmp_path / "gate.started").exists)
    (manager,) = pids(rigger, "manager")
    with ThreadPoolExecutor(1) as stopper:
        stopping = stopper.submit(rigger.stop)
        wait_for(lambda: is_refusing(rigger))
        os.kill(manager, signal.SIGKILL)
        gate.touch()
        stopping.result(60)
    assert blocked.result()["kept"] == 1
    assert rigger.global_data.copy() == {"kept": 1}


def is_refusing(rigger: Rigger) -> bool:
    try:
        rigger.submit("fine")
    except NotRunningError:
        return True
    return False


def test_a_hook_that_forks_and_returns_twice_makes_no_second_worker() -> None:
    config = {"workers": 1, "time_limit": 30, "plugins": {"forker": {"plugin": "forker"}}}
    with QuietRigger(config, plugins={"forker": Forker}) as rigger:
        (worker,) = pids(rigger, "worker")
        for _ in range(5):
            assert rigger.submit("fork").result(30)["pid"] == worker
        assert rigger.submit("fork_and_exit").result(30)["status"] == 3
        assert rigger.submit("fork_and_fail").result(30)["status"] == 1
        answers = [rigger.submit("fine") for _ in range(300)]
        assert {answer.result(30)["pid"] for answer in answers} == {worker}


def test_globals_nested_deeper_than_the_dispatcher_can_follow_stop_neither_it_nor_the_manager() -> None:
    config = {"workers": 2, "plugins": {"digger": {"plugin": "digger"}}}
    with QuietRigger(config, plugins={"digger": Digger}) as rigger:
        before = pids(rigger, "dispatcher") + pids(rigger, "manager")
        for leaf in range(70):  # so many that they are compacted
            rigger.submit("dig", depth=2000, leaf=leaf).result(30)
        for _ in range(70):
            rigger.submit("fine").result(30)
        assert rigger.global_data["counted"] == [1] * 70
        with pytest.raises(RecursionError):
            rigger.global_data["mapping"]
        del rigger.global_data["mapping"]
        assert sorted(rigger.global_data) == ["counted", "list"]
        assert pids(rigger, "dispatcher") + pids(rigger, "manager") == before


def test_an_update_of_a_background_handler_that_waits_for_its_turn_is_not_lost_in_silence(tmp_path: Path) -> None:
    plugins = {"holder": Holder, "clerk": SlowClerk}
    config = {"workers": 1, "plugins": {name: {"plugin": name} for name in plugins}}
    gate, log, hold = tmp_path / "gate", tmp_path / "log", tmp_path / "hold"
    with QuietRigger(config, plugins=plugins) as rigger:
        rigger.submit("file_slowly", gate=str(gate), log=str(log)).result(30)
        held = rigger.submit("hold", gate=str(hold))
        wait_for((tmp_path / "hold.started").exists)
        gate.touch()
        wait_for(lambda: rigger.stats()["functions"].get("clerk.file_slowly", {}).get("calls"))
        rigger.stats()
        kill(rigger, "dispatcher")
        with pytest.raises(EngineLost):
            held.result(30)
        rigger.drain(30)
        assert "filed" not in rigger.global_data
        assert any("1 background handler" in str(failure) for failure in rigger.failures), rigger.failures
