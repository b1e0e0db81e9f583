"""The same random scenarios end alike here and in riggerlib 3.1.6: equal globals, equal outputs of events.

A *world* is a configuration: instances and the signatures of their functions. A *scenario* is what happens in a
world: callbacks come and go, events are fired, and each carries a script of what every function does. riggerlib
is driven synchronously, through ``process_hook``, which its queue's thread would call.

What the generator leaves out, because riggerlib does otherwise than both packages' pages say:

- objects shared between namespaces: riggerlib stores a returned list itself, so two names, or two events, may
  share it, and later updates of one change the other. Every value here is fresh.
- falsy results (``0``, ``""``, ``()``): riggerlib takes them for ``None``; here they are a HookResultError.
- an empty mapping over a scalar: riggerlib leaves the scalar. A nested mapping, or a mapping with a list in it,
  over a scalar: riggerlib raises inside the engine. So "d" names always hold mappings, and what "s" names
  hold is replaced by flat, not empty mappings only.
- missing arguments while squashing: riggerlib raises nevertheless. Worlds with required parameters do not squash.
- ``config`` in outputs, which is part of them in both, but differs as the configurations do.
- unnamed callbacks: riggerlib 3.1.6 cannot make up a name on Python 3 (it hashes text); it is given one here.
- ``bg=True`` of ``register_plugin_hook``: riggerlib 3.1.6 forgets it. ``background`` instances are compared.
"""

from __future__ import annotations

import collections
import collections.abc
import copy
import itertools
import json
import multiprocessing.pool
import random
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scripted import Scripted, ScriptedBehaviour, ScriptedError, ScriptedFunction
from waiting import wait_for

from rigger_mp import HookError, Rigger

EVENTS = ("e0", "e1", "e2")
LOOSE, TREES = ("s0", "s1"), ("d0", "d1")
NAMES = (*LOOSE, *TREES)
ASIDE = "aside: "
"""Begins the message of failures that riggerlib and rigger_mp report at different moments."""

scenario_numbers = itertools.count()


def import_riggerlib() -> Any:
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        patch.setattr(collections, "Mapping", collections.abc.Mapping, raising=False)
        return pytest.importorskip("riggerlib"), pytest.importorskip("riggerlib.server")


riggerlib, riggerlib_server = import_riggerlib()


# -- values ---------------------------------------------------------------------------------------------------

scalars = st.none() | st.booleans() | st.integers(-3, 3) | st.text("ab", max_size=2)
flat = st.dictionaries(st.sampled_from(("k0", "k1", "k2")), scalars, min_size=1)
loose = scalars | st.lists(scalars | flat, max_size=3) | flat
trees = st.recursive(
    st.fixed_dictionaries({}, optional=dict.fromkeys(LOOSE, loose)),
    lambda inner: st.fixed_dictionaries({}, optional={**dict.fromkeys(LOOSE, loose), **dict.fromkeys(TREES, inner)}),
    max_leaves=4,
)
namespaces = st.fixed_dictionaries({}, optional={**dict.fromkeys(LOOSE, loose), **dict.fromkeys(TREES, trees)})
updates = st.none() | namespaces


# -- worlds ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class World:
    """A configuration, as both engines take it.

    Attributes:
        plugins: the entries of the instances, each with the parameters of its functions by event.
        required: functions may need what is not there.
    """

    threaded: bool
    required: bool
    plugins: dict[str, dict[str, Any]]
    workers: int

    @property
    def config(self) -> dict[str, Any]:
        return {"threaded": self.threaded, "workers": self.workers, "plugins": copy.deepcopy(self.plugins)}

    def labels(self, event: str) -> list[str]:
        """Return the labels of the foreground functions of an event."""
        return [
            f"{ident}_{event}"
            for ident, entry in self.plugins.items()
            if event in entry["functions"] and entry["enabled"] and not entry.get("background")
        ]


def draw_parameters(choice: random.Random, required: bool) -> list[tuple[str, bool]]:
    return [(name, required and choice.random() < 0.3) for name in NAMES if choice.random() < 0.5]


