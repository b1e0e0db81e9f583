"""What the host calls, and what instances reach of the engine: constructors, kinds of functions, the link."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from quiet import QuietRigger
from retry_plugins import Moody, Neighbour
from waiting import DEADLINE, wait_for

from rigger_mp import HookError, Rigger, RiggerBasePlugin
from rigger_mp.errors import EncodingError, NotRunningError, WorkerLost


class TwoArguments(RiggerBasePlugin):
    """Has a constructor that takes no engine, and fires hooks all the same."""

    def __init__(self, ident: str, data: Mapping[str, Any]) -> None:
        super().__init__(ident, data)
        self.made = os.getpid()

    def plugin_initialize(self) -> None:
        self.register_plugin_hook("outer", lambda: self.fire_hook("inner"))
        self.register_plugin_hook("inner", lambda: (None, {"inner": self.made == os.getpid()}))


class ThreeArguments(RiggerBasePlugin):
    """Has riggerlib's constructor, and uses what it is given."""

    def __init__(self, ident: str, data: Mapping[str, Any], rigger: Any) -> None:
        super().__init__(ident, data, rigger)
        self.rigger = rigger
        rigger.log_message(f"{ident} is made, {rigger.config['workers']} workers")

    def plugin_initialize(self) -> None:
        self.register_plugin_hook("say")

    def say(self, text: str) -> Any:
        self.rigger.config["spoilt"] = True
        self.rigger.log_message(text)
        return {"spoilt": "spoilt" in self.rigger.config}, None


async def add_later(first: int, second: int) -> Any:
    return {"sum": first + second}, None


class AddsWhenCalled:
    async def __call__(self, first: int) -> Any:
        return await add_later(first, 10)


class Kinds(RiggerBasePlugin):
    """Functions that are no methods."""

    stateless = True

    def plugin_initialize(self) -> None:
        self.register_plugin_hook("partial", partial(partial(add_later), second=100))
        self.register_plugin_hook("object", AddsWhenCalled())
        self.register_plugin_hook("rest", self.take_rest)
        self.register_plugin_hook("large")
        self.register_plugin_hook("fork_and_fire")

    def take_rest(self, named: Any, /, other: Any, **rest: Any) -> Any:
        return {"taken": [named, other], "rest": sorted(rest)}, None

    def large(self, size: int, number: int) -> Any:
        return {"block": bytes([number]) * size}, None

    def fork_and_fire(self, report: str) -> None:
        child = os.fork()
        if child:
            os.waitpid(child, 0)
            return
        try:
            self.fire_hook("partial", first=1)
        except NotRunningError as error:
            Path(report).write_text(str(error))
        os._exit(0)


class FailsOnce(RiggerBasePlugin):
    """Stateless: the copy that is made first fails."""

    stateless = True

    def plugin_initialize(self) -> None:
        try:
            Path(self.data["first"]).touch(exist_ok=False)
        except FileExistsError:
            self.register_plugin_hook("work", lambda: None)
        else:
            raise RuntimeError("the first one fails")


PLUGINS: dict[str, type] = {
    "two": TwoArguments,
    "three": ThreeArguments,
    "kinds": Kinds,
    "fails_once": FailsOnce,
    "moody": Moody,
    "neighbour": Neighbour,
}


@pytest.fixture
def rigger() -> Iterator[QuietRigger]:
    instances = {name: {"plugin": name} for name in ("two", "three", "kinds")}
    with QuietRigger({"workers": 2, "plugins": instances}, plugins=PLUGINS) as engine:
        yield engine


def fire(rigger: Rigger, hook: str, **arguments: Any) -> Any:
    return rigger.submit(hook, **arguments).result(DEADLINE)


def test_a_constructor_without_an_engine_still_fires_hooks(rigger: QuietRigger) -> None:
    fire(rigger, "outer")
    rigger.drain(DEADLINE)
    assert rigger.global_data["inner"] is True


def test_a_constructor_with_an_engine_gets_messages_through_and_a_copy_of_the_configuration(
    rigger: QuietRigger,
) -> None:
    assert fire(rigger, "say", text="from a hook")["spoilt"] is False
    wait_for(lambda: {"three is made, 2 workers", "from a hook"} <= set(rigger.messages))


@pytest.mark.parametrize(("hook", "total"), [("partial", 101), ("object", 11)])
def test_what_is_async_behind_a_partial_or_an_object_is_run(rigger: QuietRigger, hook: str, total: int) -> None:
    assert fire(rigger, hook, first=1)["sum"] == total


def test_the_rest_is_what_no_parameter_named(rigger: QuietRigger) -> None:
    result = fire(rigger, "rest", named=1, other=2, more=3)
    assert (result["taken"], result["rest"]) == ([1, 2], ["config", "more"])


@pytest.mark.parametrize("size", [10_000, 100_000])
def test_results_of_any_size_arrive_in_their_place(rigger: QuietRigger, size: int) -> None:
    for _ in range(3):
        futures = [rigger.submit("large", size=size if number % 2 else 1, number=number) for number in range(40)]
        blocks = [future.result(DEADLINE)["block"] for future in futures]
        assert [block[0] for block in blocks] == list(range(40))
        assert {len(block) for block in blocks} == {1, size}


def test_a_child_that_a_hook_forked_cannot_fire(rigger: QuietRigger, tmp_path: Path) -> None:
    report = tmp_path / "report"
    fire(rigger, "fork_and_fire", report=str(report))
    assert "forked by a hook" in report.read_text()
    assert fire(rigger, "partial", first=1)["sum"] == 101


def test_an_instance_that_fails_in_one_worker_is_left_out_everywhere(tmp_path: Path) -> None:
    entry = {"plugin": "fails_once", "first": str(tmp_path / "first")}
    with QuietRigger({"workers": 2, "plugins": {"fails": entry}}, plugins=PLUGINS) as rigger:
        assert any("'fails'" in text and "the first one fails" in text for text in rigger.messages)
        assert "work" not in rigger.stats()["hooks"]
        fire(rigger, "work")


def test_an_instance_that_cannot_be_made_again_cannot_be_configured(tmp_path: Path) -> None:
    entry = {"plugin": "moody", "switch": str(tmp_path / "switch"), "log": str(tmp_path / "log")}
    instances = {"neighbour": {"plugin": "neighbour"}, "moody": entry}
    with QuietRigger({"workers": 1, "plugins": instances}, plugins=PLUGINS) as rigger:
        rigger.configure_plugin("moody")
        (tmp_path / "switch").write_text("raise")
        with pytest.raises(WorkerLost):
            fire(rigger, "leave")
        with pytest.raises(HookError, match=r"'moody' could not be initialised(.|\n)*no database"):
            rigger.configure_plugin("moody")


def test_what_cannot_be_pickled_fails_where_a_hook_fires_it() -> None:
    class Firing(RiggerBasePlugin):
        def plugin_initialize(self) -> None:
            self.register_plugin_hook("outer", lambda: self.fire_hook("inner", value=threading.Lock()))

    with QuietRigger({"workers": 1, "plugins": {"firing": {"plugin": "firing"}}}, plugins={"firing": Firing}) as rigger:
        with pytest.raises(HookError, match="argument 'value'") as caught:
            fire(rigger, "outer")
        assert isinstance(caught.value.failures[0].exception, EncodingError)
