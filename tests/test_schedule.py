"""The pure scheduler, driven through random interleavings of events, results and worker losses."""

from __future__ import annotations

import random
from contextlib import ExitStack
from unittest import mock

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from scheduler_checks import check_history
from scheduler_model import GLOBALS, World

from rigger_mp import namespace
from rigger_mp.engine import commit_log, series
from rigger_mp.engine.activity import ARCHIVE, Slot
from rigger_mp.engine.placement import ANY
from rigger_mp.engine.registry import Function, Registry

HOOKS = [f"hook{number}" for number in range(6)]
STEADY = "steady"
"""A hook whose events are ordered and run whole on one worker: they may be sent as series."""


class Instances:
    """Random instances of one generation, their functions and the slots that they need, from number ``first`` on."""

    def __init__(
        self, rng: random.Random, workers: int, generation: int = 0, first: int = 0
    ) -> None:
        self.rng = rng
        self.generation = generation
        self.first = first
        self.workers = workers
        self.dedicated = first + workers
        self.archive = ARCHIVE - generation
        self.functions: dict[str, Function] = {}
        overrides = {hook: rng.random() < 0.3 for hook in HOOKS if rng.random() < 0.3}
        self.registry = Registry(overrides, frozenset({self.dedicated}), first)
        self.idents = ["free0", "free1", "dedicated", "background0", "background1"]
        self.idents += [f"stateful{number}" for number in range(3)]
        for ident in self.idents:
            self.registry.bind_instance(self.idents, ident, self._bindings(ident))
        self._bind_steady()
        self.registry.bind_instance(self.idents, "free0", {})

    def _bind_steady(self) -> None:
        for stage in ("pre", "post")[: self.rng.randint(0, 2)]:
            callback = self.function(f"{stage}.{STEADY}", stage, self.first, retries=0, ordered=True)
            self.registry.bind_callback(STEADY, stage, stage, callback)
        hook = self.function(f"stateful0.{STEADY}", "stateful0", self.first, retries=0, ordered=True)
        self.registry.bind_instance(self.idents, "stateful0", {STEADY: hook})

    def _bindings(self, ident: str) -> dict[str, Function]:
        chance = 0.15 if ident == "dedicated" else 0.4
        hooks = [hook for hook in HOOKS[:-1] if self.rng.random() < chance]
        return {hook: self.function(f"{ident}.{hook}", ident, self._home(ident)) for hook in hooks}

    def _home(self, ident: str) -> int:
        if ident.startswith("stateful"):
            return self.first + int(ident[-1]) % self.workers
        if ident == "dedicated":
            return self.dedicated
        return ANY if ident.startswith("free") else self.archive

    def function(
        self, id_: str, ident: str, home: int, *, retries: int | None = None, ordered: bool = False
    ) -> Function:
        concurrent = not ordered and (home == ANY or self.rng.random() < 0.6)
        reads = tuple(self.rng.sample(GLOBALS, self.rng.randint(0, 2)))
        retries = self.rng.choice((0, 0, 1)) if retries is None else retries
        actor = "" if home == ANY else ident
        id_ = f"{self.generation}:{id_}"
        function = Function(id_, id_, ident, home, concurrent, reads, actor, retries)
        self.functions[id_] = function
        return function

    def copies(self) -> dict[str, tuple[int, ...]]:
        shared = tuple(sorted(self.shared))
        return {ident: shared if self._home(ident) == ANY else (self._home(ident),) for ident in self.idents}

    def slots(self) -> list[Slot]:
        shared = [Slot(number) for number in sorted(self.shared)]
        return [*shared, Slot(self.dedicated, shared=False), Slot(self.archive, shared=False)]

    @property
    def shared(self) -> frozenset[int]:
        return frozenset(range(self.first, self.first + self.workers))


