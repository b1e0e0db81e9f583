"""One event after another over one connection: the short ways there and back, and how they give way to the usual."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from quiet import QuietRigger
from remote import Wire, port_of, served
from waiting import wait_for

from rigger_mp import HookError, RiggerClient
from rigger_mp.errors import ConnectionLostError, EngineLost
from rigger_mp.net import globals_replica
from rigger_mp.net.globals_replica import GlobalsReplica
from rigger_mp.net.outbox import Outbox
from rigger_mp.net.standby import Standby


@pytest.fixture(scope="module")
def rigger() -> Iterator[QuietRigger]:
    with served(server_max_reply_bytes=65_536) as rigger:
        yield rigger


@pytest.fixture
def client(rigger: QuietRigger) -> Iterator[RiggerClient]:
    with RiggerClient("127.0.0.1", port_of(rigger)) as client:
        yield client


@pytest.fixture
def ways(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Which calls went the short way."""
    taken: list[bool] = []
    take = Standby._take

    def counting(standby: Standby, call: Any) -> bool:
        taken.append(take(standby, call))
        return taken[-1]

    monkeypatch.setattr(Standby, "_take", counting)
    return taken


def test_calls_in_a_row_go_the_short_way(client: RiggerClient, ways: list[bool]) -> None:
    for number in range(200):
        assert client.fire_hook("sum", grab_result=["sum"], a=number, b=1) == {"sum": number + 1}
        assert client.fire_hook("sum", grab_result=True, a=number, b=1)["last"] == number + 1
        assert client.fire_hook("sum", wait_for_task=True, a=number, b=1) is True
        assert client.fire_hook("sum", a=number, b=1) is None
    assert ways.count(True) > 100


def test_what_goes_wrong_is_told_as_ever(client: RiggerClient) -> None:
    for number in range(20):
        assert client.fire_hook("sum", grab_result=["sum"], a=number, b=1) == {"sum": number + 1}
        with pytest.raises(HookError, match="the reason"):
            client.fire_hook("fail", grab_result=True, text="the reason")
        assert client.fire_hook("strange", grab_result=["set", "nan"]) == {"set": "{1}", "nan": "nan"}
        assert len(client.fire_hook("large", grab_result=["text"], size=60_000)["text"]) == 60_000


def test_the_loop_itself_replies_where_events_end_soon(client: RiggerClient, monkeypatch: pytest.MonkeyPatch) -> None:
    repliers: set[str] = set()
    send_now = Outbox.send_now

    def noting(outbox: Outbox, line: bytes) -> bool:
        repliers.add(threading.current_thread().name)
        return send_now(outbox, line)

    def converse() -> bool:
        for number in range(50):
            assert client.fire_hook("sum", ["sum"], a=number, b=1) == {"sum": number + 1}
        return "rigger_mp server" in repliers

    monkeypatch.setattr(Outbox, "send_now", noting)
    wait_for(converse)


def test_a_dispatcher_that_dies_in_the_midst_of_a_conversation() -> None:
    lost = 0
    with served() as rigger, RiggerClient("127.0.0.1", port_of(rigger)) as client:
        for number in range(400):
            if number % 100 == 50:
                (row,) = (row for row in rigger.stats()["processes"] if row["name"] == "dispatcher")
                os.kill(row["pid"], signal.SIGKILL)
            try:
                assert client.fire_hook("sum", ["sum"], a=number, b=1) == {"sum": number + 1}
            except EngineLost:
                lost += 1
    assert lost <= 4, "each kill loses the one event that was running, at most"


def test_threads_share_a_client_in_every_way(client: RiggerClient, ways: list[bool]) -> None:
    def one_after_another(start: int) -> None:
        for number in range(start, start + 150):
            assert client.fire_hook("sum", grab_result=["sum"], a=number, b=1) == {"sum": number + 1}

    def many_at_once(start: int) -> None:
        futures = [client.submit("sum", ["sum"], a=number, b=1) for number in range(start, start + 600)]
        assert [future.result(60)["sum"] for future in futures] == list(range(start + 1, start + 601))

    with ThreadPoolExecutor(4) as pool:
        tasks = [pool.submit(one_after_another, 1000 * n) for n in range(3)] + [pool.submit(many_at_once, 9000)]
        for task in tasks:
            task.result(120)
    one_after_another(0)
    assert any(ways)


