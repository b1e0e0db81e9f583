"""Ctrl-C reaches a run wherever it waits: a terminal sends it to the whole process group, and so do these tests."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from waiting import wait_for

PLUGIN = '''
import pathlib, time
from rigger_mp import RiggerBasePlugin


class Holder(RiggerBasePlugin):
    """Writes down what it does, and takes its time."""

    def plugin_initialize(self):
        self.write("initialising")
        time.sleep(self.data.get("initialising", 0))
        self.register_plugin_hook("hold")
        self.register_plugin_hook("finish_session")

    def write(self, text):
        with pathlib.Path(self.data["log"]).open("a") as log:
            log.write(text + "\\n")

    def hold(self, seconds):
        self.write("holding")
        time.sleep(seconds)

    def finish_session(self):
        self.write("finished")
'''
HINT = "again kills"


class Run:
    """A run of the command in a session, and so a process group, of its own; its messages are collected."""

    def __init__(self, directory: Path, *arguments: str) -> None:
        self.log = directory / "log"
        self.process = subprocess.Popen(
            [sys.executable, "-m", "rigger_mp.cli", "run", str(directory / "rigger.yaml"), *arguments],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip
        self.messages = ""
        self._reader = threading.Thread(target=self._collect)
        self._reader.start()

    def _collect(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.messages += line

    def write(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()

    def wait_for(self, text: str) -> None:
        wait_for(lambda: self.log.exists() and text in self.log.read_text())

    def interrupt(self) -> None:
        os.killpg(self.process.pid, signal.SIGINT)

    def interrupt_twice(self) -> list[psutil.Process]:
        """Return the processes that there were at the second Ctrl-C."""
        self.interrupt()
        wait_for(lambda: HINT in self.messages)
        processes = psutil.Process(self.process.pid).children(recursive=True)
        self.interrupt()
        return processes

    def status(self) -> int:
        return self.process.wait(30)

    def close(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self._reader.join()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            assert stream is not None
            stream.close()


class Runs:
    """Starts runs in a directory, and ends them all."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.started: list[Run] = []
        (directory / "holder.py").write_text(PLUGIN)

    def start(self, *arguments: str, options: str = "", data: str = "") -> Run:
        log = self.directory / "log"
        (self.directory / "rigger.yaml").write_text(
            f"workers: 1\nplugin_path: .\n{options}\nplugins:\n  holder: {{plugin: holder, log: {log}{data}}}\n"
        )
        self.started.append(Run(self.directory, *arguments))
        return self.started[-1]


@pytest.fixture
def runs(tmp_path: Path) -> Iterator[Runs]:
    runs = Runs(tmp_path)
    yield runs
    for run in runs.started:
        run.close()


def hold(seconds: float) -> str:
    return f'{{"hook_name": "hold", "data": {{"seconds": {seconds}}}}}'


def test_ctrl_c_while_it_waits_for_the_next_line_of_standard_input(runs: Runs) -> None:
    run = runs.start("--events", "-")
    run.write(hold(0))
    run.wait_for("holding")
    run.interrupt()
    assert run.status() == 130, run.messages
    assert run.log.read_text().splitlines()[-1] == "finished"
    assert "Fatal Python error" not in run.messages


def test_ctrl_c_from_a_terminal_leaves_the_workers_to_finish(runs: Runs) -> None:
    run = runs.start("--events", "-")
    run.write(hold(1.5))
    run.wait_for("holding")
    run.interrupt()
    assert run.status() == 130, run.messages
    assert run.log.read_text().splitlines()[-1] == "finished"
    assert "failed" not in run.messages


def test_a_second_ctrl_c_kills_while_standard_input_is_open(runs: Runs) -> None:
    run = runs.start("--events", "-")
    run.write(hold(600))
    run.wait_for("holding")
    processes = run.interrupt_twice()
    assert run.status() == 137, run.messages
    assert processes
    assert psutil.wait_procs(processes, timeout=2)[1] == []


def test_a_second_ctrl_c_kills_while_the_queue_is_full(runs: Runs) -> None:
    run = runs.start("--events", "-", options="queue_size: 2")
    for _ in range(10):
        run.write(hold(600))
    run.wait_for("holding")
    run.interrupt_twice()
    assert run.status() == 137, run.messages


def test_a_second_ctrl_c_kills_while_plugins_are_initialised(runs: Runs) -> None:
    run = runs.start("--events", "-", data=", initialising: 600")
    run.wait_for("initialising")
    processes = run.interrupt_twice()
    assert run.status() == 137, run.messages
    assert psutil.wait_procs(processes, timeout=2)[1] == []


def test_sigterm_counts_as_ctrl_c(runs: Runs) -> None:
    run = runs.start("--events", "-")
    run.write(hold(0))
    run.wait_for("holding")
    run.process.terminate()
    assert run.status() == 130, run.messages
    assert run.log.read_text().splitlines()[-1] == "finished"
