"""Hooks that do to their process what they can: each costs its own event at most, and the engine goes on."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from quiet import QuietRigger
from rogue_plugins import Rogue
from waiting import wait_for

from rigger_mp import HookError, Rigger
from rigger_mp.errors import EventLost, TimeLimitExceeded, WorkerLost

CONFIG: dict[str, Any] = {
    "workers": 1,
    "hooks": {"stop_itself": {"time_limit": 0.3}},
    "plugins": {"rogue": {"plugin": "rogue"}},
}


@pytest.fixture
def rigger() -> Iterator[QuietRigger]:
    with QuietRigger(CONFIG, plugins={"rogue": Rogue}) as engine:
        assert engine.fire_hook("fine")["pid"]
        yield engine


def submit(rigger: Rigger, hook: str, **arguments: Any) -> Any:
    return rigger.submit(hook, **arguments).result(timeout=60)


def assert_it_goes_on(rigger: QuietRigger) -> None:
    """The next events work, in the same process or another; nothing but the engine's own is named as lost."""
    assert len({submit(rigger, "fine")["pid"] for _ in range(20)}) == 1
    assert submit(rigger, "fine_later")["pid"]
    assert rigger.global_data["counted"] == [1] * 21
    assert rigger.failures == []
    dispatcher = [row for row in rigger.stats()["processes"] if row["role"] == "dispatcher"]
    assert dispatcher[0]["restarts"] == 0


HARMLESS = ("replace_streams", "close_first_descriptors", "install_handlers", "start_threads", "forget_a_task")


@pytest.mark.parametrize("hook", HARMLESS)
def test_what_only_its_process_feels_is_no_failure(rigger: QuietRigger, hook: str) -> None:
    submit(rigger, hook)
    assert_it_goes_on(rigger)


def test_a_directory_that_a_hook_removes_under_itself(rigger: QuietRigger, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    submit(rigger, "change_directory", folder=str(folder))
    assert not folder.exists()
    assert_it_goes_on(rigger)
    os.kill(submit(rigger, "fine")["pid"], signal.SIGKILL)
    assert submit(rigger, "fine")["pid"]


def test_streams_that_a_hook_closes(rigger: QuietRigger) -> None:
    submit(rigger, "close_streams")
    assert_it_goes_on(rigger)


def test_descriptors_that_a_hook_closes_with_the_engines_among_them(rigger: QuietRigger) -> None:
    try:
        submit(rigger, "close_all_descriptors")
    except WorkerLost as error:
        assert "close_all_descriptors" in str(error)
    assert_it_goes_on(rigger)


def test_an_alarm_that_goes_off_after_the_hook(rigger: QuietRigger) -> None:
    worker = submit(rigger, "fine")["pid"]
    submit(rigger, "set_alarm")
    wait_for(lambda: not psutil.pid_exists(worker))
    assert submit(rigger, "fine")["pid"] != worker
    assert rigger.failures == []


def test_children_that_a_hook_leaves_behind_end_with_the_engine(rigger: QuietRigger) -> None:
    children = [psutil.Process(pid) for pid in submit(rigger, "start_children")["children"]]
    assert_it_goes_on(rigger)
    assert all(child.is_running() for child in children)
    rigger.stop()
    assert psutil.wait_procs(children, timeout=30)[1] == []


def test_children_that_a_hook_leaves_behind_end_with_its_process(rigger: QuietRigger) -> None:
    result = submit(rigger, "start_children")
    children = [psutil.Process(pid) for pid in result["children"]]
    os.kill(submit(rigger, "fine")["pid"], signal.SIGKILL)
    assert psutil.wait_procs(children, timeout=30)[1] == []


FAILURES = (
    ("exhaust_memory", "MemoryError"),
    ("exhaust_descriptors", "OSError"),
    ("exhaust_stack", "RecursionError"),
    ("raise_speechless", "SpeechlessError"),
    ("raise_leaving", "LeavingError"),
    ("raise_homesick", "HomesickError"),
    ("raise_generator_exit", "GeneratorExit"),
    ("return_torn", "torn"),
    ("leave_the_loop", "SystemExit"),
    ("stop_the_loop", "RuntimeError"),
)


@pytest.mark.parametrize(("hook", "text"), FAILURES, ids=[hook for hook, _ in FAILURES])
def test_what_fails_fails_its_own_event(rigger: QuietRigger, hook: str, text: str) -> None:
    worker = submit(rigger, "fine")["pid"]
    with pytest.raises(HookError, match=rf"rogue\.{hook}(.|\n)*{text}") as caught:
        submit(rigger, hook)
    assert caught.value.failures[0].function == f"rogue.{hook}"
    assert submit(rigger, "fine")["pid"] == worker


LOSSES: tuple[tuple[str, type[EventLost], str], ...] = (
    ("kill_own_group", WorkerLost, "SIGKILL"),
    ("exhaust_time", WorkerLost, "SIGXCPU"),
    ("stop_itself", TimeLimitExceeded, "time_limit"),
)


@pytest.mark.parametrize(("hook", "loss", "text"), LOSSES, ids=[hook for hook, _, _ in LOSSES])
def test_what_ends_its_process_costs_its_own_event(
    rigger: QuietRigger, hook: str, loss: type[EventLost], text: str
) -> None:
    with pytest.raises(loss, match=rf"hook '{hook}'.*{text}"):
        submit(rigger, hook)
    assert_it_goes_on(rigger)


def test_values_that_cannot_be_unpickled_harm_only_who_reads_them(rigger: QuietRigger) -> None:
    results = [submit(rigger, "return_poison") for _ in range(70)]  # so many that the globals are compacted
    for result in (results[0], results[-1]):
        with pytest.raises(ValueError, match="poison"):
            result["poison"]
    for name in ("poison", "nest"):
        with pytest.raises(ValueError, match="poison"):
            rigger.global_data[name]
    with pytest.raises(HookError, match=r"rogue\.take_poison(.|\n)*ValueError(.|\n)*poison"):
        submit(rigger, "take_poison")
    for role in ("worker", "manager", "dispatcher"):
        (pid,) = [row["pid"] for row in rigger.stats()["processes"] if row["role"] == role]
        os.kill(pid, signal.SIGKILL)
        assert submit(rigger, "fine")["pid"]
        assert {"counted", "nest", "poison"} <= set(rigger.global_data)
    assert rigger.global_data["counted"] == [1] * 4
    assert rigger.failures == []
