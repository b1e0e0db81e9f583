"""rigger-mp serve, fire, status and terminate, run as a user runs them."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from rigger_mp.cli.main import make_parser

PLUGIN = """
import time
from rigger_mp import RiggerBasePlugin


class Journal(RiggerBasePlugin):
    def plugin_initialize(self):
        for event in ("note", "add", "fail", "hold"):
            self.register_plugin_hook(event)

    def note(self, text):
        with open(self.data["log"], "a") as log:
            log.write(f"{text}\\n")

    def add(self, a, b):
        return {"sum": a + b}, {"last": a + b}

    def fail(self):
        raise ValueError("no luck")

    def hold(self, seconds):
        time.sleep(seconds)
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    (tmp_path / "journal.py").write_text(PLUGIN)
    path = tmp_path / "rigger.yaml"
    path.write_text(
        "workers: 1\nserver_port: 0\nplugin_path: .\n"
        f"plugins:\n  journal: {{plugin: journal, log: {tmp_path / 'log'}}}\n"
    )
    return path


class Served:
    """A running ``rigger-mp serve``."""

    def __init__(self, config: Path, **environment: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "rigger_mp.cli", "serve", str(config)],
            stderr=subprocess.PIPE, text=True, env={**os.environ, **environment},
        )  # fmt: skip
        assert self.process.stderr is not None
        ready = self.process.stderr.readline()
        assert ready.startswith("ready: listening at 127.0.0.1:"), ready
        self.server = ready.split()[3].rstrip(",")

    def call(self, *arguments: object, stdin: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "rigger_mp.cli", *map(str, arguments), "--server", self.server],
            input=stdin, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()


@pytest.fixture
def served(config: Path) -> Iterator[Served]:
    server = Served(config)
    yield server
    server.end()


def lines(*rows: dict[str, Any]) -> str:
    return "".join(f"{json.dumps(row)}\n" for row in rows)


def test_fire_one_hook(served: Served, tmp_path: Path) -> None:
    done = served.call("fire", "add", "a=1", "b=2", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["sum"] == 3
    assert served.call("fire", "note", "text=some words", "--wait").returncode == 0
    assert (tmp_path / "log").read_text() == "some words\n"


def test_a_failing_hook_is_told_where_it_is_waited_for(served: Served) -> None:
    assert served.call("fire", "fail").returncode == 0
    done = served.call("fire", "fail", "--wait")
    assert done.returncode == 1
    assert "journal.fail: ValueError: no luck" in done.stderr


def test_fire_many_events(served: Served, tmp_path: Path) -> None:
    rows = [{"hook_name": "note", "data": {"text": number}} for number in range(500)]
    done = served.call("fire", "--events", "-", "--wait", stdin=lines(*rows) + "{wrong\n")
    assert done.returncode == 1
    assert "standard input:501: no JSON" in done.stderr
    assert "501" in done.stderr.splitlines()[-1]
    assert (tmp_path / "log").read_text().split() == [str(number) for number in range(500)]


def test_fire_many_events_and_print_what_they_return(served: Served) -> None:
    rows = [{"hook_name": "add", "data": {"a": number, "b": 1}} for number in range(300)]
    rows.insert(7, {"hook_name": "fail", "data": {}})
    done = served.call("fire", "--events", "-", "--json", stdin=lines(*rows) + "{wrong\n")
    assert done.returncode == 1
    outputs = [json.loads(line) for line in done.stdout.splitlines()]
    assert outputs.pop(7) is None
    assert outputs.pop() is None
    assert [output["sum"] for output in outputs] == list(range(1, 301))


@pytest.mark.parametrize("timeout", ["0", "-1", "nan", "inf", "soon"])
def test_a_timeout_that_is_none_is_refused(timeout: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        make_parser().parse_args(["status", f"--timeout={timeout}"])
    assert "expected a number of seconds above 0" in capfd.readouterr().err


@pytest.mark.parametrize("arguments", [["fire"], ["fire", "add", "a"], ["fire", "x", "--events", "-"]])
def test_wrong_usage(served: Served, arguments: list[str]) -> None:
    assert served.call(*arguments).returncode == 2


def test_no_server_is_said_within_the_timeout() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    done = subprocess.run(
        [sys.executable, "-m", "rigger_mp.cli", "status", "--server", f"127.0.0.1:{port}", "--timeout", "1"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert str(port) in done.stderr


def test_status_and_terminate(served: Served) -> None:
    served.call("fire", "add", "a=1", "b=2", "--wait")
    done = served.call("status")
    assert done.returncode == 0, done.stderr
    assert "worker-0" in done.stdout
    assert json.loads(served.call("status", "--json").stdout)["hooks"]["add"]["events"] == 1
    assert served.call("terminate").returncode == 0
    assert served.process.wait(30) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains(served: Served, tmp_path: Path, number: signal.Signals) -> None:
    rows = [{"hook_name": "hold", "data": {"seconds": 0.5}}]
    rows += [{"hook_name": "note", "data": {"text": text}} for text in range(300)]
    assert served.call("fire", "--events", "-", stdin=lines(*rows)).returncode == 0
    served.process.send_signal(number)
    assert served.process.wait(60) == 0
    assert (tmp_path / "log").read_text().split() == [str(text) for text in range(300)]


def test_nobody_reads_what_it_says_and_it_stops_all_the_same(served: Served) -> None:
    assert served.process.stderr is not None
    served.process.stderr.close()
    served.process.stderr = None
    served.process.terminate()
    assert served.process.wait(60) == 0


def test_a_second_signal_kills(served: Served) -> None:
    served.call("fire", "hold", "seconds=600")
    processes = psutil.Process(served.process.pid).children(recursive=True)
    served.process.terminate()
    assert served.process.stderr is not None
    assert "another signal kills" in served.process.stderr.readline()
    served.process.terminate()
    assert served.process.wait(30) == 137
    assert psutil.wait_procs(processes, timeout=2)[1] == []


def test_a_service_manager_is_told(config: Path, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(30)
        served = Served(config, NOTIFY_SOCKET=str(tmp_path / "notify"))
        assert manager.recv(100) == b"READY=1"
        served.process.terminate()
        assert manager.recv(100) == b"STOPPING=1"
        assert served.process.wait(30) == 0
        served.end()
