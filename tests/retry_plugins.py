"""Plugins for the tests of retries and of starts that fail, in a module that is quick to import in worker processes."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from rigger_mp import RiggerBasePlugin


def note(log: str, text: object) -> None:
    """Append a line to a file."""
    with Path(log).open("a") as file:
        file.write(f"{text}\n")


def noted(log: Path) -> list[str]:
    """Return the lines that were noted."""
    return log.read_text().splitlines() if log.exists() else []


class Fragile(RiggerBasePlugin):
    """Stateful, and does not mind overlapping: kills its process as often as it is told to."""

    def plugin_initialize(self) -> None:
        for event in ("die", "hang", "work"):
            self.register_plugin_hook(event, concurrent=True)
        self.register_plugin_hook("die_in_order", self.die)

    def die(self, log: str, number: int, times: int) -> Any:
        note(log, number)
        if noted(Path(log)).count(str(number)) <= times:
            os._exit(7)
        return {"number": number}, {"done": [number]}

    def hang(self, log: str) -> None:
        note(log, "hang")
        time.sleep(600)

    def work(self, log: str, number: int) -> Any:
        note(log, number)
        return {"number": number}, {"done": [number]}


class Neighbour(RiggerBasePlugin):
    """Lives beside the fragile one."""

    def plugin_initialize(self) -> None:
        self.register_plugin_hook("fine", concurrent=True)
        self.register_plugin_hook("leave", concurrent=True)

    def fine(self) -> Any:
        return {"pid": os.getpid()}, None

    def leave(self) -> None:
        os._exit(8)


class Moody(RiggerBasePlugin):
    """Can be initialised only while a file is not there; the file says how it fails."""

    def plugin_initialize(self) -> None:
        switch = Path(self.data["switch"])
        if switch.exists():
            note(self.data["log"], "made in vain")
            if switch.read_text() == "exit":
                os._exit(9)
            raise RuntimeError("no database")
        self.register_plugin_hook("moody", concurrent=True)

    def moody(self) -> Any:
        return {"moody": True}, None
