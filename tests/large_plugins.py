"""Plugins for the tests of large values, in a module that is quick to import in worker processes."""

from __future__ import annotations

import hashlib
import os
import pickle
import resource
import signal
from pathlib import Path
from typing import Any

from waiting import wait_for

from rigger_mp import RiggerBasePlugin

SIZE = (1 << 20) + 12_345


class Raw:
    """Bytes that travel as a buffer beside the pickle, as arrays do."""

    def __init__(self, data: Any) -> None:
        self.data = memoryview(data)

    def __reduce_ex__(self, protocol: Any) -> Any:
        return Raw, (pickle.PickleBuffer(self.data),)

    def __eq__(self, other: object) -> bool:
        return type(other) is Raw and self.data == other.data

    def __hash__(self) -> int:
        return hash(bytes(self.data))


def digest(data: Any) -> str:
    """Return a digest of a bytes-like object, a text, or a Raw."""
    if isinstance(data, str):
        data = data.encode()
    return hashlib.sha256(data.data if isinstance(data, Raw) else data).hexdigest()


class Reader(RiggerBasePlugin):
    """Reads large values; has nothing of its own."""

    stateless = True

    def plugin_initialize(self) -> None:
        for hook in ("measure", "look", "scribble", "hold", "make", "die_once", "starve", "pass_on", "keep"):
            self.register_plugin_hook(hook)
        self.register_plugin_hook("later", self.later, bg=True)

    def measure(self, data: Any) -> Any:
        return {self.ident: digest(data), "type": type(data).__name__}, None

    def look(self, value: Any) -> Any:
        return {self.ident: value["list"][1] == value["twin"], "size": len(value["list"][1])}, None

    def scribble(self, data: Any) -> Any:
        view = data.data if isinstance(data, Raw) else memoryview(data)
        seen = view[0], view[-1]
        view[0] = view[-1] = 255
        return {self.ident: seen}, None

    def hold(self, data: Any, place: str) -> Any:
        Path(place, f"{self.ident}-{os.getpid()}").touch()
        wait_for(Path(place, "go").exists)
        return {self.ident: digest(data)}, None

    def make(self, seed: int) -> Any:
        return {"made": Raw(bytearray([seed]) * SIZE), "text": "x" * SIZE}, None

    def die_once(self, data: Any, place: str) -> Any:
        if not Path(place, "died").exists():
            Path(place, "died").touch()
            data.data[0] = 1
            os.kill(os.getpid(), signal.SIGKILL)
        return {"digest": digest(data)}, None

    def starve(self, most: int) -> None:
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))

    def pass_on(self, data: Any, place: str) -> None:
        self.fire_hook("later", data=data, name="passed", place=place)

    def later(self, data: Any, name: str, place: str) -> None:
        wait_for(Path(place, "go").exists)
        Path(place, name).write_text(digest(data))

    def keep(self, data: Raw) -> Any:
        self.kept = [*getattr(self, "kept", ()), data]
        return {"kept": len(self.kept), "descriptors": len(os.listdir("/proc/self/fd"))}, None  # noqa: PTH208
