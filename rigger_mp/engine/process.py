"""One handle for every process of the engine: start it, watch it, kill it with all its children, reap it.

The dispatcher, the Manager and the finder are *launched* (:mod:`rigger_mp.engine.launch`): fresh interpreters, so that
nothing of the user's process (threads, locks, descriptors, ``__main__``) leaks into them and no main guard is needed.
Workers and the archive are *forked* from the dispatcher, which has a single thread and imports no user code: a
replacement is there in milliseconds.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import gc
import os
import resource
import select
import signal
import socket
import sys
import time
from collections.abc import Callable
from typing import Any, NoReturn

from rigger_mp.engine.journal import Journal

_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15
HIGH_FD = 100
"""Descriptors of the engine inside a worker start here, out of the way of what plugins may close."""


def _ignore(signum: int, frame: object) -> None:
    """Do nothing: a handler, unlike ``SIG_IGN``, is not inherited by what a hook executes."""


IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""What a terminal or a service manager sends to all; it is left to the user's process."""


def ignore_signals() -> None:
    """Ignore those signals, which were blocked while this interpreter started."""
    for number in IGNORED:
        signal.signal(number, _ignore)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, IGNORED)


def open_sentinel(pid: int) -> int | None:
    """Return a descriptor that becomes readable when a process ends, ``None`` where there is no such thing."""
    if not hasattr(os, "pidfd_open"):
        return None
    try:
        return os.pidfd_open(pid)
    except OSError:
        return None


class WorkerProcess:
    """A forked worker, as its parent holds it.

    Args:
        name: what it is called.
        main: runs in it; gets its end of the socket.
        kept: a descriptor that it keeps open, too.

    Attributes:
        name: ``worker-0``, ``archive``.
        pid: its process id.
        socket: the parent's end of its socket, non-blocking.
        journal: the page shared with it.
        sentinel: readable once it has ended, or ``None``: then the socket's end of file says so.
    """

    def __init__(self, name: str, main: Callable[[int, Journal], None], kept: int) -> None:
        self.name = name
        self.journal = Journal()
        self.socket, theirs = socket.socketpair()
        self.socket.setblocking(False)
        self.pid = _fork(lambda: main(_keep_only(theirs.detach(), kept), self.journal), name)
        theirs.close()
        _lead_group(self.pid)
        self.sentinel = open_sentinel(self.pid)
        self.started = time.monotonic()
        self._status: int | None = None

    def is_alive(self) -> bool:
        """Tell whether it still runs, and reap it if not."""
        if self._status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self._status = status
        return self._status is None

    def describe_end(self) -> str:
        """Say how it ended: ``exited with status 1``, ``was killed by SIGKILL``."""
        if self._status is None:
            return "still runs"
        code = os.waitstatus_to_exitcode(self._status)
        if code >= 0:
            return f"exited with status {code}"
        try:
            return f"was killed by {signal.Signals(-code).name}"
        except ValueError:
            return f"was killed by signal {-code}"

    def halt(self) -> bool:
        """Stop it where it is; return true once it stands still, false if it has ended instead."""
        if self._status is None:
            os.kill(self.pid, signal.SIGSTOP)
            _, status = os.waitpid(self.pid, os.WUNTRACED)
            if not os.WIFSTOPPED(status):
                self._status = status
        return self._status is None

    def resume(self) -> None:
        """Let it go on after :meth:`halt`."""
        os.kill(self.pid, signal.SIGCONT)

    def kill(self) -> None:
        """Kill it and what it started, as far as that stayed in its process group."""
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            return

    def kill_tree(self) -> None:
        """Kill it and everything that it started, process groups or not."""
        kill_tree(self.pid)
        self.kill()

    def reap(self) -> None:
        """Wait for its end, which must be certain, and release everything."""
        if self._status is None:
            _, self._status = os.waitpid(self.pid, 0)
        self.close()
        if self.sentinel is not None:
            os.close(self.sentinel)
            self.sentinel = None
        self.journal.close()

    def end(self, deadline: float) -> None:
        """Wait until it has ended by itself, kill it at the deadline, and release everything."""
        if self.sentinel is not None:
            poller = select.poll()
            poller.register(self.sentinel, select.POLLIN)
            poller.poll(max(0.0, deadline - time.monotonic()) * 1000)
        if self.is_alive():
            self.kill_tree()
        else:
            self.kill()
        self.reap()

    def let_end(self) -> None:
        """Have it end when it has run what it was sent; what it still sends can be read."""
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Close the socket: the worker ends when it has run what it was sent."""
        self.socket.close()


def kill_tree(pid: int) -> None:
    """Send SIGKILL to a process and to all its descendants."""
    import psutil  # noqa: PLC0415 - workers are forked before the dispatcher ever needs it

    try:
        descendants = psutil.Process(pid).children(recursive=True)
    except psutil.Error:
        descendants = []
    _kill(pid)
    for descendant in descendants:
        try:
            descendant.kill()
        except psutil.Error:
            continue


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def _lead_group(pid: int) -> None:
    """Give a process a group of its own, so that what its hooks start can be killed with it."""
    try:
        os.setpgid(pid, pid)
    except (ProcessLookupError, PermissionError):
        return


def _fork(main: Callable[[], None], name: str) -> int:
    parent = os.getpid()
    # What is frozen is not touched by the child's garbage collector, and so stays shared with the parent.
    gc.freeze()
    pid = os.fork()
    if not pid:
        _become(main, name, parent)
    gc.unfreeze()
    return pid


def _become(main: Callable[[], None], name: str, parent: int) -> NoReturn:
    """Be the child of a fork: run ``main``, which ends the process."""
    try:
        gc.enable()  # the parent, if it still imports, has put that off
        die_with_parent(parent)
        _lead_group(os.getpid())
        set_name(name)
        main()
    finally:
        os._exit(1)


def _keep_only(fd: int, *others: int) -> int:
    """Close every descriptor but the standard ones and these, which get high numbers; return that of ``fd``."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    high = [fcntl.fcntl(kept, fcntl.F_DUPFD_CLOEXEC, min(HIGH_FD, limit // 2)) for kept in (fd, *others)]
    start = 3
    for kept in sorted(high):
        os.closerange(start, kept)
        start = kept + 1
    os.closerange(start, os.sysconf("SC_OPEN_MAX"))
    return high[0]


_libc: Any = None


def _prctl(option: int, argument: Any) -> None:
    global _libc  # noqa: PLW0603 - loaded once, before the first fork
    if not sys.platform.startswith("linux"):
        return
    if _libc is None:
        _libc = ctypes.CDLL(None)
    _libc.prctl(option, argument, 0, 0, 0)


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when the thread that forked it ends (Linux)."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def set_name(name: str) -> None:
    """Set the name that ``ps -o comm`` and ``top`` show (Linux, 15 characters)."""
    _prctl(_PR_SET_NAME, ctypes.create_string_buffer(name.encode()[:15]))
