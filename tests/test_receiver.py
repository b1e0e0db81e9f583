"""Outcomes reach whoever waits, whichever thread reads them."""

from __future__ import annotations

import os
import signal
import sys
import threading
from typing import Any

import pytest
from engine_plugins import Adder
from quiet import QuietRigger
from waiting import DEADLINE, wait_for

CONFIG: dict[str, Any] = {"workers": 2, "plugins": {"adder": {"plugin": "adder"}}}
PLUGINS = {"adder": Adder}


def test_blocking_calls_between_everything_else() -> None:
    with QuietRigger(CONFIG, plugins=PLUGINS) as rigger:
        futures = []
        for number in range(1500):
            assert rigger.fire_hook("add", a=number, b=1)["sum"] == number + 1
            if number % 7 == 0:
                futures.append(rigger.submit("add", a=number, b=2))
            if number % 11 == 0:
                rigger.fire_hook("add", a=number, b=3, wait=False)
            if number % 101 == 0:
                rigger.stats()
            if number % 151 == 0:
                rigger.global_data["seen"] = number
        assert [future.result(DEADLINE)["sum"] for future in futures] == [n + 2 for n in range(0, 1500, 7)]
        assert rigger.stats()["events"]["pending"] == 0


def test_blocking_calls_from_many_threads() -> None:
    wrong: list[object] = []

    def work(base: int) -> None:
        for number in range(300):
            result = rigger.fire_hook("add", a=base, b=number)
            if result is None or result["sum"] != base + number:
                wrong.append((base, number))

    with QuietRigger(CONFIG, plugins=PLUGINS) as rigger:
        threads = [threading.Thread(target=work, args=(1000 * n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(DEADLINE)
        assert not any(thread.is_alive() for thread in threads)
        assert wrong == []


# Ctrl-C may come while Hypothesis, of other tests, is told of garbage; it is lost there.
@pytest.mark.filterwarnings("ignore:Exception ignored in.*gc_callback:pytest.PytestUnraisableExceptionWarning")
def test_an_interrupted_caller_loses_nothing() -> None:
    """Ctrl-C at any moment of a blocking call: later events still get their outcomes."""
    interrupted = 0
    with QuietRigger(CONFIG, plugins=PLUGINS) as rigger:
        for round_number in range(60):
            timer = threading.Timer(0.001 + 0.00007 * round_number, os.kill, (os.getpid(), signal.SIGINT))
            try:
                timer.start()
                for number in range(5000):
                    rigger.fire_hook("add", a=number, b=1)
            except KeyboardInterrupt:
                interrupted += 1
            timer.join()
            result = rigger.submit("add", a=round_number, b=1).result(DEADLINE)
            assert result["sum"] == round_number + 1
    assert interrupted > 0


def test_messages_arrive_while_a_caller_reads() -> None:
    with QuietRigger({**CONFIG, "squash_exceptions": True}, plugins=PLUGINS) as rigger:
        for number in range(50):
            rigger.fire_hook("add", a=number, b=1)
        rigger.fire_hook("add", a=1)  # squashed: told by another message than the outcome
        wait_for(lambda: rigger.failures)


@pytest.mark.parametrize("calls", [1, 50])
def test_a_kill_of_the_dispatcher_reaches_a_caller_that_reads(calls: int) -> None:
    with QuietRigger({**CONFIG, "max_restarts": 50}, plugins=PLUGINS) as rigger:
        for _ in range(3):
            for number in range(calls):
                rigger.fire_hook("add", a=number, b=1)
            (pid,) = [row["pid"] for row in rigger.stats()["processes"] if row["role"] == "dispatcher"]
            for number in range(calls):
                rigger.fire_hook("add", a=number, b=1)
            os.kill(pid, signal.SIGKILL)
            result = rigger.fire_hook("add", a=1, b=1)
            assert result is not None
            assert result["sum"] == 2


def test_a_full_queue_under_many_events_that_nobody_waits_for() -> None:
    errors: list[BaseException] = []

    def work() -> None:
        try:
            for number in range(1500):
                rigger.fire_hook("add", a=number, b=1, wait=False)
        except BaseException as error:
            errors.append(error)

    interval = sys.getswitchinterval()
    with QuietRigger({**CONFIG, "queue_size": 3}, plugins=PLUGINS) as rigger:
        sys.setswitchinterval(1e-6)  # threads meet in the middle of everything
        try:
            threads = [threading.Thread(target=work) for _ in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(DEADLINE)
        finally:
            sys.setswitchinterval(interval)
        rigger.drain(DEADLINE)
        assert errors == []
        assert rigger.stats()["events"]["succeeded"] == 6000


def test_ctrl_c_while_an_event_is_put_into_the_queue_leaves_the_way_open(monkeypatch: pytest.MonkeyPatch) -> None:
    with QuietRigger(CONFIG, plugins=PLUGINS) as rigger:
        assert rigger._engine is not None
        ingress = rigger._engine._dispatcher.ingress
        with monkeypatch.context() as patch:
            patch.setattr(ingress, "_write", lambda _message: False)  # so that it is put into the queue

            def interrupt(_token: Any) -> None:
                patch.undo()
                raise KeyboardInterrupt

            patch.setattr(ingress._queue, "put_token", interrupt)
            with pytest.raises(KeyboardInterrupt):
                rigger.submit("add", a=1, b=1)
        assert rigger.submit("add", a=2, b=2).result(DEADLINE)["sum"] == 4
        assert rigger.stats()["events"]["pending"] == 0
