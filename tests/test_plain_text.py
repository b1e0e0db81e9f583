"""Strings of derived classes, as names and as text: they count as the strings that they are."""

from __future__ import annotations

import copy
import enum
import logging
import pickle
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from quiet import QuietRigger
from waiting import DEADLINE, wait_for

from rigger_mp import HookError, RiggerBasePlugin


class Event(str, enum.Enum):  # noqa: UP042 - str() of a member is not its value
    START = "start"


class Kind(enum.StrEnum):
    STOP = "stop"


class Safe(str):
    """As template engines mark strings."""

    __slots__ = ()

    def __str__(self) -> str:
        return self


class Texts(RiggerBasePlugin):
    """Gives derived strings to whatever takes strings."""

    def plugin_initialize(self) -> None:
        """Bind the functions."""
        self.register_plugin_hook(Event.START, self.start)
        self.register_plugin_hook(Kind.STOP, self.start)
        for name in ("fail", "leave", "say", "nest"):
            self.register_plugin_hook(Safe(name))

    def start(self) -> Any:
        return {Safe("seen"): Event.START}, {Event.START: Safe("value")}

    def fail(self) -> None:
        raise ValueError(Safe("no luck"))

    def leave(self) -> None:
        sys.exit(Safe("gone"))

    def say(self) -> None:
        print(Safe("printed"))
        logging.getLogger(Safe("texts")).warning(Safe("logged"))

    def nest(self) -> None:
        self.fire_hook(Event.START)


class Keeper(QuietRigger):
    """Keeps what hooks print and log, too."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.texts: list[str] = []
        super().__init__(*args, **kwargs)

    def handle_output(self, output: Any) -> None:
        self.texts.append(output.text)

    def handle_record(self, record: logging.LogRecord) -> None:
        self.texts.append(f"{record.name}: {record.getMessage()}")


@pytest.fixture(scope="module")
def rigger() -> Iterator[Keeper]:
    config = {"workers": 1, "plugins": {Safe("texts"): {"plugin": Safe("texts")}}}
    with Keeper(config, plugins={Safe("texts"): Texts}) as rigger:
        yield rigger


@pytest.mark.parametrize("name", ["start", "stop", Event.START, Kind.STOP, Safe("start")])
def test_a_hook_named_by_a_string_enumeration_is_that_of_the_string(rigger: Keeper, name: str) -> None:
    result = rigger.submit(name).result(DEADLINE)
    assert (result.hook, result["seen"], result["start"]) == (str.__str__(name), "start", "value")


def test_callbacks_too(rigger: Keeper) -> None:
    name = rigger.register_hook_callback(Event.START, "pre", lambda: ({"called": True}, None), Kind.STOP)
    assert rigger.submit("start").result(DEADLINE)["called"]
    rigger.unregister_hook_callback(Event.START, "pre", name)
    assert "called" not in rigger.submit("start").result(DEADLINE)


def test_instances_too(rigger: Keeper) -> None:
    rigger.configure_plugin(Safe("texts"))
    handle = rigger.get_instance_obj("texts")
    assert handle is not None
    handle.configure()


@pytest.mark.parametrize(("hook", "text"), [("fail", "ValueError: no luck"), ("leave", "SystemExit: gone")])
def test_what_an_exception_says(rigger: Keeper, hook: str, text: str) -> None:
    with pytest.raises(HookError, match=text):
        rigger.submit(Safe(hook)).result(DEADLINE)


def test_what_is_printed_and_logged(rigger: Keeper) -> None:
    rigger.submit("say").result(DEADLINE)
    wait_for(lambda: rigger.texts == ["printed\n", "texts: logged"])


def test_nested_hooks(rigger: Keeper) -> None:
    before = rigger.stats()["hooks"]["start"]["events"]
    rigger.submit("nest").result(DEADLINE)
    rigger.drain(DEADLINE)
    assert rigger.stats()["hooks"]["start"]["events"] == before + 1


@pytest.mark.parametrize("name", [None, 3, b"start"])
def test_what_is_no_string_is_no_name(rigger: Keeper, name: Any) -> None:
    for fire in (rigger.submit, rigger.fire_hook):
        with pytest.raises(TypeError, match="the name of a hook must be a string"):
            fire(name)
    with pytest.raises(TypeError, match="the name of a hook must be a string"):
        rigger.register_hook_callback(name, "pre", print)


def test_a_result_travels_as_a_plain_mapping(rigger: Keeper) -> None:
    result = rigger.submit("start", of=1).result(DEADLINE)
    expected = {"of": 1, "seen": "start", "start": "value"}
    assert pickle.loads(pickle.dumps(result)) == copy.deepcopy(result) == expected
    assert rigger.submit("start", result=result).result(DEADLINE)["result"] == expected