def draw_world(choice: random.Random, threaded: bool, required: bool, workers: int) -> World:
    plugins: dict[str, dict[str, Any]] = {}
    for ident in ("alpha", "beta", "gamma", "delta", "solo", "off"):
        events = [event for event in EVENTS[:2] if choice.random() < 0.7]
        functions = {event: draw_parameters(choice, required) for event in events}
        plugins[ident] = {"plugin": "scripted", "enabled": ident != "off", "functions": functions}
    # Events of a stateless instance would overlap, which riggerlib's never do: alpha keeps them ordered.
    # One worker can run the whole of e2, and the engine sends it such events in a row at once.
    plugins["alpha"]["functions"] = {event: draw_parameters(choice, required) for event in EVENTS}
    plugins["gamma"]["functions"]["e2"] = draw_parameters(choice, required)
    plugins["gamma"]["stateless"] = True
    plugins["solo"]["dedicated"] = True
    functions = {event: [("always", True)] for event in ("e0", "sentinel")}
    plugins["back"] = {"plugin": "scripted", "enabled": True, "background": True, "functions": functions}
    return World(threaded, required, plugins, workers)


# -- scenarios ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Scenario:
    """What happens: steps ``("register", ...)``, ``("unregister", ...)`` and ``("fire", event, arguments)``.

    Attributes:
        blocking: fire one event after another; else submit all that is fired between two changes of callbacks.
    """

    number: int
    squash: bool
    blocking: bool
    initial: dict[str, Any]
    steps: tuple[tuple[Any, ...], ...]


def draw_body(draw: Any, prefix: str = "") -> dict[str, Any]:
    raises = prefix + draw(st.text("xyz", min_size=1, max_size=3)) if draw(st.integers(0, 4)) == 0 else None
    return {"local": draw(updates), "global": draw(updates), "raises": raises, "echo": True, "fires": None}


def draw_background_body(draw: Any) -> dict[str, Any]:
    body = draw_body(draw, ASIDE)
    # Names of its own: when a background handler's updates are merged is a matter of timing.
    body["global"] = {f"back_{name}": value for name, value in (body["global"] or {}).items()}
    return {**body, "echo": False}


def draw_event(draw: Any, world: World, callbacks: dict[Any, str], frame: dict[str, Any], nests: bool) -> Any:
    event = draw(st.sampled_from(EVENTS))
    labels = world.labels(event)
    bodies = {label: draw_body(draw) for label in labels}
    bodies |= {label: draw_body(draw) for key, label in callbacks.items() if key[0] == event}
    bodies[f"back_{event}"] = draw_background_body(draw)
    if nests and draw(st.integers(0, 3)) == 0:
        # One a stage at most: functions of a stage run, and so fire, in no promised order.
        bodies[draw(st.sampled_from(labels))]["fires"] = draw_nested(draw, world, frame)
    return event, {**draw(namespaces), "always": True, "script": {**frame, "bodies": bodies}}


def draw_nested(draw: Any, world: World, frame: dict[str, Any]) -> Any:
    event = draw(st.sampled_from(EVENTS))
    bodies = {label: draw_body(draw, ASIDE) for label in world.labels(event)}
    return event, {**draw(namespaces), "always": True, "script": {**frame, "bodies": bodies}}


def draw_registration(draw: Any, world: World, squash: bool, number: int) -> tuple[Any, str, Any]:
    event, stage = draw(st.sampled_from(EVENTS)), draw(st.sampled_from(("pre", "post")))
    name = draw(st.sampled_from(("first", "second", None)))
    choice = draw(st.randoms(use_true_random=False))
    parameters = draw_parameters(choice, world.required and not squash)
    return (event, stage, name or f"unnamed {number}"), f"callback{number}", (name, parameters)


