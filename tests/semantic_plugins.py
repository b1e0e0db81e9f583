"""Plugins for the tests of the semantics, in a module that is quick to import in worker processes."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Any

from waiting import wait_for

from rigger_mp import RiggerBasePlugin


class Meeting(RiggerBasePlugin):
    """Notes when it ran. ``meet`` lasts until ``people`` events of the hook have come to the place."""

    stateless = True

    def plugin_initialize(self) -> None:
        self.register_plugin_hook("meet")
        self.register_plugin_hook("meet_in_order", self.nap)

    def meet(self, place: str, name: str, people: int) -> Any:
        start = time.monotonic()
        Path(place, name).touch()
        wait_for(lambda: len(list(Path(place).iterdir())) >= people)
        return {"interval": (start, time.monotonic()), "pid": os.getpid()}, None

    def nap(self) -> Any:
        start = time.monotonic()
        time.sleep(0.02)
        return {"interval": (start, time.monotonic())}, None


class Orderly(RiggerBasePlugin):
    """Keeps the other plugins' hooks ordered: it is stateful and says nothing else."""

    def plugin_initialize(self) -> None:
        self.register_plugin_hook("meet_in_order", lambda: None)


class Sequence(RiggerBasePlugin):
    """Stateful, and does not mind overlapping: it numbers the events as they reach it."""

    def plugin_initialize(self) -> None:
        self.calls = 0
        for event in ("number", "number_late"):
            self.register_plugin_hook(event, self.number, concurrent=True)
        self.register_plugin_hook("crash", lambda: os._exit(3))
        self.register_plugin_hook("whoami", lambda: ({self.ident: os.getpid()}, None))

    def number(self) -> Any:
        self.calls += 1
        return {f"number_{self.ident}": self.calls}, None


class Waiter(RiggerBasePlugin):
    """Concurrent hooks that wait for a file."""

    stateless = True

    def plugin_initialize(self) -> None:
        for event in ("wait", "look", "set", "read"):
            self.register_plugin_hook(event)

    def wait(self, started: str, release: str) -> None:
        Path(started).touch()
        wait_for(Path(release).exists)

    def look(self, value: Any = None, other: Any = None) -> Any:
        return {"seen": value, "seen_other": other}, {"looked": [value]}

    def set(self, new: Any) -> Any:
        return None, {"value": new, "tree": {"leaf": new}}

    def read(self, value: Any) -> Any:
        return {"seen": value}, None


class Looker(RiggerBasePlugin):
    """Stateful, and does not mind overlapping: tells what it sees before it waits."""

    def plugin_initialize(self) -> None:
        self.register_plugin_hook("peek", concurrent=True)

    def peek(self, value: Any, other: Any, directory: str) -> Any:
        Path(directory, f"{self.ident} peeks").touch()
        wait_for(Path(directory, "end").exists)
        return {"peeked": [(value, other)]}, {"other": "hook's"}


class Spoiler(RiggerBasePlugin):
    """Changes what it is given in place, and keeps it."""

    def plugin_initialize(self) -> None:
        self.kept: list[Any] = []
        self.register_plugin_hook("spoil")
        self.register_plugin_hook("show")

    def spoil(self, items: list[int], shared: dict[str, Any], config: dict[str, Any]) -> Any:
        seen = {"items": list(items), "shared": list(shared), "config": "spoilt" in config}
        items.append(len(items))
        shared["spoilt"] = self.ident
        config["spoilt"] = True
        self.kept.append(items)
        return {f"seen_{self.ident}": seen}, None

    def show(self) -> Any:
        return {f"kept_{self.ident}": self.kept}, None


class Late(RiggerBasePlugin):
    """Returns its updates as late as its entry says."""

    def plugin_initialize(self) -> None:
        self.register_plugin_hook("merge")

    def merge(self) -> Any:
        time.sleep(self.data["delay"])
        update = {"order": [self.ident], "winner": self.ident, "tree": {"by": {self.ident: 1}, "last": self.ident}}
        return update, update


class Taker(RiggerBasePlugin):
    """Functions with all kinds of parameters."""

    def plugin_initialize(self) -> None:
        for event in ("need", "default", "everything", "positional", "wait_a_while", "hand_over"):
            self.register_plugin_hook(event)
        self.register_plugin_hook("part", self.positional)

    def need(self, first: Any, second: Any, third: Any) -> Any:
        return {"taken": [first, second, third]}, None

    def default(self, value: Any = "default") -> Any:
        return {"taken": value}, None

    def everything(self, named: Any, **rest: Any) -> Any:
        return {"taken": named, "rest": sorted(rest)}, None

    def positional(self, first: Any, second: Any = 2, /, third: Any = 3) -> Any:
        return {"taken": [first, second, third]}, None

    async def wait_a_while(self, value: Any) -> Any:
        await asyncio.sleep(0)
        return {"taken": value}, {"loop": id(asyncio.get_running_loop())}

    def hand_over(self, returned: Any) -> Any:
        return returned


class CustomError(Exception):
    """Travels with what it holds."""

    def __init__(self, code: int) -> None:
        super().__init__(f"code {code}")
        self.code = code

    def __reduce__(self) -> Any:
        return CustomError, (self.code,)


class Failing(RiggerBasePlugin):
    """Updates, and fails where it is told to."""

    def plugin_initialize(self) -> None:
        self.register_plugin_hook("work")

    def work(self, bad: tuple[str, ...] = ()) -> Any:
        if self.ident in bad:
            self.fail()
        return {"done": [self.ident]}, {"done": [self.ident]}

    def fail(self) -> None:
        raise CustomError(len(self.ident))


class Nester(RiggerBasePlugin):
    """Fires itself for ever."""

    def plugin_initialize(self) -> None:
        self.register_plugin_hook("nest")

    def nest(self, level: int) -> Any:
        self.fire_hook("nest", level=level + 1)
        return None, {"deepest": level}
