"""What the scheduler works on: activities (events, writes, configure calls) and the tasks they become."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from itertools import groupby
from typing import Any

from rigger_mp.engine.messages import Group, Segments
from rigger_mp.engine.placement import ANY, ARCHIVE
from rigger_mp.engine.ready_queue import ReadyQueue
from rigger_mp.engine.registry import Function, Plan, Registry, Stage
from rigger_mp.engine.series import Series
from rigger_mp.namespace import Chain

NO_ACTORS = frozenset[str]()
_ORDERED, _CONCURRENT = frozenset(("",)), frozenset[str]()


class Kind(Enum):
    """Kinds of activity."""

    EVENT = auto()
    WRITE = auto()
    CONFIGURE = auto()
    BACKGROUND = auto()
    SWAP = auto()


# Python 3.11 takes ten times as long to look a member up in its class.
EVENT, WRITE, CONFIGURE, BACKGROUND, SWAP = Kind


@dataclass(slots=True, eq=False)
class Activity:
    """One accepted thing and how far it has come.

    Attributes:
        token: the sender's; 0 where nobody waits for the outcome.
        nested: a hook fired it.
        segments: what its large arguments are in. They live as long as any activity refers to them.
        updates: local updates so far, a group for each finished stage.
        update_segments: what large ones of them are in.
        overlay: updates of globals not yet committed (concurrent events commit at their end).
        pinned: the globals it reads, as they were when it started, where replicas may have moved on.
        fused: its stages run as one job on one worker.
        step: how many of its steps are finished.
        unfinished: tasks of the present step that are queued or running.
        results: of the present step, by function.
        postponed: tasks of the present step that run after one another (``threaded: false``).
        tickets: stateful instances whose turn it still awaits.
        retries: how often a process died under it, each time but the last followed by another try.
        lost: ``(status, detail)`` once a process died under it.
        since: the version of the globals from which its sender wants to go on, -1: it does not.
        replica: the slot that applies its updates of globals as they are made.
        swap: the generation that takes over when it starts.
        handed: its background functions have been handed over.
        key: of a background job that the spool keeps; 0 of all else.
        series: the events that it stands for, if it stands for several.
    """

    kind: Kind
    token: int
    plan: Plan
    arguments: bytes
    depth: int = 0
    nested: bool = False
    squash: bool = False
    clear: bool = False
    ordered: bool = True
    updates: tuple[Group, ...] = ()
    overlay: tuple[Group, ...] = ()
    pinned: dict[str, Chain] | None = None
    fused: bool = True
    step: int = 0
    unfinished: int = 0
    results: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    postponed: deque[Task] | None = None
    tickets: frozenset[str] = NO_ACTORS
    retries: int = 0
    lost: tuple[int, str] | None = None
    since: int = -1
    replica: Slot | None = None
    segments: Segments = ()
    update_segments: Segments = ()
    swap: Swap | None = None
    handed: bool = False
    key: int = 0
    series: Series | None = None

    @property
    def count(self) -> int:
        """How many events it stands for that have not ended."""
        return 1 if self.series is None else len(self.series.events)

    def steps(self) -> tuple[tuple[Stage, ...], ...]:
        """Return the stages by step: those of one step run as one job, or one stage fans out."""
        return self.plan.fused_steps if self.fused else self.plan.fanned_steps


@dataclass(slots=True, eq=False)
class Task:
    """Functions of one activity that go to one process together.

    Attributes:
        stages: the functions by stage.
        home: the slot it must run on, or ``ANY``.
        actors: the stateful instances among the functions.
        estimate: seconds it will hardly exceed, ``None`` if unknown.
        losses: how often its process died under it.
    """

    activity: Activity
    stages: tuple[Stage, ...]
    home: int
    actors: frozenset[str] = NO_ACTORS
    estimate: float | None = None
    losses: int = 0

    @property
    def ids(self) -> tuple[tuple[str, ...], ...]:
        """The functions' ids by stage."""
        return tuple(tuple(function.id for function in stage) for stage in self.stages)

    @property
    def order_keys(self) -> frozenset[str]:
        """What it shares with the tasks that must not overtake it in its slot, nor it them."""
        if self.activity.kind is CONFIGURE:
            return frozenset((self.activity.plan.hook,))
        stateful = (function for stage in self.stages for function in stage if function.actor)
        shared = _ORDERED if self.activity.ordered else _CONCURRENT
        return shared.union(function.ident or function.actor for function in stateful)


