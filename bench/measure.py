"""Taking samples: the peers in turn, round by round, each in a process of its own, each verified."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from bench import tally
from bench.workload import Evidence, Size, Workload

TIME_LIMIT = 300.0
"""Seconds after which a sample is given up."""
_GRACE = 10.0


@dataclass(frozen=True)
class Taken:
    """A sample that was taken, or why there is none.

    Attributes:
        metrics: figures by name; empty if it was refused.
        evidence: what the peer brought.
        refused: why it does not count; empty if it does.
        size: the size of its work.
    """

    metrics: dict[str, float] = field(default_factory=dict)
    evidence: Evidence = field(default_factory=dict)
    refused: str = ""
    size: dict[str, int] = field(default_factory=dict)


def verify(evidence: Evidence, expected: Evidence) -> str:
    """Return what the evidence lacks, empty if it is what was expected."""
    wrong = [
        f"{key} is {evidence.get(key, 'missing')}, expected {value}"
        for key, value in expected.items()
        if key not in evidence or evidence[key] != value
    ]
    return "; ".join(wrong)


def take(workload: Workload, peer: str, size: Size) -> Taken:
    """Take one sample in a process of its own, and verify it."""
    with tempfile.TemporaryDirectory(prefix="rigger-bench-") as name:
        directory = Path(name)
        task, result = directory / "task.json", directory / "result.json"
        task.write_text(json.dumps({"workload": workload.name, "peer": peer, "size": dict(size)}))
        problem = _run_child([sys.executable, "-m", "bench.sample", str(task), str(result)], directory)
        if not result.exists():
            return Taken(refused=problem or "no result", size=dict(size))
        sample = json.loads(result.read_text())
    lacks = verify(sample["evidence"], workload.expect(peer, size))
    return Taken({} if lacks else sample["metrics"], sample["evidence"], lacks, dict(size))


def _run_child(command: Sequence[str], directory: Path) -> str:
    """Run a sample's process to its end; return what went wrong."""
    environment = {**os.environ, tally.DIRECTORY: str(directory), "PYTHONPATH": _python_path()}
    with (directory / "output").open("w+b") as output:
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment, start_new_session=True
        )
        with _ended(child):
            try:
                code = child.wait(TIME_LIMIT)
            except subprocess.TimeoutExpired:
                return f"no result within {TIME_LIMIT:.0f} s"
        output.seek(0)
        lines = output.read().decode(errors="replace").strip().splitlines()
    return "" if code == 0 else f"ended with {code}: {lines[-1] if lines else 'it said nothing'}"


def _python_path() -> str:
    """Return where the sample's process finds this package."""
    root = str(Path(__file__).resolve().parent.parent)
    return os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))


@contextmanager
def _ended(child: subprocess.Popen[bytes]) -> Iterator[None]:
    """Leave no process behind: whatever interrupts, the sample is asked to stop, then killed with its descendants."""
    try:
        yield
    finally:
        if child.poll() is None:
            descendants = _descendants(child.pid)
            child.terminate()
            try:
                child.wait(_GRACE)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
            _, alive = psutil.wait_procs(descendants, 2.0)
            for process in alive:
                process.kill()
        _kill_session(child.pid)


def _descendants(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _kill_session(session: int) -> None:
    """Kill what is left of the session that a sample's process led."""
    for pid in psutil.pids():
        try:
            if pid != session and os.getsid(pid) == session:
                os.kill(pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            continue


def machine() -> dict[str, Any]:
    """Return what the figures depend on."""
    import importlib.metadata
    import platform

    def version(name: str) -> str | None:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            return None

    names = ("rigger_mp", "riggerlib", "loky", "pebble", "mpire", "ray", "distributed", "numpy")
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cpus": len(os.sched_getaffinity(0)),
        "load": os.getloadavg()[0],
        "versions": {name: version(name) for name in names},
    }
