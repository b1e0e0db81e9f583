"""Plugins for the tests of survival, in a module that is quick to import in worker processes."""

from __future__ import annotations

import contextlib
import os
import stat
import sys
import time
from pathlib import Path
from typing import Any

from rigger_mp import RiggerBasePlugin


class Napper(RiggerBasePlugin):
    """Stateful: all its events run one after another in one process."""

    def plugin_initialize(self) -> None:
        self.register_plugin_hook("nap")
        self.register_plugin_hook("quick")

    def nap(self, seconds: float) -> None:
        if seconds:
            time.sleep(seconds)

    def quick(self, seconds: float) -> Any:
        time.sleep(seconds)
        return {"done": True}, None


class SlowToArrive:
    """Takes for ever to unpickle in another process."""

    def __reduce__(self) -> Any:
        return time.sleep, (600,)


def append(path: str, text: str) -> None:
    """Append a line to a file."""
    with Path(path).open("a") as file:
        file.write(f"{text}\n")


class Blocker(RiggerBasePlugin):
    """Stateless: holds up a worker until a file is there."""

    stateless = True

    def plugin_initialize(self) -> None:
        self.register_plugin_hook("block")
        self.register_plugin_hook("file")
        self.register_plugin_hook("fine")

    def block(self, gate: str) -> Any:
        append(f"{gate}.started", str(os.getpid()))
        while not Path(gate).exists():
            time.sleep(0.005)
        return {"pid": os.getpid()}, None

    def file(self) -> Any:
        return {"filed": True}, None

    def fine(self) -> Any:
        return {"pid": os.getpid()}, None


class Clerk(RiggerBasePlugin):
    """Runs in the archive."""

    def plugin_initialize(self) -> None:
        self.register_plugin_hook("file", bg=True)

    def file(self, log: str) -> None:
        append(log, "filed")


class SlowClerk(RiggerBasePlugin):
    """Runs in the archive, and adds to the globals."""

    def plugin_initialize(self) -> None:
        self.register_plugin_hook("file_slowly", bg=True)

    def file_slowly(self, gate: str, log: str) -> Any:
        while not Path(gate).exists():
            time.sleep(0.005)
        append(log, "filed")
        return None, {"filed": 1}


class Holder(RiggerBasePlugin):
    """Stateful, so ordered: holds up everything behind it until a file is there."""

    def plugin_initialize(self) -> None:
        self.register_plugin_hook("hold")

    def hold(self, gate: str) -> None:
        append(f"{gate}.started", str(os.getpid()))
        while not Path(gate).exists():
            time.sleep(0.005)


class Forger(RiggerBasePlugin):
    """Stateless: writes to whatever descriptor it finds."""

    stateless = True

    def plugin_initialize(self) -> None:
        self.register_plugin_hook("forge")
        self.register_plugin_hook("fine")

    def forge(self) -> Any:
        for entry in Path("/proc/self/fd").iterdir():
            with contextlib.suppress(OSError):
                if stat.S_ISSOCK(os.fstat(int(entry.name)).st_mode):
                    os.write(int(entry.name), b"\0\0\0\5hello")
        return {"forged": True}, None

    def fine(self) -> Any:
        return {"pid": os.getpid()}, None


class Forker(RiggerBasePlugin):
    """Stateless: forks in its hooks, and leaves them in both processes."""

    stateless = True

    def plugin_initialize(self) -> None:
        for hook in ("fork", "fork_and_exit", "fork_and_fail", "fine"):
            self.register_plugin_hook(hook)

    def fork(self) -> Any:
        os.fork()
        return {"pid": os.getpid()}, None

    def fork_and_exit(self) -> Any:
        child = os.fork()
        if not child:
            sys.exit(3)
        return {"status": os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}, None

    def fork_and_fail(self) -> Any:
        child = os.fork()
        if not child:
            raise ValueError("the child fails")
        return {"status": os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}, None

    def fine(self) -> Any:
        return {"pid": os.getpid()}, None


class Digger(RiggerBasePlugin):
    """Stateless: nests values deeper than other processes can follow."""

    stateless = True

    def plugin_initialize(self) -> None:
        self.register_plugin_hook("dig")
        self.register_plugin_hook("fine")

    def dig(self, depth: int, leaf: int) -> Any:
        sys.setrecursionlimit(20_000)
        mapping: Any = {str(leaf): leaf}
        chain: Any = []
        for _ in range(depth):
            mapping, chain = {"deeper": mapping}, [chain]
        return None, {"mapping": mapping, "list": chain}

    def fine(self) -> Any:
        return {"pid": os.getpid()}, {"counted": [1]}


class Poison:
    """Pickles, and cannot be unpickled."""

    def __reduce__(self) -> Any:
        return int, ("poison",)


class Receiver(RiggerBasePlugin):
    def plugin_initialize(self) -> None:
        self.register_plugin_hook("receive")
        self.register_plugin_hook("fine")

    def receive(self, value: Any) -> None:
        raise AssertionError(f"{value} must never arrive")

    def fine(self) -> Any:
        return {"fine": True}, None


class Writer(RiggerBasePlugin):
    """Stateful: its updates of globals are long."""

    def plugin_initialize(self) -> None:
        self.register_plugin_hook("write")

    def write(self, log: str, number: int, text: str) -> Any:
        append(log, str(number))
        return None, {"numbers": [number], "texts": {str(number): text}}
