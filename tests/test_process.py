"""One handle for every process: it says how the process ended, stops it, and leaves nothing of it behind."""

from __future__ import annotations

import multiprocessing.spawn
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from waiting import DEADLINE, wait_for

from rigger_mp.engine import launch as launch_module
from rigger_mp.engine.boot import main as boot_main
from rigger_mp.engine.journal import Journal
from rigger_mp.engine.launch import launch
from rigger_mp.engine.process import WorkerProcess, die_with_parent, kill_tree, open_sentinel, set_name

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")  # of forking, under pytest-xdist

NOBODY = (1 << 22) + 1
"""A process id that no system gives."""

Start = Callable[[Callable[[int, Journal], None]], WorkerProcess]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start worker processes that run a function, and release what the test has not."""
    started: list[WorkerProcess] = []
    with Path(os.devnull).open() as kept:

        def start(main: Callable[[int, Journal], None]) -> WorkerProcess:
            started.append(WorkerProcess("test", main, kept.fileno()))
            return started[-1]

        yield start
        for process in started:
            process.end(0.0)


def echo(fd: int, journal: Journal) -> None:
    """Send back what arrives until the other end is closed."""
    connection = socket.socket(fileno=fd)
    while data := connection.recv(100):
        connection.sendall(data)
    os._exit(0)


def kill_itself(number: int) -> Callable[[int, Journal], None]:
    return lambda fd, journal: os.kill(os.getpid(), number)


def await_answer(process: WorkerProcess) -> bytes:
    assert select.select([process.socket], [], [], DEADLINE)[0]
    return process.socket.recv(100)


@pytest.mark.parametrize(
    ("main", "text"),
    [
        (lambda fd, journal: os._exit(0), "exited with status 0"),
        (lambda fd, journal: os._exit(7), "exited with status 7"),
        (lambda fd, journal: None, "exited with status 1"),
        (kill_itself(signal.SIGKILL), "was killed by SIGKILL"),
        (kill_itself(signal.SIGRTMIN + 1), f"was killed by signal {signal.SIGRTMIN + 1}"),
    ],
)
def test_it_says_how_it_ended(start: Start, main: Callable[[int, Journal], None], text: str) -> None:
    process = start(main)
    wait_for(lambda: not process.is_alive())
    assert process.describe_end() == text


def test_it_is_alive_until_its_socket_is_closed(start: Start) -> None:
    process = start(echo)
    process.socket.send(b"x")
    assert await_answer(process) == b"x"
    assert process.is_alive()
    assert process.describe_end() == "still runs"
    process.let_end()
    process.end(time.monotonic() + DEADLINE)
    assert process.describe_end() == "exited with status 0"


def test_it_stands_still_after_halt_and_goes_on_after_resume(start: Start) -> None:
    process = start(echo)
    assert process.halt()
    assert psutil.Process(process.pid).status() == psutil.STATUS_STOPPED
    process.socket.send(b"x")
    process.resume()
    assert await_answer(process) == b"x"


def test_what_has_ended_is_not_halted(start: Start) -> None:
    process = start(lambda fd, journal: os._exit(3))
    assert select.select([process.sentinel], [], [], DEADLINE)[0]
    assert not process.halt()
    assert not process.halt()
    assert process.describe_end() == "exited with status 3"


def test_at_the_deadline_it_is_killed_with_what_it_started(start: Start) -> None:
    def spawn(fd: int, journal: Journal) -> None:
        # Of a group and a session of its own: found by its parent alone.
        child = subprocess.Popen(["/bin/sleep", "600"], start_new_session=True)
        socket.socket(fileno=fd).sendall(str(child.pid).encode())
        child.wait()

    process = start(spawn)
    child = psutil.Process(int(await_answer(process)))
    process.end(time.monotonic())
    assert process.describe_end() == "was killed by SIGKILL"
    psutil.wait_procs([child], timeout=DEADLINE)
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE


def test_it_needs_no_sentinel(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "pidfd_open")
    process = start(echo)
    assert process.sentinel is None
    process.end(time.monotonic() + DEADLINE)
    assert process.describe_end() == "was killed by SIGKILL"


def test_what_has_ended_has_no_sentinel_and_can_be_killed_again(start: Start) -> None:
    process = start(lambda fd, journal: os._exit(0))
    process.end(time.monotonic() + DEADLINE)
    process.kill()
    process.kill_tree()
    assert process.describe_end() == "exited with status 0"
    assert open_sentinel(NOBODY) is None
    kill_tree(NOBODY)


def test_a_descendant_that_ends_meanwhile_is_not_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = psutil.Popen([sys.executable, "-c", ""])
    ended.wait(DEADLINE)
    running = psutil.Popen(["/bin/sleep", "600"])
    parent = subprocess.Popen(["/bin/sleep", "600"])
    monkeypatch.setattr(psutil.Process, "children", lambda self, recursive: [ended, running])
    kill_tree(parent.pid)
    assert (running.wait(DEADLINE), parent.wait(DEADLINE)) == (-signal.SIGKILL, -signal.SIGKILL)


def test_a_process_whose_parent_has_gone_meanwhile_ends() -> None:
    pid = os.fork()
    if not pid:
        die_with_parent(NOBODY)
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 1


def test_a_launched_process_whose_parent_has_gone_does_nothing() -> None:
    before = signal.getsignal(signal.SIGTERM)
    boot_main({"role": "manager", "parent": NOBODY, "fds": {}})
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux shows the name")
def test_names_are_set_on_linux_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = Path("/proc/self/comm")
    before = shown.read_text().strip()
    set_name("a long name for a test")
    assert shown.read_text().strip() == "a long name for"
    set_name(before)
    monkeypatch.setattr(sys, "platform", "darwin")
    set_name("other")
    assert shown.read_text().strip() == before


@pytest.mark.parametrize(("set_to", "command"), [(None, "python3"), (b"/usr/bin/own", "/usr/bin/own")])
def test_the_interpreter_is_the_one_that_multiprocessing_would_start(
    monkeypatch: pytest.MonkeyPatch, set_to: Any, command: str
) -> None:
    commands: list[list[str]] = []
    monkeypatch.setattr(multiprocessing.spawn, "get_executable", lambda: set_to)
    monkeypatch.setattr(subprocess, "Popen", lambda arguments, **_: commands.append(arguments))
    launch("manager", {}, "shown")
    ((executable, *_, shown),) = commands
    assert (executable, shown) == (command, "shown")


CLOSED_AND_NOWHERE = """
import os, sys, tempfile
folder = tempfile.mkdtemp()
os.chdir(folder)
sys.path.insert(0, "")
os.rmdir(folder)
os.close(0)
from rigger_mp import Rigger, RiggerBasePlugin

class Adder(RiggerBasePlugin):
    def plugin_initialize(self): self.register_plugin_hook("add")
    def add(self, a, b): return {"sum": a + b}, None

with Rigger({"workers": 1, "plugins": {"adder": {"plugin": "adder"}}}, plugins={"adder": Adder}) as rigger:
    print(rigger.fire_hook("add", a=1, b=2)["sum"])
"""


def test_without_a_standard_input_and_without_a_current_directory() -> None:
    root = str(Path(launch_module.__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-c", CLOSED_AND_NOWHERE], capture_output=True, text=True, timeout=100, check=False,
        env={**os.environ, "PYTHONPATH": root},
    )  # fmt: skip
    assert (done.stdout, done.returncode) == ("3\n", 0), done.stderr