def test_a_slow_event_does_not_hold_up_other_threads(client: RiggerClient, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    for number in range(20):
        client.fire_hook("sum", grab_result=["sum"], a=number, b=1)
    slow = threading.Thread(
        target=client.fire_hook,
        args=("record_when", ["recorded"]),
        kwargs={"gate": str(gate), "path": str(tmp_path / "out"), "text": 1},
    )
    slow.start()
    try:
        for number in range(20):
            assert client.fire_hook("sum", grab_result=["sum"], a=number, b=1) == {"sum": number + 1}
            assert client.submit("sum", ["sum"], a=number, b=1).result(20) == {"sum": number + 1}
    finally:
        gate.touch()
        slow.join()


def test_an_event_may_take_longer_than_the_timeout(rigger: QuietRigger, tmp_path: Path) -> None:
    gate, out = tmp_path / "gate", tmp_path / "out"
    with RiggerClient("127.0.0.1", port_of(rigger), timeout=0.2) as client:
        for number in range(20):
            client.fire_hook("sum", grab_result=["sum"], a=number, b=1)
        timer = threading.Timer(0.7, gate.touch)
        timer.start()
        assert client.fire_hook("record_when", ["recorded"], gate=str(gate), path=str(out), text="x") == {
            "recorded": "x"
        }
        timer.join()


def test_ctrl_c_leaves_the_client_usable(rigger: QuietRigger, tmp_path: Path) -> None:
    script = """
        import signal, sys
        from rigger_mp import RiggerClient
        port, gate, out = sys.argv[1:]
        with RiggerClient("127.0.0.1", port) as client:
            for number in range(20):
                client.fire_hook("sum", grab_result=["sum"], a=number, b=1)
            print("waits", flush=True)
            try:
                client.fire_hook("record_when", ["recorded"], gate=gate, path=out, text="x")
            except KeyboardInterrupt:
                print("interrupted", flush=True)
            sys.stdin.readline()
            assert client.fire_hook("sum", grab_result=["sum"], a=1, b=1) == {"sum": 2}
        print("closed", flush=True)
    """
    gate, out = tmp_path / "gate", tmp_path / "out"
    command = [sys.executable, "-c", textwrap.dedent(script), str(port_of(rigger)), str(gate), str(out)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == "waits\n"
        wait_for(lambda: rigger.stats()["events"]["pending"] == 1)
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == "interrupted\n"
        gate.touch()
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.readline() == "closed\n"
        assert process.wait(20) == 0


def test_closing_the_client_ends_a_call_of_another_thread(rigger: QuietRigger, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    client = RiggerClient("127.0.0.1", port_of(rigger), retry_for=0)
    for number in range(20):
        client.fire_hook("sum", grab_result=["sum"], a=number, b=1)
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(
            client.fire_hook, "record_when", ["recorded"], gate=str(gate), path=str(tmp_path / "out"), text=1
        )
        wait_for(lambda: rigger.stats()["events"]["pending"] == 1)
        client.close(timeout=0.1)
        assert isinstance(call.exception(20), ConnectionLostError)
        gate.touch()


def test_a_reply_that_was_sent_the_short_way_is_sent_again(rigger: QuietRigger) -> None:
    with Wire(port_of(rigger)) as wire:
        for number in range(20):
            event = {"hook_name": "sum", "data": {"a": number, "b": 1}, "key": f"short {number}", "results": ["sum"]}
            first = wire.ask(**event)
            assert first["output"] == {"sum": number + 1}
            assert wire.ask(**event) == first
            tid = first["tid"]
        assert wire.ask(event_name="task_check", tid=tid) == {"message": "NOT FOUND"}
        wire.send(b"\n")
        wire.send(b'{"hook_name": "sum", "data": {"a": 1, "b": 1}, "results": ["sum"]}\r\n')
        assert wire.hear()["output"] == {"sum": 2}


def test_replies_are_whole_when_one_at_a_time_turns_into_many_at_once(rigger: QuietRigger) -> None:
    with Wire(port_of(rigger)) as wire:
        for number in range(100):
            wire.say(hook_name="large", data={"size": 50_000}, id=number, results=["text"])
            if number < 10:  # alone; the rest are many at once
                reply = wire.hear()
                assert (reply["id"], len(reply["output"]["text"])) == (number, 50_000)
        replies = [wire.hear() for _ in range(90)]
    assert sorted(reply["id"] for reply in replies) == list(range(10, 100))
    assert {len(reply["output"]["text"]) for reply in replies} == {50_000}


def test_outputs_have_the_globals_of_their_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(globals_replica, "SEED_EVERY", 2)
    known: list[bool] = []
    values = GlobalsReplica.values_at_end

    def counting(replica: GlobalsReplica, ended: Any) -> Any:
        found = values(replica, ended)
        known.append(found is not None)
        return found

    monkeypatch.setattr(GlobalsReplica, "values_at_end", counting)
    with served() as rigger, RiggerClient("127.0.0.1", port_of(rigger)) as client:

        def check(number: int) -> None:
            output = client.fire_hook("sum", grab_result=True, a=number, b=1)
            expected = {**rigger.global_data, "a": number, "b": 1, "sum": number + 1}
            assert output == expected
            assert output["last"] == number + 1

        def check_some() -> None:
            known.clear()
            for number in range(20):
                check(number)

        check_some()
        assert any(known)
        rigger.global_data["more"] = "text"
        check_some()
        assert any(known)
        rigger.global_data["nested"] = {"a": [1, 2]}
        check_some()
        assert not all(known)
        del rigger.global_data["nested"]
        check_some()
        assert any(known)
        for _ in range(200):  # more than an outcome brings
            rigger.fire_hook("sum", a=1, b=1)
        check_some()
        assert any(known)
        rigger.global_data = {"other": 1}  # type: ignore[assignment]  # riggerlib's way
        check_some()
        assert any(known)


def test_outputs_are_right_after_the_dispatcher_was_replaced() -> None:
    with served() as rigger, RiggerClient("127.0.0.1", port_of(rigger)) as client:
        for number in range(20):
            client.fire_hook("sum", grab_result=True, a=number, b=1)
        dispatcher = next(entry for entry in rigger.stats()["processes"] if entry["role"] == "dispatcher")
        os.kill(dispatcher["pid"], signal.SIGKILL)
        rigger.global_data["after"] = 1
        for number in range(20):
            output = client.fire_hook("sum", grab_result=True, a=number, b=1)
            assert output == {**rigger.global_data, "a": number, "b": 1, "sum": number + 1}
