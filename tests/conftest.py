"""What every test is held to: it leaves no process and no thread of an engine behind."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator

import psutil
import pytest
from hypothesis import HealthCheck, settings

# How long an example takes says nothing on a slow and busy machine.
settings.register_profile("rigger_mp", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("rigger_mp")

# What a shell starts in the background ignores Ctrl-C, and so would every child of the tests.
signal.signal(signal.SIGINT, signal.default_int_handler)

GRACE = 5.0
"""Seconds that what is ending already may take to end."""


def _children() -> set[psutil.Process]:
    return set(psutil.Process().children(recursive=True))


def _engine_threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name.startswith("rigger")}


def _describe(process: psutil.Process) -> str:
    try:
        return f"process {process.pid} {process.cmdline()[-1]!r}"  # of an engine's: its role
    except (psutil.Error, IndexError):
        return repr(process)


def _check_for_leaks(processes: set[psutil.Process], threads: set[threading.Thread]) -> None:
    _, alive = psutil.wait_procs(_children() - processes, timeout=GRACE)
    left = [_describe(process) for process in alive]
    for thread in _engine_threads() - threads:
        thread.join(GRACE)
        if thread.is_alive():
            left.append(f"thread {thread.name!r}")
    if left:
        pytest.fail("left behind: " + "; ".join(left))


@pytest.fixture(scope="module", autouse=True)
def no_leaks_of_the_module() -> Iterator[None]:
    """Fail on what a module's own fixtures left behind."""
    processes, threads = _children(), _engine_threads()
    yield
    _check_for_leaks(processes, threads)


@pytest.fixture(autouse=True)
def no_leaks() -> Iterator[None]:
    """Fail on a child process or an engine's thread that was not there before the test."""
    processes, threads = _children(), _engine_threads()
    yield
    _check_for_leaks(processes, threads)