@dataclass(slots=True, eq=False)
class Slot:
    """The place of one worker process (or the archive), whichever process fills it.

    Attributes:
        number: from 0; of an archive: ``ARCHIVE``, or below.
        shared: it takes tasks that any worker may run.
        up: a process is there and has its instances.
        held: it gets no more tasks for the time being.
        gone: why there will never be a process again, or ``""``.
        version: what its replica of the globals was last brought up to.
        ready: tasks that only it may run.
        outstanding: tasks sent and not yet done, in order, by job number.
        load: seconds of work sent and not yet done, as estimated.
        unmeasured: how many of them have no estimate.
        busy: seconds that its functions have run.
        behind: a slot of a former generation whose work comes before everything here.
        quota: how many events the process may be sent in all, ``None`` for any number; ``taken``: how many it was.
    """

    number: int
    shared: bool = True
    up: bool = False
    held: bool = False
    gone: str = ""
    version: int = 0
    ready: ReadyQueue = field(default_factory=ReadyQueue)
    outstanding: dict[int, Task] = field(default_factory=dict)
    load: float = 0.0
    unmeasured: int = 0
    busy: float = 0.0
    behind: Slot | None = None
    quota: int | None = None
    taken: int = 0

    def refill(self, quota: int | None) -> None:
        """Note that another process fills the slot, which may be sent so many events in all."""
        self.quota, self.taken = quota, 0

    @property
    def drained(self) -> bool:
        """Whether nothing is queued or running here, nor in the slot before it."""
        if self.behind is not None and self.behind.drained:
            self.behind = None
        return not (self.ready or self.outstanding or self.behind)

    def has_room(self, estimate: float | None, budget: float, most: int) -> bool:
        """Tell whether one more task may be sent: always to an idle process, else within the budget."""
        if not self.up or self.held or (self.behind is not None and not self.behind.drained):
            return False
        if self.quota is not None and self.taken >= self.quota:
            return False
        if not self.outstanding:
            return True
        if estimate is None or self.unmeasured or len(self.outstanding) >= most:
            return False
        return self.load + estimate <= budget

    def add(self, job: int, task: Task) -> None:
        """Note a task as sent."""
        self.outstanding[job] = task
        self.taken += task.activity.count
        if task.estimate is None:
            self.unmeasured += 1
        else:
            self.load += task.estimate

    def remove(self, job: int) -> Task | None:
        """Note a task as done and return it; ``None`` if it was done before."""
        task = self.outstanding.pop(job, None)
        if task is None:
            return None
        if not self.outstanding:
            self.load, self.unmeasured = 0.0, 0
        elif task.estimate is None:
            self.unmeasured -= 1
        else:
            self.load -= task.estimate
        return task

    def clear(self) -> dict[int, Task]:
        """Forget what was sent, because the process is gone, and return it."""
        tasks, self.outstanding = self.outstanding, {}
        self.load, self.unmeasured, self.version, self.up = 0.0, 0, 0, False
        return tasks


@dataclass(frozen=True, slots=True)
class Swap:
    """A generation of slots and functions that takes the place of the present one.

    Attributes:
        registry: plans the events accepted from now on.
        slots: its slots, all staged.
        shared: the numbers of those that take tasks that any worker may run.
        copies: the slots that hold a copy of each instance.
        threaded, squash, max_nesting: as :class:`~rigger_mp.engine.schedule.Scheduler` takes them.
        message: for the user's process, when the swap has happened.
    """

    registry: Registry
    slots: tuple[Slot, ...]
    shared: frozenset[int]
    copies: Mapping[str, tuple[int, ...]]
    threaded: bool
    squash: bool
    max_nesting: int
    message: Any = None


def group_by_home(stage: Stage, threaded: bool) -> list[tuple[int, Stage]]:
    """Split a stage into what goes to one process each.

    Threaded, what any worker may run is split singly. Not threaded, the order of the stage is kept.
    """
    if not threaded:
        return [(home, tuple(functions)) for home, functions in groupby(stage, key=lambda function: function.home)]
    groups: dict[object, list[Function]] = {}
    for number, function in enumerate(stage):
        key = ("any", number) if function.home == ANY else function.home
        groups.setdefault(key, []).append(function)
    return [(functions[0].home, tuple(functions)) for functions in groups.values()]


__all__ = [
    "ANY",
    "ARCHIVE",
    "BACKGROUND",
    "CONFIGURE",
    "EVENT",
    "NO_ACTORS",
    "SWAP",
    "WRITE",
    "Activity",
    "Kind",
    "Slot",
    "Swap",
    "Task",
    "group_by_home",
]
