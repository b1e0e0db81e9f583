"""Events whose process dies are run again where they may be, later, in their place; starts that fail are told apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from engine_plugins import Suicidal
from quiet import QuietRigger
from retry_plugins import Fragile, Moody, Neighbour, noted
from waiting import DEADLINE, wait_for

from rigger_mp.engine.retry_timer import MOST_GROWTH, RetryTimer
from rigger_mp.errors import (
    EngineLost,
    EventQuarantined,
    HookError,
    PluginInitError,
    StartError,
    TimeLimitExceeded,
    WorkerLost,
    WorkerNotStarted,
)

FOR_EVER = 1e6
"""Seconds of ``retry_delay``: a retry that soon comes by chance comes once in thousands of runs of the test."""
PLUGINS = {"fragile": Fragile, "neighbour": Neighbour, "moody": Moody}


def config(**keys: Any) -> dict[str, Any]:
    instances = {"fragile": {"plugin": "fragile", **keys.pop("fragile", {})}, "neighbour": {"plugin": "neighbour"}}
    return {"workers": 1, "plugins": instances, **keys}


def restarts(rigger: QuietRigger) -> int:
    return sum(row["restarts"] for row in rigger.stats()["processes"] if row["role"] == "worker")


@pytest.mark.parametrize("hook", ["die", "die_in_order"])
def test_an_event_that_survives_a_retry_ends_as_if_nothing_had_happened(tmp_path: Path, hook: str) -> None:
    log = tmp_path / "log"
    with QuietRigger(config(fragile={"max_retries": 2}), plugins=PLUGINS) as rigger:
        result = rigger.fire_hook(hook, log=str(log), number=1, times=2)
        assert result is not None
        assert (result["number"], result["done"]) == (1, [1])
    assert noted(log) == ["1"] * 3
    assert rigger.failures == []


def test_an_event_that_kills_its_process_again_and_again_is_quarantined(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with QuietRigger(config(fragile={"max_retries": 2}), plugins=PLUGINS) as rigger:
        with pytest.raises(EventQuarantined, match=r"hook 'die': worker-0.*status 7; quarantined after 3 attempts"):
            rigger.fire_hook("die", log=str(log), number=1, times=99)
        assert rigger.fire_hook("fine")["pid"]
        rigger.fire_hook("die", wait=False, log=str(log), number=2, times=99)
    assert noted(log) == ["1"] * 3 + ["2"] * 3
    assert [type(error) for error in rigger.failures] == [EventQuarantined]


def test_what_declares_no_retries_is_run_once(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with QuietRigger(config(), plugins=PLUGINS) as rigger, pytest.raises(WorkerLost, match=r"status 7$") as caught:
        rigger.fire_hook("die", log=str(log), number=1, times=99)
    assert type(caught.value) is WorkerLost
    assert noted(log) == ["1"]


def test_a_time_limit_is_named_after_the_last_retry(tmp_path: Path) -> None:
    limited = config(fragile={"max_retries": 1, "time_limit": 0.2})
    with QuietRigger(limited, plugins=PLUGINS) as rigger:
        with pytest.raises(TimeLimitExceeded, match="quarantined after 2 attempts"):
            rigger.fire_hook("hang", log=str(tmp_path / "log"))
        assert rigger.fire_hook("fine")["pid"]
    assert noted(tmp_path / "log") == ["hang"] * 2


def test_nothing_overtakes_at_its_instance_and_nobody_else_waits(tmp_path: Path) -> None:
    log = tmp_path / "log"
    keys = config(fragile={"max_retries": 1}, retry_delay=FOR_EVER)
    with QuietRigger(keys, plugins=PLUGINS) as rigger:
        waiting = rigger.submit("die", log=str(log), number=1, times=1)
        behind = [rigger.submit("work", log=str(log), number=number) for number in (2, 3)]
        wait_for(lambda: restarts(rigger))
        for _ in range(20):
            assert rigger.submit("fine").result(DEADLINE)["pid"]
        assert not any(future.done() for future in (waiting, *behind))
        rigger.stop(graceful_timeout=0.1)
    for future in (waiting, *behind):
        with pytest.raises(EngineLost):
            future.result(DEADLINE)
    assert noted(log) == ["1"]


def test_events_reach_their_instance_in_fire_order_around_retries(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with QuietRigger(config(fragile={"max_retries": 3}, retry_delay=0.05), plugins=PLUGINS) as rigger:
        futures = []
        for number in range(0, 60, 6):
            futures.append(rigger.submit("die", log=str(log), number=number, times=number % 4))
            futures += [rigger.submit("work", log=str(log), number=number + behind) for behind in range(1, 6)]
        assert [future.result(DEADLINE)["number"] for future in futures] == list(range(60))
    order = [int(line) for line in noted(log)]
    assert order == sorted(order)


def test_an_ordered_event_that_waits_for_its_retry_is_a_barrier(tmp_path: Path) -> None:
    log = tmp_path / "log"
    keys = config(fragile={"max_retries": 1}, retry_delay=FOR_EVER)
    with QuietRigger(keys, plugins=PLUGINS) as rigger:
        rigger.submit("die_in_order", log=str(log), number=1, times=1)
        fine = rigger.submit("fine")
        wait_for(lambda: restarts(rigger))
        rigger.stats()
        assert not fine.done()
        rigger.stop(graceful_timeout=0.1)
        with pytest.raises(EngineLost):
            fine.result(DEADLINE)


def test_stopping_waits_for_retries(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with QuietRigger(config(fragile={"max_retries": 2}), plugins=PLUGINS) as rigger:
        future = rigger.submit("die", log=str(log), number=1, times=2)
    assert future.result(DEADLINE)["number"] == 1


def test_an_instance_that_cannot_be_initialised_again_is_named_and_fails_its_events(tmp_path: Path) -> None:
    with moody(tmp_path) as rigger:
        (tmp_path / "switch").write_text("raise")
        with pytest.raises(WorkerLost):
            rigger.fire_hook("leave")
        with pytest.raises(HookError, match=r"'moody' could not be initialised again(.|\n)*no database") as caught:
            rigger.fire_hook("moody")
        assert isinstance(caught.value.__cause__, PluginInitError)
        assert rigger.fire_hook("fine")["pid"]
    assert any("'moody'" in message and "no database" in message for message in rigger.messages)


def test_an_instance_that_keeps_ending_its_process_is_left_out_and_named(tmp_path: Path) -> None:
    with moody(tmp_path, max_restarts=2) as rigger:
        (tmp_path / "switch").write_text("exit")
        with pytest.raises(WorkerLost):
            rigger.fire_hook("leave")
        with pytest.raises(HookError, match=r"'moody' could not be initialised again(.|\n)*status 9"):
            rigger.fire_hook("moody")
        assert rigger.fire_hook("fine")["pid"]
        with pytest.raises(WorkerLost):  # once left out, it stays so
            rigger.fire_hook("leave")
        assert rigger.fire_hook("fine")["pid"]
    assert len(noted(tmp_path / "log")) == 3
    assert sum("'moody'" in message and "status 9" in message for message in rigger.messages) == 1


def moody(tmp_path: Path, **keys: Any) -> QuietRigger:
    entry = {"plugin": "moody", "switch": str(tmp_path / "switch"), "log": str(tmp_path / "log")}
    instances = {"neighbour": {"plugin": "neighbour"}, "moody": entry}
    return QuietRigger({"workers": 1, "plugins": instances, **keys}, plugins=PLUGINS)


def test_a_process_that_cannot_be_started_is_another_loss_than_one_that_crashed() -> None:
    instances = {"suicidal": {"plugin": "suicidal"}}
    with QuietRigger({"workers": 1, "max_restarts": 0, "plugins": instances}, plugins={"suicidal": Suicidal}) as rigger:
        rigger.register_hook_callback("greet", "pre", lambda: None)
        with pytest.raises(WorkerNotStarted, match=r"hook 'greet': worker-0 cannot be started: .*status 9") as caught:
            rigger.submit("greet").result(DEADLINE)
    assert isinstance(caught.value, StartError)
    assert not isinstance(caught.value, WorkerLost)


def test_functions_that_each_died_once_were_not_tried_again(tmp_path: Path) -> None:
    log = tmp_path / "log"
    instances = {name: {"plugin": "fragile"} for name in ("one", "two")}
    with QuietRigger({"workers": 2, "plugins": instances}, plugins=PLUGINS) as rigger:
        with pytest.raises(WorkerLost) as caught:
            rigger.fire_hook("die", log=str(log), number=1, times=99)
        assert type(caught.value) is WorkerLost
    assert noted(log) == ["1"] * 2


def test_waits_grow_to_a_limit_and_are_spread() -> None:
    now = 100.0
    timer = RetryTimer[int](0.1, lambda: now, lambda low, high: high)
    assert timer.limit(None) is None
    for retry in range(1, 40):
        timer.add(retry, retry)
    waits = []
    while (wait := timer.limit(None)) is not None:
        now += wait + 1e-9
        waits += [now - 100.0] * len(timer.take_due())
    assert waits == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 3.2, *[0.1 * MOST_GROWTH] * 33])
    assert timer.limit(3.0) == 3.0
    spread = RetryTimer[int](10.0)
    for item in range(200):
        spread.add(item, 1)
    due = sorted(entry for entry, _, _ in spread._heap)
    assert due[-1] - due[0] > 2.0
