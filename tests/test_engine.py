"""The engine as the user's process holds it: interrupted while it starts, told by user code that fails, stopped."""

from __future__ import annotations

import os
import pickle
import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest
from engine_plugins import Adder
from quiet import QuietRigger
from waiting import DEADLINE, wait_for

from rigger_mp import Rigger, RiggerBasePlugin
from rigger_mp.engine import messages as m
from rigger_mp.engine.blueprint import Boot, Limits
from rigger_mp.engine.dispatcher_client import DispatcherProcess
from rigger_mp.engine.host import HostSettings
from rigger_mp.engine.ingress import Ingress
from rigger_mp.engine.marks import Marks
from rigger_mp.engine.segments import Segment
from rigger_mp.errors import NotRunningError

CONFIG: dict[str, Any] = {"workers": 1, "plugins": {"adder": {"plugin": "adder"}}}
PLUGINS = {"adder": Adder}


class SlowStart(RiggerBasePlugin):
    """Never gets ready."""

    def plugin_initialize(self) -> None:
        Path(self.data["started"]).touch()
        time.sleep(600)


def stop_still(pid: int) -> None:
    os.kill(pid, signal.SIGSTOP)
    wait_for(lambda: psutil.Process(pid).status() == psutil.STATUS_STOPPED)


def test_ctrl_c_while_it_starts_leaves_nothing_behind(tmp_path: Path) -> None:
    started = tmp_path / "started"
    entry = {"plugin": "slow", "started": str(started)}
    rigger = QuietRigger({"workers": 1, "plugins": {"slow": entry}}, plugins={"slow": SlowStart})

    def interrupt() -> None:
        wait_for(started.exists)
        os.kill(os.getpid(), signal.SIGINT)

    with ThreadPoolExecutor(1) as pool:
        interrupting = pool.submit(interrupt)
        with pytest.raises(KeyboardInterrupt):
            rigger.start()
        interrupting.result(DEADLINE)
    assert psutil.wait_procs(psutil.Process().children(recursive=True), timeout=DEADLINE)[1] == []
    with pytest.raises(NotRunningError):
        rigger.fire_hook("add", a=1, b=2)


def test_user_code_that_fails_on_the_results_thread_is_reported_and_stops_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Failing(Rigger):
        def handle_failure(self, exc: tuple[Any, Any, Any]) -> None:
            raise LookupError("handle_failure fails, too")

    reported: list[threading.ExceptHookArgs] = []
    monkeypatch.setattr(threading, "excepthook", reported.append)
    with Failing(CONFIG, plugins=PLUGINS) as rigger:
        rigger.fire_hook("add", a=1, wait=False)
        wait_for(lambda: reported)
        assert rigger.submit("add", a=1, b=2).result(DEADLINE)["sum"] == 3
    assert [(args.exc_type, args.thread and args.thread.name) for args in reported] == [
        (LookupError, "rigger_mp results")
    ]


def test_who_waits_for_room_is_told_at_once_where_there_is_some() -> None:
    told: list[str] = []
    with QuietRigger(CONFIG, plugins=PLUGINS) as rigger:
        assert rigger._engine is not None
        rigger._engine.when_room(lambda: told.append("room"))
        assert told == ["room"]
        engine = rigger._engine
    engine.when_room(lambda: told.append("never again"))
    assert told == ["room", "never again"]


def test_stopping_waits_for_no_dispatcher_that_stands_still(monkeypatch: pytest.MonkeyPatch) -> None:
    with ThreadPoolExecutor(1) as pool:
        rigger = QuietRigger(CONFIG, plugins=PLUGINS).start()
        rigger.fire_hook("add", a=1, b=2)
        assert rigger._engine is not None
        dispatcher, reader = rigger.stats()["processes"][1]["pid"], rigger._engine.reader
        detach = reader.detach

        def stop_still_and_detach(version: int) -> None:
            stop_still(dispatcher)
            detach(version)

        monkeypatch.setattr(reader, "detach", stop_still_and_detach)
        stopping = pool.submit(rigger.stop)
        try:
            stopping.result(DEADLINE)
        finally:
            if psutil.pid_exists(dispatcher):
                os.kill(dispatcher, signal.SIGCONT)
    assert not psutil.pid_exists(dispatcher)
    assert rigger.global_data["last"] == 3


# -- the dispatcher as the engine sees it ----------------------------------------------------------------


@pytest.fixture
def dispatcher() -> Iterator[DispatcherProcess]:
    settings = HostSettings(pickle.dumps({}), "extend", True, None, {})
    boot = Boot(1, (), pickle.dumps(settings), Limits(), True, False, "extend", 4, 10, {}, {})
    marks, (reading, writing) = Marks(4), os.pipe()
    process = DispatcherProcess(boot, writing, marks, lambda: 0)
    yield process
    process.kill()
    process.reap(DEADLINE)
    process.close()
    marks.close()
    os.close(reading)


def test_a_dispatcher_that_does_not_end_in_time_is_killed(dispatcher: DispatcherProcess) -> None:
    dispatcher.reap(0.1)
    assert dispatcher.process.returncode == -signal.SIGKILL
    assert not dispatcher.adopt_manager(os.dup(0))
    dispatcher.let_go()


def test_what_a_dispatcher_has_no_room_for_goes_with_its_message(
    dispatcher: DispatcherProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[m.Event] = []
    monkeypatch.setattr(dispatcher.ingress, "put", sent.append)
    file = os.memfd_create("segment")
    os.write(file, b"content")
    event = m.Event(1, "hook", b"", (Segment(7, fd=file),))
    stop_still(dispatcher.process.pid)
    while not sent or sent[-1].segments == ((7, None),):
        dispatcher.send(event)
    assert sent[-1] == m.Event(1, "hook", b"", ((7, b"content"),))
    assert len(sent) > 1


def test_what_cannot_be_written_into_the_queue_is_reported_unless_its_reader_is_gone(
    capfd: pytest.CaptureFixture[str],
) -> None:
    ingress = Ingress(lambda: 0)
    try:
        ingress.put(m.Log(object()))  # type: ignore[arg-type]
        wait_for(lambda: "unmarshallable" in capfd.readouterr().err)
        ingress.put(m.Log("after"))
        reading = os.dup(ingress.reading_fd)
        assert os.read(reading, 1000)
        os.close(reading)
        ingress.close_reader()
        ingress.put(m.Log("nobody reads it"))
        ingress.put_now(m.Log("nor this"))
    finally:
        ingress.close()
    assert capfd.readouterr().err == ""


def test_a_dispatcher_reads_no_boot_from_whoever_is_gone() -> None:
    ours, theirs = socket.socketpair()
    ours.close()
    with theirs, pytest.raises(SystemExit):
        Boot.receive(theirs)