@st.composite
def scenarios(draw: Any, world: World) -> Scenario:
    squash = draw(st.booleans()) and not world.required
    blocking = draw(st.booleans())
    # In a threaded stage with a missing argument, riggerlib may not call functions that are called here.
    frame = {"scenario": next(scenario_numbers), "counts": not world.required}
    callbacks: dict[Any, str] = {}
    steps: list[tuple[Any, ...]] = []
    for number in range(draw(st.integers(1, 8))):
        kind = draw(st.sampled_from(("fire", "fire", "fire", "register", "register", "unregister")))
        if kind == "register":
            key, label, (name, parameters) = draw_registration(draw, world, squash, number)
            callbacks[key] = label
            steps.append(("register", key, name, label, parameters))
        elif kind == "unregister" and callbacks:
            key = draw(st.sampled_from(sorted(callbacks)))
            del callbacks[key]
            steps.append(("unregister", key))
        else:
            nests = blocking and not world.required
            steps.append(("fire", *draw_event(draw, world, callbacks, frame, nests)))
    body = {"local": None, "global": {"back_end": [frame["scenario"]]}, "raises": None, "echo": False, "fires": None}
    steps.append(("fire", "sentinel", {"always": 1, "script": {**frame, "bodies": {"back_sentinel": body}}}))
    return Scenario(frame["scenario"], squash, blocking, draw(namespaces), tuple(steps))


# -- riggerlib ------------------------------------------------------------------------------------------------


class SynchronousRigger(riggerlib.Rigger):
    """riggerlib's engine without its polling threads: they end at once, and the caller does their work."""

    def __init__(self) -> None:
        super().__init__(None)
        self.failures: list[str] = []

    def process_queue(self) -> None:
        pass

    def process_background_queue(self) -> None:
        pass

    def handle_failure(self, exc: Any) -> None:
        self.failures.append(str(exc[1]))

    def log_message(self, message: Any) -> None:
        pass

    def work_off_queues(self) -> None:
        """Do what is in the background queue and the queue of nested hooks."""
        while not self._background_queue.empty():
            handed = self._background_queue.get()
            with suppress(ScriptedError):
                _, globals_ = self.process_callbacks(handed["cb"], handed["kwargs"])
                self.global_data = riggerlib.recursive_update(self.global_data, globals_)
        while not self._global_queue.empty():
            fired = self._task_list.pop(self._global_queue.get()).json_dict
            with suppress(ScriptedError):
                self.process_hook(fired["hook_name"], **fired["data"])
            self.work_off_queues()


class RiggerlibScripted(ScriptedBehaviour, riggerlib.RiggerBasePlugin):
    """The plugin for riggerlib."""


