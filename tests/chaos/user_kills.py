"""How soon everything is gone after the user's process was killed, at a random moment of its life.

A program in a process of its own starts an engine and keeps it busy: events, large values, background work, and a hook
that starts processes itself. It is killed while it starts or runs. Whatever it started, directly or not, is known by a
variable in its environment.
"""

from __future__ import annotations

import os
import random
import statistics
import subprocess
import sys
import textwrap
import time
import uuid
from pathlib import Path
from tempfile import TemporaryDirectory

METHODS = ("fork", "spawn", "forkserver")
PROMISED = 2.0
"""Seconds within which everything is gone."""
PATIENCE = 10.0
"""Seconds after which what is still there is called left behind."""
MARK = "RIGGER_MP_USER_KILL"
LIFE = 1.5
"""Seconds of the program's life in which it is killed: it starts in the first of them."""
REPOSITORY = Path(__file__).parent.parent.parent

PROGRAM = """
import multiprocessing, subprocess, sys, time
from rigger_mp import Rigger, RiggerBasePlugin

if __name__ == "__main__":
    multiprocessing.set_start_method(sys.argv[1])

class Busy(RiggerBasePlugin):
    stateless = True
    def plugin_initialize(self):
        self.register_plugin_hook("work")
        self.register_plugin_hook("spawn")
        self.register_plugin_hook("note", self.note, bg=True)
    def work(self, number):
        time.sleep(0.002 * (number % 3))
        return {"big": b"x" * (number % 50) * 10_000}, {"done": {str(number): 1}}
    def spawn(self):
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]).returncode = 0
        multiprocessing.Process(target=time.sleep, args=(600,)).start()
    def note(self, number):
        time.sleep(0.001)

rigger = Rigger({"workers": 2, "plugins": {"b": {"plugin": "b"}}}, plugins={"b": Busy}).start()
rigger.fire_hook("spawn")
for number in range(1_000_000):
    rigger.fire_hook("work", wait=False, number=number)
    if number % 5 == 0:
        rigger.fire_hook("note", wait=False, number=number)
"""


def measure_user_kills(rounds: int) -> int:
    """Kill a program ``rounds`` times for each start method, print how soon all was gone; 1 if that was too late."""
    failures = 0
    for method in METHODS:
        with TemporaryDirectory() as directory:
            seconds = [kill_user(method, Path(directory), random.uniform(0, LIFE)) for _ in range(rounds)]
        print(f"{method}: {rounds} programs killed; all their processes were gone within "
              f"median {statistics.median(seconds):.3f} s, most {max(seconds):.3f} s", flush=True)  # fmt: skip
        failures += sum(value > PROMISED for value in seconds)
    print(f"rounds in which something was there after {PROMISED:g} s: {failures}")
    return 1 if failures else 0


def kill_user(method: str, directory: Path, moment: float) -> float:
    """Run a program, kill it that many seconds later, and return the seconds until nothing of it was left.

    Raises:
        AssertionError: processes, temporary files or shared memory were left behind.
    """
    mark, temporary = uuid.uuid4().hex, directory / "tmp"
    temporary.mkdir(exist_ok=True)
    script = directory / "program.py"
    script.write_text(textwrap.dedent(PROGRAM))
    shared = shared_memory()
    environment = {**os.environ, "TMPDIR": str(temporary), "PYTHONPATH": str(REPOSITORY), MARK: mark}
    with subprocess.Popen([sys.executable, str(script), method], env=environment, stderr=subprocess.DEVNULL) as program:
        time.sleep(moment)
        program.kill()
        start = time.monotonic()
    while (left := marked(mark)) and time.monotonic() - start < PATIENCE:
        time.sleep(0.005)
    seconds = time.monotonic() - start
    assert not left, f"killed after {moment:.3f} s, {method}: processes {left} were left behind"
    assert not list(temporary.iterdir()), f"killed after {moment:.3f} s, {method}: temporary files were left behind"
    while (named := shared_memory() - shared) and time.monotonic() - start < PATIENCE:
        time.sleep(0.05)  # what other programs have there goes again
    assert not named, f"killed after {moment:.3f} s, {method}: {named} were left in shared memory"
    return seconds


def marked(mark: str) -> list[int]:
    """Return the pids of the processes that have a mark in their environment."""
    entry = f"{MARK}={mark}".encode()
    return [int(path.parent.name) for path in Path("/proc").glob("[0-9]*/environ") if entry in _read(path)]


def _read(path: Path) -> list[bytes]:
    try:
        return path.read_bytes().split(b"\0")
    except OSError:  # it has ended
        return []


def shared_memory() -> set[str]:
    """Return the names of what is in shared memory."""
    return {path.name for path in Path("/dev/shm").glob("*")}
