"""Plugins for the tests, in a module that is quick to import in worker processes."""

from __future__ import annotations

import ctypes
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

from rigger_mp import RiggerBasePlugin


class Adder(RiggerBasePlugin):
    stateless = True

    def plugin_initialize(self) -> None:
        self.register_plugin_hook("add")
        self.register_plugin_hook("whoami")

    def add(self, a: Any, b: Any) -> Any:
        return {"sum": a + b}, {"last": a + b}

    def whoami(self) -> Any:
        return {"pid": os.getpid()}, None


class Counter(RiggerBasePlugin):
    """Stateful: counts its calls."""

    def plugin_initialize(self) -> None:
        self.calls = 0
        self.register_plugin_hook("count")

    def count(self) -> Any:
        self.calls += 1
        return {"calls": self.calls, "pid": os.getpid()}, None


class Tally(RiggerBasePlugin):
    """Concurrent: adds one entry, and one list item, to nested globals."""

    stateless = True

    def plugin_initialize(self) -> None:
        self.register_plugin_hook("tally")

    def tally(self, number: int) -> Any:
        return None, {"tally": {"by": {str(number % 10): {str(number): number}}}, "seen": [number]}


class Unpicklable:
    def __init__(self) -> None:
        self.lock = threading.Lock()


class StubbornError(Exception):
    """Pickles, and cannot be unpickled."""

    def __init__(self, first: int, second: int) -> None:
        super().__init__(f"stubborn {first}")
        self.second = second


class LockedError(Exception):
    """Cannot be pickled."""

    def __init__(self) -> None:
        super().__init__("locked text")
        self.lock = threading.Lock()


class Mean(RiggerBasePlugin):
    """Does what plugins should not."""

    def plugin_initialize(self) -> None:
        for event in ("fine", "unpicklable", "stubborn", "locked", "leave", "vanish", "crash", "block", "interrupt"):
            self.register_plugin_hook(event)

    def fine(self) -> Any:
        return {"fine": True}, None

    def unpicklable(self) -> Any:
        return {"value": Unpicklable()}, None

    def stubborn(self) -> None:
        raise StubbornError(1, 2)

    def locked(self) -> None:
        raise LockedError

    def leave(self) -> None:
        sys.exit("leaving")

    def interrupt(self) -> None:
        raise KeyboardInterrupt

    def vanish(self, log: str = os.devnull) -> None:
        with Path(log).open("a") as file:
            file.write("vanish\n")
        os._exit(7)

    def crash(self) -> None:
        ctypes.string_at(0)

    def block(self, started: str) -> None:
        Path(started).write_text(str(os.getpid()))
        time.sleep(600)


class Broken(RiggerBasePlugin):
    """Cannot be initialised."""

    def plugin_initialize(self) -> None:
        raise RuntimeError("no database")


class Suicidal(RiggerBasePlugin):
    """Kills its process while it is initialised."""

    def plugin_initialize(self) -> None:
        os._exit(9)
