"""A plugin can crash, hang, leak or exit only the process it lives in."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from engine_plugins import Adder, Broken, Counter, Mean, Suicidal
from quiet import QuietRigger
from waiting import wait_for

from rigger_mp import HookError, Rigger, RiggerBasePlugin
from rigger_mp.encoding import dump_updates
from rigger_mp.engine import messages as m
from rigger_mp.errors import EncodingError, EngineLost, NotRunningError, PluginError, TimeLimitExceeded, WorkerLost

PLUGINS = {"mean": Mean, "adder": Adder, "counter": Counter}


def config(**keys: Any) -> dict[str, Any]:
    instances = {"mean": {"plugin": "mean"}, "adder": {"plugin": "adder"}, "counter": {"plugin": "counter"}}
    return {"workers": 2, "plugins": instances, **keys}


@pytest.fixture
def rigger() -> Iterator[Rigger]:
    with QuietRigger(config(), plugins=PLUGINS) as engine:
        yield engine


def worker_pids(rigger: Rigger) -> list[int]:
    return [row["pid"] for row in rigger.stats()["processes"] if row["role"] == "worker"]


def test_an_unpicklable_argument_raises_in_fire_hook(rigger: Rigger) -> None:
    with pytest.raises(EncodingError, match=r"argument 'a'.*lock"):
        rigger.fire_hook("add", a=threading.Lock(), b=1)
    with pytest.raises(TypeError):
        rigger.submit("add", a=1, b=threading.Lock())
    assert rigger.fire_hook("add", a=1, b=2)["sum"] == 3


def test_an_unpicklable_result_fails_its_event_with_the_name_of_the_update(rigger: Rigger) -> None:
    with pytest.raises(HookError, match=r"mean\.unpicklable.*update 'value'.*'Unpicklable'"):
        rigger.fire_hook("unpicklable")
    assert rigger.fire_hook("fine")["fine"]


@pytest.mark.parametrize(("hook", "text"), [("stubborn", "stubborn 1"), ("locked", "locked text")])
def test_an_exception_that_cannot_travel_leaves_its_traceback(rigger: Rigger, hook: str, text: str) -> None:
    with pytest.raises(HookError) as caught:
        rigger.fire_hook(hook)
    assert text in str(caught.value)
    assert f"in {hook}" in str(caught.value)
    assert caught.value.failures[0].exception is None
    assert rigger.fire_hook("fine")["fine"]


@pytest.mark.parametrize(("hook", "name"), [("leave", "SystemExit"), ("interrupt", "KeyboardInterrupt")])
def test_leaving_a_hook_by_any_exception_fails_that_event_and_no_more(rigger: Rigger, hook: str, name: str) -> None:
    before = worker_pids(rigger)
    with pytest.raises(HookError, match=name):
        rigger.fire_hook(hook)
    assert worker_pids(rigger) == before


@pytest.mark.parametrize(("hook", "how"), [("vanish", "exited with status 7"), ("crash", "SIGSEGV")])
def test_a_process_that_dies_in_a_hook_loses_that_event_and_no_other(rigger: Rigger, hook: str, how: str) -> None:
    futures = [rigger.submit("add", a=number, b=0) for number in range(50)]
    lost = rigger.submit(hook)
    futures += [rigger.submit("add", a=number, b=0) for number in range(50, 100)]
    with pytest.raises(WorkerLost, match=rf"hook '{hook}': worker-\d \(pid \d+\).*{how}"):
        lost.result()
    assert [future.result()["sum"] for future in futures] == list(range(100))
    assert rigger.fire_hook("fine")["fine"]


def test_an_idle_worker_that_is_killed_costs_no_event(rigger: Rigger) -> None:
    rigger.fire_hook("count")
    for pid in worker_pids(rigger):
        os.kill(pid, signal.SIGKILL)
    results = [rigger.fire_hook("add", a=number, b=1)["sum"] for number in range(20)]
    assert results == list(range(1, 21))
    assert rigger.fire_hook("count")["calls"] == 1  # made again, so it counts anew


def test_a_busy_worker_that_is_killed_loses_only_its_event(rigger: Rigger, tmp_path: Path) -> None:
    started = tmp_path / "started"
    blocked = rigger.submit("block", started=str(started))
    wait_for(lambda: started.exists() and started.read_text() != "")
    behind = [rigger.submit("add", a=number, b=0) for number in range(10)]
    os.kill(int(started.read_text()), signal.SIGKILL)
    with pytest.raises(WorkerLost, match="SIGKILL"):
        blocked.result()
    assert [future.result()["sum"] for future in behind] == list(range(10))


def test_a_time_limit_kills_the_process_and_names_the_loss(tmp_path: Path) -> None:
    with QuietRigger(config(time_limit=0.3), plugins=PLUGINS) as rigger:
        with pytest.raises(TimeLimitExceeded, match="time_limit"):
            rigger.fire_hook("block", started=str(tmp_path / "started"))
        assert rigger.fire_hook("fine")["fine"]


def test_a_loss_that_nobody_waits_for_reaches_handle_failure() -> None:
    with QuietRigger(config(), plugins=PLUGINS) as rigger:
        rigger.fire_hook("vanish", wait=False)
        rigger.fire_hook("fine")
    assert [type(error) for error in rigger.failures] == [WorkerLost]


def test_a_failure_that_cannot_travel_and_that_nobody_waits_for_reaches_handle_failure() -> None:
    with QuietRigger(config(), plugins=PLUGINS) as rigger:
        rigger.fire_hook("stubborn", wait=False)
        rigger.fire_hook("fine")
    (error,) = rigger.failures
    assert isinstance(error, HookError)
    assert "stubborn 1" in str(error)


def test_what_is_not_finished_by_the_graceful_timeout_ends_in_engine_lost(tmp_path: Path) -> None:
    rigger = QuietRigger(config(), plugins=PLUGINS).start()
    blocked = rigger.submit("block", started=str(tmp_path / "started"))
    behind = rigger.submit("fine")
    wait_for((tmp_path / "started").exists)
    engine: Any = rigger._engine
    assigned = engine.request(lambda token: m.Write(token, dump_updates({"a": 1}), False))
    configured = engine.request(lambda token: m.Configure(token, "mean", b""))
    rigger.stop(graceful_timeout=0.1)
    for future, what in ((blocked, "block"), (behind, "fine"), (assigned, "global_data"), (configured, "mean")):
        with pytest.raises(EngineLost, match=f"hook '{what}'"):
            future.result(timeout=10)


def test_a_plugin_that_cannot_be_initialised_is_named_and_left_out() -> None:
    instances = {"adder": {"plugin": "adder"}, "broken": {"plugin": "broken"}}
    plugins = {"adder": Adder, "broken": Broken}
    with QuietRigger({"workers": 2, "plugins": instances}, plugins=plugins) as rigger:
        assert rigger.fire_hook("add", a=1, b=1)["sum"] == 2
    assert any("'broken'" in message and "no database" in message for message in rigger.messages)
    with pytest.raises(PluginError, match=r"(?s)strict.*'broken'.*no database"):
        QuietRigger({"workers": 2, "strict": True, "plugins": instances}, plugins=plugins).start()


def test_a_plugin_that_kills_its_process_while_it_is_initialised_is_named_and_left_out() -> None:
    instances = {"adder": {"plugin": "adder"}, "suicidal": {"plugin": "suicidal"}}
    plugins = {"adder": Adder, "suicidal": Suicidal}
    with QuietRigger({"workers": 2, "plugins": instances}, plugins=plugins) as rigger:
        assert rigger.fire_hook("add", a=1, b=1)["sum"] == 2
    assert any("'suicidal'" in message and "status 9" in message for message in rigger.messages)


@pytest.mark.parametrize("limit", [{"max_tasks_per_child": 5}, {"max_memory_per_child": 1}])
def test_workers_are_replaced_between_jobs(limit: dict[str, int]) -> None:
    with QuietRigger(config(**limit), plugins=PLUGINS) as rigger:
        pids = {rigger.fire_hook("whoami")["pid"] for _ in range(60)}
        futures = [rigger.submit("add", a=number, b=0) for number in range(200)]
        assert [future.result()["sum"] for future in futures] == list(range(200))
    assert len(pids) > 2
    assert rigger.failures == []


def test_an_event_whose_process_died_is_run_again_as_often_as_max_retries_says(tmp_path: Path) -> None:
    with QuietRigger(config(max_retries=2), plugins=PLUGINS) as rigger, pytest.raises(WorkerLost):
        rigger.fire_hook("vanish", log=str(tmp_path / "log"))
    assert (tmp_path / "log").read_text() == "vanish\n" * 3


def test_a_killed_manager_is_replaced_and_knows_everything() -> None:
    with QuietRigger(config(), plugins=PLUGINS) as rigger:
        rigger.global_data = {"kept": {"a": 1}}
        before = rigger.fire_hook("add", a=1, b=2)
        for kill_before_reading in (True, False, True):
            (manager,) = [row["pid"] for row in rigger.stats()["processes"] if row["role"] == "manager"]
            os.kill(manager, signal.SIGKILL)
            if kill_before_reading:
                assert rigger.global_data["last"] == 3
            assert rigger.fire_hook("add", a=1, b=2)["last"] == 3
            assert rigger.global_data.copy() == {"kept": {"a": 1}, "last": 3}
        (manager,) = [row["pid"] for row in rigger.stats()["processes"] if row["role"] == "manager"]
        os.kill(manager, signal.SIGKILL)
    assert rigger.global_data.copy() == {"kept": {"a": 1}, "last": 3}
    assert before["last"] == 3


def test_a_killed_dispatcher_that_must_not_restart_ends_everything_pending_by_name(tmp_path: Path) -> None:
    rigger = QuietRigger(config(max_restarts=0), plugins=PLUGINS).start()
    rigger.fire_hook("add", a=1, b=2)
    blocked = rigger.submit("block", started=str(tmp_path / "started"))
    behind = [rigger.submit("fine") for _ in range(10)]
    wait_for((tmp_path / "started").exists)
    (dispatcher,) = [row["pid"] for row in rigger.stats()["processes"] if row["role"] == "dispatcher"]
    os.kill(dispatcher, signal.SIGKILL)
    for future in (blocked, *behind):
        with pytest.raises(EngineLost, match="dispatcher"):
            future.result(timeout=30)
    with pytest.raises(NotRunningError):
        rigger.fire_hook("fine")
    rigger.stop()
    assert rigger.global_data["last"] == 3


class Leaving(RiggerBasePlugin):
    """Ends its process whenever it is made."""

    stateless = True

    def plugin_initialize(self) -> None:
        os._exit(7)


class Slow(RiggerBasePlugin):
    """Takes a while to be made, so that another instance can be given up meanwhile."""

    stateless = True

    def plugin_initialize(self) -> None:
        time.sleep(0.05)
        self.register_plugin_hook("work", lambda: None)


@pytest.mark.parametrize("workers", [2, 4])
def test_only_who_ends_its_process_is_left_out(workers: int) -> None:
    instances = {"leaving": {"plugin": "leaving"}, **{f"slow{n}": {"plugin": "slow"} for n in range(3)}}
    plugins = {"leaving": Leaving, "slow": Slow}
    with QuietRigger({"workers": workers, "plugins": instances}, plugins=plugins) as rigger:
        (message,) = [text for text in rigger.messages if "initialis" in text]
        assert "instance 'leaving'" in message
        rigger.fire_hook("work")
        functions = rigger.stats()["functions"]
    assert [functions[name]["ident"] for name in sorted(functions)] == ["slow0", "slow1", "slow2"]


class Forking(RiggerBasePlugin):
    """Forks, and has both processes come back from its hook."""

    def plugin_initialize(self) -> None:
        self.register_plugin_hook("fork")

    def fork(self, path: str) -> Any:
        child = os.fork()
        if child:
            os.waitpid(child, 0)
        return None, {"by": [os.getpid()]}


@pytest.mark.parametrize("wait", [False, True])
def test_what_follows_a_fork_is_its_parents(tmp_path: Path, wait: bool) -> None:
    path = tmp_path / "callbacks"

    def note(path: str) -> None:
        with Path(path).open("a") as file:
            file.write("called\n")

    with QuietRigger({"workers": 1, "plugins": {"f": {"plugin": "f"}}}, plugins={"f": Forking}) as rigger:
        rigger.register_hook_callback("fork", "post", note)
        for _ in range(10):
            rigger.fire_hook("fork", wait=wait, path=str(path))
        rigger.drain()
        assert rigger.global_data["by"] == [row["pid"] for row in rigger.stats()["processes"] if row["jobs"]] * 10
    assert path.read_text() == "called\n" * 10
