"""A server that is killed, and the next one: what was accepted is known again, and nothing runs twice."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import psutil
import pytest
from quiet import QuietRigger
from remote import Wire, served, server_config
from test_net_server import start_program
from waiting import wait_for

from rigger_mp import RiggerClient
from rigger_mp.errors import EngineLost, KeyReuseError, ServerRestartedError, StartError

TOTAL = 3000


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
    ran = ledger(out)
    assert max(ran.values()) == 1
    assert set(range(TOTAL)) - lost <= set(ran)
    assert len(lost) < TOTAL / 2
