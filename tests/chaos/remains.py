"""What a run may not leave behind: processes, descriptors, shared memory, temporary files, threads."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import psutil

GRACE = 5.0
"""Seconds that what is ending may take to end."""


@dataclass(frozen=True, slots=True)
class Remains:
    """What is there at one moment."""

    children: frozenset[psutil.Process]
    descriptors: tuple[str, ...]
    segments: frozenset[str]
    files: frozenset[str]
    threads: frozenset[str]


def look(temporary: Path) -> Remains:
    """Look at this process, its children, /dev/shm and a directory for temporary files."""
    shared = Path("/dev/shm")
    return Remains(
        frozenset(psutil.Process().children(recursive=True)),
        tuple(sorted(_descriptors())),
        _names(shared) if shared.is_dir() else frozenset(),
        _names(temporary),
        frozenset(f"{thread.name} {thread.ident}" for thread in threading.enumerate()),
    )


def _names(folder: Path) -> frozenset[str]:
    return frozenset(path.name for path in folder.iterdir())


def _descriptors() -> Iterable[str]:
    for entry in Path("/proc/self/fd").iterdir():
        try:
            yield entry.readlink().as_posix()
        except FileNotFoundError:
            continue  # the one that lists the directory


def left_behind(before: Remains, temporary: Path, seen: Iterable[psutil.Process]) -> list[str]:
    """Return what is there now and was not before, once what is ending has had its time.

    Args:
        before: what was there.
        temporary: the directory for temporary files.
        seen: processes that must be gone, children of this one or not.
    """
    known = set(seen)
    found = _differences(before, look(temporary), known)
    end = time.monotonic() + GRACE
    while found and time.monotonic() < end:
        time.sleep(0.05)
        now = _differences(before, look(temporary), known)
        found = [difference for difference in found if difference in now]  # others come and go meanwhile
    return found


def in_use_elsewhere() -> set[str]:
    """Return the names of shared memory that other processes, of other programs, have mapped."""
    found: set[str] = set()
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.pid != os.getpid():
                lines = Path(f"/proc/{process.pid}/maps").read_text().splitlines()
                found |= {line.rpartition("/dev/shm/")[2] for line in lines if "/dev/shm/" in line}
    return found


def _differences(before: Remains, now: Remains, seen: set[psutil.Process]) -> list[str]:
    alive = {process for process in seen if is_alive(process)} | (now.children - before.children)
    found = [f"process {process.pid} is left" for process in alive]
    if len(now.descriptors) > len(before.descriptors):
        extra = Counter(now.descriptors) - Counter(before.descriptors)
        found += [f"descriptor of {name} is left" for name in extra]
    segments = now.segments - before.segments
    if segments:
        segments -= in_use_elsewhere()
    found += [f"/dev/shm/{name} is left" for name in segments]
    found += [f"temporary file {name} is left" for name in now.files - before.files]
    found += [f"thread {name} is left" for name in now.threads - before.threads]
    return found


def is_alive(process: psutil.Process) -> bool:
    """Tell whether a process still runs."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False