class SchedulerMachine(RuleBasedStateMachine):
    """Fires, runs, loses; whatever happens, draining must give a history in which every promise holds."""

    world: World
    coming: Instances | None = None
    generations = 1

    @property
    def slots(self) -> list[Slot]:
        return list(self.world.scheduler.slots.values())

    @initialize(
        seed=st.integers(0, 2**32),
        workers=st.integers(1, 3),
        threaded=st.booleans(),
        list_merge=st.sampled_from(["extend", "extend", "replace"]),
    )
    def build(self, seed: int, workers: int, threaded: bool, list_merge: str) -> None:
        rng = random.Random(seed)
        self.patches = ExitStack()
        if rng.random() < 0.5:  # replicas fall too far behind, chains are compacted
            self.patches.enter_context(mock.patch.object(commit_log, "ENTRIES_KEPT", 2))
            self.patches.enter_context(mock.patch.object(namespace, "MIN_LINKS_TO_COMPACT", 1))
        if rng.random() < 0.5:
            self.patches.enter_context(mock.patch.object(series, "LONGEST", 3))
        self.instances = Instances(rng, workers)
        self.callbacks: list[tuple[str, str, str]] = []
        self.world = World(
            self.instances.registry,
            self.instances.slots(),
            self.instances.functions,
            rng=rng,
            threaded=threaded,
            list_merge=list_merge,
            copies=self.instances.copies(),
            queue_size=rng.choice((3, 1000)),
            durable=rng.random() < 0.5,
        )

    # -- what comes in -----------------------------------------------------------------------------------

    @rule(hooks=st.lists(st.sampled_from(HOOKS), min_size=1, max_size=5))
    def fire(self, hooks: list[str]) -> None:
        for hook in hooks:
            self.world.fire(hook)

    @rule(hook=st.sampled_from(HOOKS), count=st.integers(2, 8), pump=st.booleans())
    def fire_one_hook_often(self, hook: str, count: int, pump: bool) -> None:
        for _ in range(count):
            self.world.fire(hook)
            if pump:
                self.world.pump()

    @rule(hook=st.sampled_from(HOOKS), depth=st.integers(1, 6))
    def fire_nested(self, hook: str, depth: int) -> None:
        self.world.fire(hook, nested_depth=depth)

    @rule(hook=st.sampled_from(HOOKS))
    def fire_and_forget(self, hook: str) -> None:
        self.world.fire(hook, wait=False)

    @rule(hook=st.sampled_from([*HOOKS, *[STEADY] * 6]), count=st.integers(1, 8), pump=st.booleans())
    def fire_series(self, hook: str, count: int, pump: bool) -> None:
        self.world.fire_series(hook, count)
        if pump:
            self.world.pump()

    @rule(clear=st.booleans(), names=st.sets(st.sampled_from(GLOBALS)))
    def write(self, clear: bool, names: set[str]) -> None:
        number = len(self.world.accepted) + 1
        values = {"list": [str(number)], "tree": {"branch": {"written": number}}, "last": number}
        self.world.write({"stamp": number, **{name: values[name] for name in sorted(names)}}, clear)

    @rule(pick=st.integers(0, 7))
    def configure(self, pick: int) -> None:
        self.world.configure(self.instances.idents[pick])

    @rule(squash=st.booleans())
    def set_squash(self, squash: bool) -> None:
        self.world.scheduler.squash = squash

    @rule(hook=st.sampled_from(HOOKS[:-1]), stage=st.sampled_from(["pre", "post"]), free=st.booleans())
    def bind(self, hook: str, stage: str, free: bool) -> None:
        name = f"callback{len(self.instances.functions)}"
        home = ANY if free else self.instances.registry.callback_home(hook)
        function = self.instances.function(f"{name}.{hook}", name, home)
        self.instances.registry.bind_callback(hook, stage, name, function)
        self.callbacks.append((hook, stage, name))

    @precondition(lambda self: self.callbacks)
    @rule(pick=st.integers(0, 1000))
    def unbind(self, pick: int) -> None:
        bound = self.callbacks.pop(pick % len(self.callbacks))
        assert self.instances.registry.unbind_callback(*bound) is not None

    # -- generations -------------------------------------------------------------------------------------

    @precondition(lambda self: self.coming is None)
    @rule(workers=st.integers(1, 3))
    def stage(self, workers: int) -> None:
        first = max(slot.number for slot in self.slots) + 1
        self.coming = Instances(self.world.rng, workers, self.generations, first)
        self.generations += 1
        copies = self.coming.copies()
        for slot in self.coming.slots():
            slot.shared = False
            self.world.stage(slot, [ident for ident, numbers in copies.items() if slot.number in numbers])

    @precondition(lambda self: self.coming is not None)
    @rule(refuse=st.integers(0, 3))
    def swap_or_refuse(self, refuse: int) -> None:
        coming, self.coming = self.coming, None
        assert coming is not None
        numbers = {*coming.shared, coming.dedicated, coming.archive}
        staged = tuple(slot for slot in self.slots if slot.number in numbers)
        if not refuse or any(slot.gone for slot in staged):
            self.world.unstage(staged)
            return
        for hook, stage, name in self.callbacks:
            function = coming.function(f"{name}.{hook}", name, coming.registry.callback_home(hook))
            coming.registry.bind_callback(hook, stage, name, function)
        self.instances = coming
        self.world.swap(coming.registry, staged, coming.shared, coming.copies(), coming.functions)

    # -- what the processes do ---------------------------------------------------------------------------

    @rule()
    def pump(self) -> None:
        self.world.pump()

    @rule(picks=st.lists(st.integers(0, 1000), max_size=12), twice=st.booleans())
    def work(self, picks: list[int], twice: bool) -> None:
        self.world.pump()
        for pick in picks:
            self._work_a_little(pick, twice)

    def _work_a_little(self, pick: int, twice: bool = False) -> bool:
        steps = []
        for slot in self.slots:
            host = self.world.hosts.get(slot.number)
            if host is None:
                continue
            if host.running is not None:
                steps.append((self.world.finish, slot))
            elif host.inbox:
                steps.append((self.world.start, slot))
            if host.outbox:
                steps.append((lambda slot: self.world.deliver(slot, twice), slot))
        if not steps:
            return False
        step, slot = steps[pick % len(steps)]
        step(slot)
        if pick % 3:
            self.world.pump()
        return True

    @rule(pick=st.integers(0, 1000))
    def lose(self, pick: int) -> None:
        up = [slot for slot in self.slots if slot.up]
        if up:
            self.world.lose(up[pick % len(up)])

    @rule(pick=st.integers(0, 1000))
    def lose_while_it_runs(self, pick: int) -> None:
        self.world.pump()
        busy = [slot for slot in self.slots if slot.up and self.world.is_busy(slot)]
        if busy:
            slot = busy[pick % len(busy)]
            self.world.ensure_running(slot)
            self.world.lose(slot)

    @rule(pick=st.integers(0, 1000))
    def retry(self, pick: int) -> None:
        self.world.retry(pick)

    @rule(pick=st.integers(0, 1000))
    def bring_up(self, pick: int) -> None:
        down = [slot for slot in self.slots if not slot.up and not slot.gone]
        if down:
            self.world.bring_up(down[pick % len(down)])

    @precondition(lambda self: any(not slot.up and not slot.gone for slot in self.slots))
    @rule(pick=st.integers(0, 1000), really=st.integers(0, 3))
    def give_up(self, pick: int, really: int) -> None:
        down = [slot for slot in self.slots if not slot.up and not slot.gone]
        if not really:
            self.world.give_up(down[pick % len(down)])

    @invariant()
    def counts_are_sane(self) -> None:
        for slot in getattr(self, "slots", ()):
            assert slot.load >= -1e-9
            assert slot.unmeasured >= 0
            assert not (slot.outstanding and not slot.up)

    # -- the end -----------------------------------------------------------------------------------------

    def teardown(self) -> None:
        if hasattr(self, "world"):
            with self.patches:
                self._drain()
                check_history(self.world)

    def _drain(self) -> None:
        for slot in self.slots:
            if not slot.up and not slot.gone:
                self.world.bring_up(slot)
        self.world.pump()
        while self._work_a_little(self.world.rng.randrange(1000)) or self.world.delayed:
            if not self.world.rng.randrange(10):
                self.world.retry(self.world.rng.randrange(1000))
        self.world.pump()
        while self._work_a_little(1):
            pass
        assert self.world.scheduler.idle, "everything that was sent is done, and yet something waits"


SchedulerMachine.TestCase.settings = settings(
    max_examples=150,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
TestScheduler = SchedulerMachine.TestCase
