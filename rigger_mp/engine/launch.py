"""Starts fresh interpreters: the dispatcher, the Manager, the finder. None of those needs this module itself."""

from __future__ import annotations

import fcntl
import marshal
import multiprocessing.spawn
import os
import signal
import subprocess
import sys

from rigger_mp.engine.process import IGNORED
from rigger_mp.errors import StartError

LAST_STANDARD_FD = 2
# Nothing that is imported is garbage: to look for some, again and again, is put off until there is a role to run.
_BOOT = (
    "import gc,sys,marshal;gc.disable();boot=marshal.loads(bytes.fromhex(sys.argv[1]));sys.path[:]=boot['path'];"
    "from rigger_mp.engine.boot import main;main(boot)"
)


def launch(role: str, fds: dict[str, int], name: str) -> subprocess.Popen[bytes]:
    """Start a fresh interpreter that runs one role of :mod:`rigger_mp.engine.boot`.

    Args:
        role: ``"dispatcher"``, ``"manager"`` or ``"finder"``.
        fds: descriptors to pass on, by name; they keep their numbers.
        name: what process listings show.
    """
    passed = {key: _above_standard(fd) for key, fd in fds.items()}
    boot = {
        "role": role,
        "fds": passed,
        "path": [_absolute(entry) for entry in sys.path],
        "parent": os.getpid(),
    }
    flags: list[str] = getattr(subprocess, "_args_from_interpreter_flags", list)()
    command = [_executable(), *flags, "-c", _BOOT, marshal.dumps(boot).hex(), name]
    # The mask is inherited: a Ctrl-C that comes before the new interpreter ignores it must not end it.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, IGNORED)
    try:
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, close_fds=True, pass_fds=tuple(passed.values()))
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for key, fd in passed.items():
            if fd != fds[key]:
                os.close(fd)


def require_descriptors(count: int) -> None:
    """Make sure that so many descriptors can be opened: better than to fail half-way.

    Raises:
        StartError: they cannot.
    """
    opened: list[int] = []
    try:
        for _ in range(count):
            opened.append(os.open(os.devnull, os.O_RDONLY))
    except OSError as error:
        raise StartError(
            f"the engine needs {count} free file descriptors, and only {len(opened)} can be opened ({error.strerror}): "
            "raise the limit (ulimit -n), have fewer workers, or close what is open"
        ) from error
    finally:
        for fd in opened:
            os.close(fd)


def program_arguments() -> tuple[str, ...]:
    """Return ``sys.argv``, which an embedded interpreter may lack; too much, perhaps, for another command line."""
    return tuple(map(str, getattr(sys, "argv", ())))


def _absolute(entry: str) -> str:
    try:
        return os.path.abspath(entry)  # noqa: PTH100 - "" means here
    except FileNotFoundError:
        return entry  # the current directory was deleted


def _above_standard(fd: int) -> int:
    """Return ``fd``, or a copy of it where it has the number of a standard stream that was closed."""
    return fd if fd > LAST_STANDARD_FD else fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, LAST_STANDARD_FD + 1)


def _executable() -> str:
    executable = multiprocessing.spawn.get_executable()
    if not executable:
        return "python3"
    return executable.decode() if isinstance(executable, bytes) else executable
