"""Which functions run for which hook, where they live, and whether events of the hook may overlap.

Pure: instances and callbacks in, :class:`Plan` out. A plan is immutable; an event keeps the one that it was
accepted with, so that binding a callback affects exactly the events accepted after it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from rigger_mp.engine.placement import ANY, is_archive


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Function:
    """A function bound to a hook.

    Attributes:
        id: unique; what jobs call it by.
        label: what people call it by: ``adder.add``.
        ident: the instance it belongs to; of a callback, ``""``.
        home: the slot of the one process that may run it, an archive's included, or :data:`ANY`.
        concurrent: it does not mind overlapping with other events.
        reads: the parameters that it names.
        actor: what must see events in fire order when it runs (a stateful instance), or ``""``.
        max_retries: how often an event is run again that lost its process here.
    """

    id: str
    label: str
    ident: str
    home: int
    concurrent: bool
    reads: tuple[str, ...] = ()
    actor: str = ""
    max_retries: int = 0


Stage = tuple[Function, ...]


class Plan:
    """What an event of one hook runs, stage by stage; not to be changed.

    Attributes:
        stages: the stages that have functions.
        fused_home: the one process that can run all of them (``ANY``: any can), or ``None``.
        handover: how many stages precede the handing over of the background functions.
        widest: how many processes could share the widest stage.
        blockers: the functions that keep the hook ordered.
        reads, background_reads: the parameters that the functions name.
        actors: the stateful instances involved.
        fused_steps, fanned_steps: the stages by step: those of one step run as one job, or each fans out.
    """

    __slots__ = (
        "actors", "background", "background_reads", "blockers", "concurrent", "dedicated", "fanned_steps", "fused_home",
        "fused_steps", "handover", "hook", "hooks", "ids", "max_retries", "post", "pre", "reads", "stages", "widest",
    )  # fmt: skip

    def __init__(
        self,
        hook: str,
        pre: Stage = (),
        hooks: Stage = (),
        background: Stage = (),
        post: Stage = (),
        *,
        concurrent: bool = True,
        blockers: tuple[str, ...] = (),
        dedicated: frozenset[int] = frozenset(),
    ) -> None:
        self.hook, self.pre, self.hooks, self.background, self.post = hook, pre, hooks, background, post
        self.concurrent, self.blockers, self.dedicated = concurrent, blockers, dedicated
        foreground = (*pre, *hooks, *post)
        self.stages = tuple(stage for stage in (pre, hooks, post) if stage)
        self.fused_home = self._common_home(foreground)
        self.reads = frozenset(name for f in foreground for name in f.reads)
        self.background_reads = frozenset(name for f in background for name in f.reads)
        self.actors = frozenset(f.actor for f in (*foreground, *background) if f.actor)
        self.max_retries = max((f.max_retries for f in foreground), default=0)
        self.handover = 1 if pre and background else 0
        self.widest = max(map(_parts, self.stages), default=0)
        parts = (self.stages[: self.handover], self.stages[self.handover :])
        self.fused_steps = tuple(part for part in parts if part)
        self.fanned_steps = tuple((stage,) for stage in self.stages)
        self.ids = tuple(tuple(f.id for f in stage) for stage in self.stages)

    def _common_home(self, functions: Iterable[Function]) -> int | None:
        """Return the one process that can run everything, or ``None``."""
        homes = {function.home for function in functions}
        if len(homes) == 2 and ANY in homes and not homes & self.dedicated:
            homes.discard(ANY)
        if not homes:
            return ANY
        return homes.pop() if len(homes) == 1 else None

    @property
    def functions(self) -> Stage:
        """Every function, those in the background included."""
        return (*self.pre, *self.hooks, *self.background, *self.post)


def _parts(stage: Stage) -> int:
    """Return how many processes could share a stage."""
    anywhere = sum(1 for function in stage if function.home == ANY)
    return anywhere + len({function.home for function in stage if function.home != ANY})


class Registry:
    """Instances and callbacks as they are now.

    Args:
        overrides: ``concurrent`` by hook, from the configuration.
        dedicated: the slots of dedicated instances.
        first: the slot where callbacks live that have nothing to live beside.
    """

    def __init__(
        self, overrides: Mapping[str, bool], dedicated: frozenset[int] = frozenset(), first: int = 0
    ) -> None:
        self._overrides = dict(overrides)
        self._first = first
        self._dedicated = dedicated
        self._bound: dict[str, dict[str, Function]] = {}
        self._callbacks: dict[tuple[str, str], dict[str, Function]] = {}
        self._plans: dict[str, Plan] = {}

    def bind_instance(self, order: Iterable[str], ident: str, bindings: Mapping[str, Function]) -> None:
        """Bind an instance's functions by event; ``order`` are all idents in the configuration's order."""
        rank = {name: number for number, name in enumerate(order)}
        for event, function in bindings.items():
            bound = {**self._bound.get(event, {}), ident: function}
            self._bound[event] = dict(sorted(bound.items(), key=lambda item: rank[item[0]]))
        self._plans.clear()

    def bind_callback(self, hook: str, stage: str, name: str, function: Function) -> Function | None:
        """Bind a callback; return the one whose place it takes."""
        callbacks = self._callbacks.setdefault((hook, stage), {})
        previous = callbacks.get(name)
        callbacks[name] = function
        self._plans.pop(hook, None)
        return previous

    def unbind_callback(self, hook: str, stage: str, name: str) -> Function | None:
        """Take a callback away and return it, ``None`` if there is none of the name."""
        self._plans.pop(hook, None)
        return self._callbacks.get((hook, stage), {}).pop(name, None)

    def callback_home(self, hook: str) -> int:
        """Return where a stateful callback of a hook had best live: beside the hook's own functions."""
        for function in self._bound.get(hook, {}).values():
            if function.home >= 0 and function.home not in self._dedicated:
                return function.home
        return self._first

    @property
    def hooks(self) -> list[str]:
        """Every hook that has a function."""
        named = dict.fromkeys(self._bound)
        named.update(dict.fromkeys(hook for (hook, _), callbacks in self._callbacks.items() if callbacks))
        return list(named)

    def plan(self, hook: str) -> Plan:
        """Return what an event of this hook runs."""
        plan = self._plans.get(hook)
        if plan is None:
            plan = self._make_plan(hook)
            if plan.functions:  # names that nothing is bound to are without number
                self._plans[hook] = plan
        return plan

    def _make_plan(self, hook: str) -> Plan:
        bound = self._bound.get(hook, {}).values()
        pre = tuple(self._callbacks.get((hook, "pre"), {}).values())
        post = tuple(self._callbacks.get((hook, "post"), {}).values())
        hooks = tuple(f for f in bound if not is_archive(f.home))
        foreground = (*pre, *hooks, *post)
        concurrent = self._overrides.get(hook, all(f.concurrent for f in foreground))
        blockers = () if concurrent else tuple(f.label for f in foreground if not f.concurrent)
        background = tuple(f for f in bound if is_archive(f.home))
        return Plan(
            hook, pre, hooks, background, post,
            concurrent=concurrent, blockers=blockers, dedicated=self._dedicated,
        )  # fmt: skip
