"""A server that is killed, and the next one: what was accepted is known again, and nothing runs twice."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from remote import Wire, port_of, served
from test_net_server import start_program
from waiting import wait_for

from rigger_mp import RiggerClient
from rigger_mp.engine.marks import Marks
from rigger_mp.errors import EngineLost, ServerRestartedError, StartError
from rigger_mp.net import event_store
from rigger_mp.net.event_store import EventStore, State

TOTAL = 2000
WORKERS = 2


class Program:
    """A server in a process of its own, on one port, killed and started again."""

    def __init__(self, **keys: Any) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.port = int(listener.getsockname()[1])
        self._keys = "".join(f"{name}={value!r}," for name, value in keys.items())
        self.start()

    def start(self) -> None:
        self._process, _ = start_program(f"server_port={self.port},{self._keys}")

    def kill(self) -> None:
        """Kill all of it; some of it may end later than this returns."""
        victims = [psutil.Process(self._process.pid), *psutil.Process(self._process.pid).children(recursive=True)]
        for victim in victims:
            with contextlib.suppress(psutil.NoSuchProcess):
                victim.kill()
        self.close()

    def kill_user_process(self) -> None:
        """Kill the one process; the others end by themselves."""
        self._process.kill()
        self.close()

    def terminate(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        self.close()

    def close(self) -> None:
        self._process.wait(20)
        assert self._process.stdout is not None
        self._process.stdout.close()


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Program]:
    program = Program(server_store=str(tmp_path / "store"))
    yield program
    program.kill()


@pytest.fixture
def program_without_store() -> Iterator[Program]:
    program = Program()
    yield program
    program.kill()


def stream(client: RiggerClient, out: Path, hook: str = "record") -> list[Future[Any]]:
    """Fire events of all kinds; with what they return, where anything."""
    return [
        client.submit(hook, ["text"] if number % 3 == 2 else False, number % 3 == 1, path=str(out), text=number)
        for number in range(TOTAL)
    ]


def done(futures: list[Future[Any]]) -> int:
    return sum(future.done() for future in futures)


def lost_of(futures: list[Future[Any]], kind: type[Exception]) -> set[int]:
    """Return which events ended in that error; the others have the right results."""
    lost = set()
    for number, future in enumerate(futures):
        if (error := future.exception(60)) is not None:
            assert isinstance(error, kind), error
            lost.add(number)
        else:
            assert future.result() == (None, True, {"text": number})[number % 3]
    return lost


def check_ran_once(out: Path, lost: set[int], kills: int) -> None:
    ran = ledger(out)
    assert max(ran.values()) == 1
    # Acknowledged, wanted by nobody any more, and killed before they got to write: the server logs them.
    killed = set(range(TOTAL)) - lost - set(ran)
    assert len(killed) <= kills * WORKERS
    assert all(number % 3 == 0 for number in killed)


def ledger(out: Path) -> Counter[int]:
    return Counter(map(int, out.read_text().split()))


@pytest.mark.parametrize("share", [0.05, 0.4, 0.8])
def test_each_event_runs_once_although_everything_is_killed_in_mid_stream(
    program: Program, tmp_path: Path, share: float
) -> None:
    out = tmp_path / "out"
    with RiggerClient("127.0.0.1", program.port, retry_for=60) as client:
        futures = stream(client, out)
        wait_for(lambda: done(futures) > share * TOTAL)
        program.kill()
        program.start()
        lost = lost_of(futures, EngineLost)
        wait_for(lambda: client.status()["events"]["pending"] == 0)
    check_ran_once(out, lost, kills=1)
    assert len(lost) < TOTAL / 2


def test_it_may_be_killed_again_and_again(program: Program, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with RiggerClient("127.0.0.1", program.port, retry_for=60) as client:
        futures = stream(client, out)
        for share in (0.1, 0.3, 0.5):
            wait_for(lambda share=share: done(futures) > share * TOTAL)
            program.kill_user_process()
            program.start()
        lost = lost_of(futures, EngineLost)
        wait_for(lambda: client.status()["events"]["pending"] == 0)
    check_ran_once(out, lost, kills=3)


def test_what_waited_runs_in_the_next_server_and_what_ran_does_not(program: Program, tmp_path: Path) -> None:
    out, gate = tmp_path / "out", tmp_path / "gate"
    waiting = {"gate": str(gate), "path": str(out)}
    with Wire(program.port) as wire:
        for number in range(20):
            data = {**waiting, "text": number}
            assert "tid" in wire.ask(hook_name="hold", data=data, key=f"key {number}")
        assert "tid" in wire.ask(hook_name="hold", data={**waiting, "text": 20})
        wire.say(hook_name="hold", data={**waiting, "text": 21}, key="waits", results=["held"])
        wait_for(out.exists)  # the first of them, which are ordered, has begun
        program.kill()
    gate.touch()
    program.start()
    with Wire(program.port) as wire:
        assert wire.ask(hook_name="hold", data={**waiting, "text": 21}, key="waits", results=["held"])["output"] == {
            "held": 21
        }
        in_order = [f"{what}-{number}" for number in range(1, 22) for what in ("begin", "end")]
        assert out.read_text().split() == ["begin-0", *in_order]
        replies = [
            wire.ask(hook_name="hold", data={**waiting, "text": number}, key=f"key {number}") for number in range(20)
        ]
        assert replies[0]["error"]["type"] == "EngineLost"
        assert {reply["message"] for reply in replies[1:]} == {"OK"}
        other = wire.ask(hook_name="hold", data={**waiting, "text": "other"}, key="key 5")
        assert other["error"]["type"] == "KeyReuseError"


def test_replies_are_known_to_the_next_server(program: Program) -> None:
    with Wire(program.port) as wire:
        succeeded = wire.ask(hook_name="sum", data={"a": 1, "b": 2}, key="sum", results=["sum"])
        failed = wire.ask(hook_name="fail", data={"text": "the reason"}, key="fail", wait_for_task=True)
        before = wire.ask(event_name="hello")["instance"]
    for stop in (program.kill, program.terminate):
        stop()
        program.start()
        with Wire(program.port) as wire:
            assert wire.ask(event_name="hello")["instance"] == before
            again = wire.ask(hook_name="sum", data={"a": 1, "b": 2}, key="sum", results=["sum"])
            assert again == succeeded
            assert wire.ask(hook_name="fail", data={"text": "the reason"}, key="fail", wait_for_task=True) == failed
            assert wire.ask(event_name="status")["stats"]["events"]["accepted"] == 0


def test_without_a_store_what_a_killed_server_may_have_run_is_not_sent_to_the_next(
    program_without_store: Program, tmp_path: Path
) -> None:
    program, out = program_without_store, tmp_path / "out"
    never = {"gate": str(tmp_path / "gate"), "path": str(tmp_path / "held")}
    with RiggerClient("127.0.0.1", program.port, retry_for=60) as client:
        futures = stream(client, out)
        held = client.submit("hold", ["held"], **never, text=TOTAL)  # however fast the server, this has not ended
        wait_for(lambda: done(futures) > 0.3 * TOTAL)
        program.kill()
        program.start()
        assert isinstance(held.exception(60), ServerRestartedError)
        lost_of(futures, ServerRestartedError)
        assert client.fire_hook("sum", grab_result=["sum"], a=1, b=2) == {"sum": 3}
        wait_for(lambda: client.status()["events"]["pending"] == 0)
    assert max(ledger(out).values()) == 1


def test_two_servers_cannot_share_a_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_store, "LOCK_TIME", 0.1)
    with (
        served(server_store=str(tmp_path / "store")),
        pytest.raises(StartError, match="another server"),
        served(server_store=str(tmp_path / "store")),
    ):
        pass
    with served(server_store=str(tmp_path / "store")):
        pass


def test_a_store_that_cannot_be_made_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="server_store"), served(server_store=str(tmp_path / "missing" / "store")):
        pass


# -- its files ------------------------------------------------------------------------------------------------


def test_its_files_are_deleted_when_nothing_in_them_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_store, "FILE_SIZE", 20_000)
    with closing(EventStore(tmp_path / "store", 10)) as store:
        for number in range(5000):
            fill(store, f"tid-{number}", 10 + number)
            store.end(f"tid-{number}", succeeded=True)
            store.forget(f"tid-{number}")
        assert len(list(tmp_path.iterdir())) < 10
    with closing(EventStore(tmp_path / "store", 10)) as store:
        assert store.recovered == []


def fill(store: EventStore, tid: str, token: int) -> None:
    store.reserve(len(LINE))
    store.accept(tid, token, LINE)


LINE = b'{"hook_name": "anything"}'


def test_marks_tell_what_has_started(tmp_path: Path) -> None:
    with closing(EventStore(tmp_path / "store", 10)) as store:
        marks = Marks(10, os.dup(store.marks_fd))
        for tid, token in (("started", 11), ("waiting", 12), ("reused", 13), ("by", 23), ("ended", 14)):
            fill(store, tid, token)
        for token in (11, 23):
            marks.start(token)
        store.end("ended", succeeded=True)
        marks.close()
    for _ in range(2):  # what was found is found again
        with closing(EventStore(tmp_path / "store", 99)) as store:
            states = {event.tid: event.state for event in store.recovered}
            assert states.pop("waiting") is State.NOT_STARTED
            assert states.pop("ended") is State.SUCCEEDED
            assert set(states) == {"started", "reused", "by"}
            assert State.NOT_STARTED not in states.values()


@settings(max_examples=30)
@given(cut=st.integers(0, 2000), garbage=st.binary(max_size=40))
def test_a_record_that_was_not_written_whole_ends_the_file(cut: int, garbage: bytes) -> None:
    with TemporaryDirectory() as directory:
        path = Path(directory) / "store"
        with closing(EventStore(path, 10)) as store:
            for number in range(20):
                fill(store, f"tid-{number}", 10 + number)
        file = path.with_name("store.1")
        data = file.read_bytes()
        file.write_bytes(data[:cut] + garbage + bytes(200))
        with closing(EventStore(path, 10)) as store:
            found = [event.tid for event in store.recovered]
        assert found == [f"tid-{number}" for number in range(len(found))]


def test_a_full_disk_refuses_events_and_loses_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(event_store, "FILE_SIZE", 5000)
    with served(server_store=str(tmp_path / "store")) as rigger, Wire(port_of(rigger)) as wire:
        monkeypatch.setattr(os, "posix_fallocate", fail)
        replies = [wire.ask(hook_name="sum", data={"a": n, "b": 0}, key=f"{n}", results=["sum"]) for n in range(100)]
    refused = [reply["error"] for reply in replies if reply["message"] == "ERROR"]
    assert refused
    assert all(error["type"] == "LimitError" and "No space left" in error["message"] for error in refused)
    assert [r["output"]["sum"] for r in replies if r["message"] == "OK"] == list(range(100 - len(refused)))
