"""Plugins for the tests of survival, in a module that is quick to import in worker processes."""

from __future__ import annotations

import time
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
