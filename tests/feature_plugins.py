"""Plugins for the tests of the page's features, in a module that is quick to import in worker processes."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from waiting import wait_for

from rigger_mp import RiggerBasePlugin


class TestLog(RiggerBasePlugin):
    """The page's example, which also tells what it was given."""

    __test__ = False

    def plugin_initialize(self) -> None:
        self.register_plugin_hook("start_test", self.start_test)
        self.register_plugin_hook("finish_test", self.finish_test)

    def start_test(self, test_name: str, test_location: str, artifact_path: str) -> Any:
        with Path(f"{artifact_path}-{self.ident}.log").open("w") as file:
            file.write(test_name + "\n")
            file.write(str(time.time()) + "\n")
        return None, {"steps": [("hook", test_name, test_location, artifact_path)]}

    def finish_test(self, test_name: str, artifact_path: str, test_result: str) -> None:
        with Path(f"{artifact_path}-{self.ident}.log").open("w+") as file:
            file.write(test_result)


class Greeter(RiggerBasePlugin):
    """Greets in the words that its entry of the configuration gives."""

    def plugin_initialize(self) -> None:
        self.register_plugin_hook("greet")
        self.register_plugin_hook("part", self.say_goodbye)

    def greet(self, name: str) -> Any:
        return {"greetings": [f"{self.ident}: {self.data.get('word', 'hello')} {name}"]}, None

    def say_goodbye(self, name: str) -> Any:
        return {"goodbyes": [f"{self.ident}: goodbye {name}"]}, None


class Rebinder(RiggerBasePlugin):
    """Binds two functions to one event."""

    def plugin_initialize(self) -> None:
        self.register_plugin_hook("ask", self.first)
        self.register_plugin_hook("ask", self.second)

    def first(self) -> Any:
        return {"answers": ["first"]}, None

    def second(self) -> Any:
        return {"answers": ["second"]}, None


class Reader(RiggerBasePlugin):
    """Returns what it is given."""

    def plugin_initialize(self) -> None:
        self.register_plugin_hook("read")
        self.register_plugin_hook("read_config", lambda config: ({"seen": config}, None))

    def read(self, value: Any = "nothing", path: Any = ()) -> Any:
        return {"seen": value, "path": [*path, "hook"], "mine": "hook"}, {"last": value, "trail": ["hook"]}


class Slow(RiggerBasePlugin):
    """In the background, waits until it is allowed to go on."""

    def plugin_initialize(self) -> None:
        self.register_plugin_hook("pack")
        self.register_plugin_hook("pack_one", bg=True)
        self.register_plugin_hook("where", lambda: ({"pids": [os.getpid()]}, None))

    def pack(self, permission: str, value: Any = None) -> Any:
        wait_for(Path(permission).exists)
        return {"dropped": True}, {"packed": [value], "packer": os.getpid()}

    def pack_one(self, permission: str) -> Any:
        return self.pack(permission, "one")


class Meeting(RiggerBasePlugin):
    """Notes when it ran; ``meet`` lasts until the other instances have come."""

    def plugin_initialize(self) -> None:
        self.register_plugin_hook("meet")
        self.register_plugin_hook("pass_by")

    def meet(self, place: str) -> Any:
        start = time.monotonic()
        Path(place, self.ident).touch()
        wait_for(lambda: len(list(Path(place).iterdir())) == self.data["people"])
        return {"intervals": [(start, time.monotonic())]}, None

    def pass_by(self) -> Any:
        start = time.monotonic()
        time.sleep(0.02)
        return {"intervals": [(start, time.monotonic())]}, None


class Failing(RiggerBasePlugin):
    """Fails beside a function that does not."""

    def plugin_initialize(self) -> None:
        self.register_plugin_hook("work", self.fail if self.data.get("fails") else self.work)

    def work(self) -> Any:
        return {"done": [self.ident]}, {"done": [self.ident]}

    def fail(self) -> None:
        raise LookupError(f"{self.ident} has lost its way")


class Configurable(RiggerBasePlugin):
    """Does nothing until it is configured."""

    def plugin_initialize(self) -> None:
        self.register_plugin_hook("show")

    def configure(self, host: str, port: int = 80) -> None:
        self.address = f"{host}:{port}"
        self.configured = True

    @RiggerBasePlugin.check_configured
    def show(self, prefix: str) -> Any:
        return {"shown": prefix + self.address}, None


class Caller(RiggerBasePlugin):
    """Fires hooks from inside a hook."""

    def plugin_initialize(self) -> None:
        self.register_plugin_hook("outer")
        self.register_plugin_hook("inner")

    def outer(self, depth: int) -> Any:
        self.fire_hook("inner", depth=depth)
        return None, {"calls": [f"outer {depth}"]}

    def inner(self, depth: int) -> Any:
        if depth > 0:
            self.fire_hook("inner", depth=depth - 1)
        return None, {"calls": [f"inner {depth}"]}


class OldStyle(RiggerBasePlugin):
    """Has riggerlib 3.1's own constructor."""

    def __init__(self, ident: str, data: Any, rigger_instance: Any) -> None:
        super().__init__(ident, data, rigger_instance)
        self.prefix = data["prefix"]

    def plugin_initialize(self) -> None:
        self.register_plugin_hook("tell", lambda: ({"told": self.prefix + self.ident}, None))
