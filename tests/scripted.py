"""Functions and a plugin whose signatures and deeds are data, so that any engine can run the same scenario.

What a function does is found in the event's ``script`` argument, by the function's label::

    {"scenario": 7, "counts": True, "bodies": {"alpha_e0": {"local": {...}, "global": {...}, "raises": None,
                                                             "echo": True, "fires": ["e1", {...}]}}}
"""

from __future__ import annotations

import copy
from inspect import Parameter, Signature
from typing import Any

from rigger_mp import RiggerBasePlugin

ABSENT = "absent"
"""The default of optional parameters: tells in an echo that neither namespace had the name."""


class ScriptedError(Exception):
    """Raised where a script says so."""


class ScriptedFunction:
    """A callable that takes ``script`` and the parameters given as ``(name, required)``."""

    def __init__(self, label: str, parameters: Any, owner: Any = None) -> None:
        self.__name__ = label
        self.owner = owner
        self.parameters = [("script", True), *parameters]

    @property
    def __signature__(self) -> Signature:
        kind = Parameter.KEYWORD_ONLY
        return Signature(
            [
                Parameter(name, kind) if required else Parameter(name, kind, default=ABSENT)
                for name, required in self.parameters
            ]
        )

    def __call__(self, script: dict[str, Any], **given: Any) -> Any:
        turn = self.owner.count(script) if self.owner is not None and script["counts"] else None
        body = script["bodies"].get(self.__name__)
        if body is None:
            return None
        if body["fires"]:
            hook, arguments = copy.deepcopy(body["fires"])
            self.owner.fire_hook(hook, **arguments)
        if body["raises"] is not None:
            raise ScriptedError(body["raises"])
        local, globals_ = copy.deepcopy((body["local"], body["global"]))
        if body["echo"]:
            echo = {name: given.get(name, ABSENT) for name, _ in self.parameters if name != "script"}
            local = {**(local or {}), f"echo_{self.__name__}": {"turn": turn, **copy.deepcopy(echo)}}
        return local, globals_


class ScriptedBehaviour:
    """The plugin, to be mixed with either package's base class."""

    def plugin_initialize(self) -> None:
        self.scenario, self.turn = None, 0
        for event, parameters in self.data["functions"].items():  # type: ignore[attr-defined]
            function = ScriptedFunction(f"{self.ident}_{event}", parameters, self)  # type: ignore[attr-defined]
            self.register_plugin_hook(event, function)  # type: ignore[attr-defined]

    def count(self, script: dict[str, Any]) -> int | None:
        """Count the calls of the instance in one scenario; a stateless one cannot."""
        if self.data.get("stateless"):  # type: ignore[attr-defined]
            return None
        if self.scenario != script["scenario"]:
            self.scenario, self.turn = script["scenario"], 0
        self.turn += 1
        return self.turn


class Scripted(ScriptedBehaviour, RiggerBasePlugin):
    """The plugin for rigger_mp."""