@contextmanager
def riggerlib_pools_ended() -> Iterator[None]:
    """End the pools that riggerlib leaves open where an argument is missing; and make them small."""
    pools = []

    def small_pool(_processes: int) -> multiprocessing.pool.ThreadPool:
        pools.append(multiprocessing.pool.ThreadPool(2))
        return pools[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(riggerlib_server, "ThreadPool", small_pool)
        yield
    for pool in pools:
        pool.terminate()
        pool.join()


def run_riggerlib(world: World, scenario: Scenario) -> tuple[Any, ...]:
    engine = SynchronousRigger()
    engine.config = world.config
    engine.register_plugin(RiggerlibScripted, "scripted")
    engine.setup_plugin_instances()
    engine.global_data = copy.deepcopy(scenario.initial)
    engine.squash_exceptions = scenario.squash
    engine.initialized = True
    outputs: list[Any] = []
    with riggerlib_pools_ended():
        for kind, *step in scenario.steps:
            if kind == "register":
                (event, stage, name), _, label, parameters = step
                engine.register_hook_callback(event, stage, ScriptedFunction(label, parameters), name)
            elif kind == "unregister":
                engine.unregister_hook_callback(*step[0])
            else:
                outputs.append(fire_riggerlib(engine, *step))
                engine.work_off_queues()
    return outputs, without_aside(engine.failures), engine.global_data


def fire_riggerlib(engine: SynchronousRigger, event: str, arguments: dict[str, Any]) -> Any:
    try:
        local, globals_ = engine.process_hook(event, **copy.deepcopy(arguments))
    except ScriptedError as error:
        return str(error)
    except Exception as error:
        assert "missing kwargs" in str(error)
        return "missing arguments"
    return comparable({**globals_, **local})


# -- rigger_mp ------------------------------------------------------------------------------------------------


class QuietRigger(Rigger):
    """Collects the failures that it is told of."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.failures: list[str] = []
        super().__init__(*args, **kwargs)

    def handle_failure(self, exc: Any) -> None:
        self.failures.append(str(exc[1]))

    def log_message(self, message: object) -> None:
        pass


def run_rigger_mp(engine: QuietRigger, scenario: Scenario) -> tuple[Any, ...]:
    engine.failures.clear()
    engine.squash_exceptions = scenario.squash
    engine.global_data = scenario.initial
    outcomes: list[Any] = []
    names: dict[Any, str] = {}
    for kind, *step in scenario.steps:
        if kind == "register":
            key, given_name, label, parameters = step
            function = ScriptedFunction(label, parameters)
            names[key] = engine.register_hook_callback(key[0], key[1], function, given_name)
        elif kind == "unregister":
            engine.unregister_hook_callback(*step[0][:2], names.pop(step[0]))
        else:
            outcomes.append(engine.submit(step[0], **step[1]))
            if scenario.blocking:
                outcomes[-1].exception()
    outputs = [output_of(outcome) for outcome in outcomes]
    wait_for(lambda: engine.global_data.get("back_end") == [scenario.number])
    for (event, stage, _), name in names.items():
        engine.unregister_hook_callback(event, stage, name)
    return outputs, without_aside(engine.failures), engine.global_data.copy()


def output_of(outcome: Any) -> Any:
    try:
        return comparable(outcome.result())
    except HookError as error:
        failures = [failure for failure in error.failures if failure.type_name == "MissingArgumentsError"]
        return "missing arguments" if failures else error.failures[0].message


# -- comparing ------------------------------------------------------------------------------------------------


def comparable(output: Any) -> dict[str, Any]:
    left_out = ("config", "script")
    # A copy: riggerlib goes on to change the very objects.
    return copy.deepcopy({n: output[n] for n in output if n not in left_out and not n.startswith("back_")})


def without_aside(failures: list[str]) -> list[str]:
    return [failure for failure in failures if not failure.startswith(ASIDE)]


def exact(value: Any) -> str:
    """Return text that tells apart what ``==`` does not: ``True`` from ``1``."""
    return json.dumps(value, sort_keys=True, indent=1)


def assert_equal_runs(engine: QuietRigger, world: World, scenario: Scenario) -> None:
    expected, actual = run_riggerlib(world, scenario), run_rigger_mp(engine, scenario)
    for what, theirs, ours in zip(("outputs", "failures", "globals"), expected, actual, strict=True):
        assert exact(ours) == exact(theirs), what


@pytest.mark.parametrize("required", [False, True], ids=["optional", "required"])
@pytest.mark.parametrize("threaded", [False, True], ids=["sequential", "threaded"])
def test_scenarios_end_as_in_riggerlib(threaded: bool, required: bool) -> None:
    world = draw_world(random.Random(7), threaded, required, workers=2)
    with QuietRigger(world.config, plugins={"scripted": Scripted}) as engine:

        @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
        @given(scenarios(world))
        def check(scenario: Scenario) -> None:
            assert_equal_runs(engine, world, scenario)

        check()


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data(), st.randoms(use_true_random=False), st.booleans(), st.booleans())
def test_worlds_end_as_in_riggerlib(data: st.DataObject, choice: random.Random, threaded: bool, required: bool) -> None:
    world = draw_world(choice, threaded, required, data.draw(st.integers(1, 3)))
    with QuietRigger(world.config, plugins={"scripted": Scripted}) as engine:
        assert_equal_runs(engine, world, data.draw(scenarios(world)))
