"""Plugins for the tests of server and clients."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

from rigger_mp import RiggerBasePlugin


class Recorder(RiggerBasePlugin):
    """Appends what it is told to a file: what ran, and how often."""

    stateless = True

    def plugin_initialize(self) -> None:
        for event in ("record", "start_session", "record_slowly", "record_when"):
            self.register_plugin_hook(event)

    def record(self, path: str, text: Any) -> None:
        with Path(path).open("a") as file:
            file.write(f"{text}\n")

    def record_slowly(self, path: str, text: Any) -> None:
        time.sleep(0.002)
        self.record(path, text)

    def record_when(self, gate: str, path: str, text: Any) -> Any:
        while not Path(gate).exists():
            time.sleep(0.005)
        self.record(path, text)
        return {"recorded": text}, None

    def start_session(self, arg1: str, arg2: str) -> Any:
        return {"both": arg1 + arg2}, {"session": arg1}


class Strange:
    """Unpickles anywhere, and JSON cannot express it."""

    def __repr__(self) -> str:
        return "<Strange>"


class Outputs(RiggerBasePlugin):
    """Returns all kinds of things."""

    stateless = True

    def plugin_initialize(self) -> None:
        for event in ("strange", "large", "fail", "sum"):
            self.register_plugin_hook(event)

    def strange(self) -> Any:
        updates = {
            "object": Strange(),
            "set": {1},
            "nan": float("nan"),
            "huge": 10**5000,
            "surrogate": "\ud800",
            "keys": {1: "one", (2, 3): "pair", None: "none"},
            "nested": {"deep": [Strange(), (1, 2)]},
        }
        return updates, {"shared": Strange()}

    def large(self, size: int) -> Any:
        return {"text": "x" * size}, None

    def fail(self, text: str) -> None:
        raise ValueError(text)

    def sum(self, a: int, b: int) -> Any:
        return {"sum": a + b}, {"last": a + b}


class Counting(RiggerBasePlugin):
    """Counts, one event after another, without a process of its own for each."""

    def plugin_initialize(self) -> None:
        self.register_plugin_hook("tick")
        self.register_plugin_hook("ticks")
        self.seen: dict[str, int] = {}
        self.lock = threading.Lock()

    def tick(self, name: str) -> None:
        with self.lock:
            self.seen[name] = self.seen.get(name, 0) + 1

    def ticks(self) -> Any:
        return {"seen": self.seen}, None


class Holding(RiggerBasePlugin):
    """Runs one event at a time, and each only once a file is there."""

    def plugin_initialize(self) -> None:
        self.register_plugin_hook("hold")

    def hold(self, gate: str, path: str, text: Any) -> Any:
        with Path(path).open("a") as file:
            print(f"begin-{text}", file=file, flush=True)
            while not Path(gate).exists():
                time.sleep(0.005)
            print(f"end-{text}", file=file)
        return {"held": text}, None


PLUGINS = {"recorder": Recorder, "outputs": Outputs, "counting": Counting, "holding": Holding}
