"""What an engine consists of, put together: slots, instances, callbacks, and the scheduler over them."""

from __future__ import annotations

import pickle
import socket
import weakref
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rigger_mp.engine import messages as m
from rigger_mp.engine.activity import ANY, ARCHIVE, Slot
from rigger_mp.engine.commit_log import CommitLog
from rigger_mp.engine.frames import read_frame
from rigger_mp.engine.keeper import Keeper
from rigger_mp.engine.registry import Function, Placeable, Registry, place
from rigger_mp.engine.schedule import Scheduler
from rigger_mp.engine.supervisor import Limits, Seat, Supervisor

if TYPE_CHECKING:
    from rigger_mp.engine.spool import Spool

STAGES = ("pre", "post")


@dataclass(frozen=True, slots=True)
class InstancePlan:
    """An instance as the dispatcher knows it; ``setup`` is its pickled ``InstanceSpec``."""

    ident: str
    setup: bytes
    stateless: bool
    background: bool
    dedicated: bool
    max_retries: int


@dataclass(frozen=True, slots=True)
class Boot:
    """Everything that a dispatcher is told when it starts.

    Attributes:
        settings: the pickled :class:`~rigger_mp.engine.host.HostSettings`.
        retry_delay: seconds that the first retry of a lost event waits at most.
        spool: the absolute path of the archive's spool, or ``""``.
        synchronous: of the spool.
        max_output: bytes of hooks' output that may wait for the user's process.
        globals: version and chains of the global namespace, where another dispatcher had been at work.
        republish: the Manager does not have these.
    """

    workers: int
    instances: tuple[InstancePlan, ...]
    settings: bytes
    limits: Limits
    threaded: bool
    squash: bool
    list_merge: str
    queue_size: int
    max_nesting: int
    overrides: dict[str, bool]
    hook_retries: dict[str, int]
    default_retries: int = 0
    archive_retries: int = 0
    retry_delay: float = 0.1
    spool: str = ""
    synchronous: str = "normal"
    max_output: int = 8 << 20
    globals: tuple[int, Any] = (0, None)
    republish: bool = False

    @staticmethod
    def receive(owner: socket.socket) -> Boot:
        """Read it off the socket to the user's process."""
        payload = read_frame(owner.fileno())  # what follows may come with descriptors
        if payload:
            boot: Boot = pickle.loads(payload)
            return boot
        raise SystemExit(0)


class Assembly:
    """Builds the engine and changes it while it runs.

    Args:
        boot: what it consists of.
        supervisor: starts the processes.

    Attributes:
        ready: whether every instance has been tried once; nothing runs before.
        keeper: writes to the spool, if there is one.
    """

    def __init__(self, boot: Boot, supervisor: Supervisor) -> None:
        self._boot = boot
        self._supervisor = supervisor
        self._plans = {plan.ident: plan for plan in boot.instances}
        self._placement = place(
            (Placeable(p.ident, p.stateless, p.background, p.dedicated) for p in boot.instances), boot.workers
        )
        self._registry = Registry(boot.overrides, self._placement.dedicated)
        self._slots = [
            Slot(number, shared=number not in self._placement.dedicated)
            for number in range(self._placement.slots)
        ]
        log = CommitLog(boot.list_merge, *boot.globals)
        self.scheduler = Scheduler(
            self._registry,
            log,
            self._slots,
            threaded=boot.threaded,
            squash=boot.squash,
            max_nesting=boot.max_nesting,
            queue_size=boot.queue_size,
        )
        self.ready = False
        self.keeper: Keeper | None = None
        self._functions: dict[str, dict[str, m.HostedFunction]] = {}
        self._problems: dict[str, str] = {}
        self._callbacks = 0
        self._retired: list[str] = []

    # -- starting ----------------------------------------------------------------------------------------

    def keep(self, spool: Spool) -> Keeper:
        """Have background jobs kept in a spool."""
        self.scheduler.durable = True
        self.keeper = Keeper(spool, self.scheduler)
        return self.keeper

    def start_workers(self) -> None:
        """Start the processes of all slots but the archive's."""
        for slot in self._slots:
            self._supervisor.add(slot, self._setups(self._living_in(slot.number)))

    def _living_in(self, number: int) -> list[str]:
        homes = self._placement.homes
        shared = number not in self._placement.dedicated
        return [ident for ident in self._plans if homes[ident] == number or (shared and homes[ident] == ANY)]

    def _setups(self, idents: Iterable[str]) -> list[tuple[str, bytes]]:
        return [(ident, self._plans[ident].setup) for ident in idents if ident not in self._problems]

    def hosted(self, seat: Seat, message: m.Hosted) -> list[Any]:
        """Take what a host could make; return what to tell the user's process."""
        seat.hosted = True
        seat.starts_failed.clear()
        self.scheduler.slot_up(seat.slot)
        told = [_not_again(*found) for found in message.problems if self.ready and found[0] not in seat.left_out]
        self._problems.update(message.problems)
        for fields in message.functions:
            function = m.HostedFunction._make(fields)
            self._functions.setdefault(function.ident, {})[function.event] = function
        return [*told, *self._check_ready()]

    def _check_ready(self) -> list[Any]:
        if self.ready or not all(seat.hosted or seat.slot.gone for seat in self._supervisor.seats.values()):
            return []
        archived = self._archived()
        if archived and ARCHIVE not in self._supervisor.seats:
            slot = Slot(ARCHIVE, shared=False)
            self.scheduler.slots[ARCHIVE] = slot
            marks = self.keeper.spool.marks if self.keeper is not None else None
            self._supervisor.add(slot, self._setups(archived), marks)
            return []
        self._bind_instances()
        self.ready = True
        if self.keeper is not None:
            self.keeper.resume()
        problems = tuple(f"instance {ident!r}: {text}" for ident, text in self._problems.items())
        return [m.Ready(problems, self._described())]

    def _archived(self) -> list[str]:
        with_background_hooks = {
            ident for ident, functions in self._functions.items() if any(f.bg for f in functions.values())
        }
        return [
            ident
            for ident in self._plans
            if self._placement.homes[ident] == ARCHIVE or ident in with_background_hooks
        ]

    def _bind_instances(self) -> None:
        archived = set(self._archived())
        for ident, functions in self._functions.items():
            if ident in self._problems:
                continue
            bindings = {event: self._function(function) for event, function in functions.items()}
            self._registry.bind_instance(self._plans, ident, bindings)
            slots = [slot.number for slot in self._slots if ident in self._living_in(slot.number)]
            self.scheduler.copies[ident] = (*slots, *((ARCHIVE,) if ident in archived else ()))

    def _function(self, hosted: m.HostedFunction) -> Function:
        plan = self._plans[hosted.ident]
        home = ARCHIVE if hosted.bg else self._placement.homes[hosted.ident]
        actor = "" if plan.stateless else f"{hosted.ident}@archive" if home == ARCHIVE else hosted.ident
        default = self._boot.archive_retries if home == ARCHIVE else self._boot.default_retries
        retries = plan.max_retries or self._boot.hook_retries.get(hosted.event, 0) or default
        concurrent = plan.stateless or hosted.concurrent
        return Function(
            hosted.function_id, hosted.label, hosted.ident, home, concurrent, hosted.reads, actor, retries
        )

    def _described(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
        return tuple((ident, tuple(functions)) for ident, functions in self._functions.items())

    # -- changing ----------------------------------------------------------------------------------------

    def take(self, message: Any) -> None:
        """Carry out a change that the user's process asked for, in its place among the events."""
        match message:
            case m.Bind():
                self._bind(message)
            case m.Unbind():
                self._registry.unbind_callback(message.hook, message.stage, message.name)
            case m.Option():
                self.scheduler.squash = message.squash
            case m.Write():
                self.scheduler.accept_write(message)
            case m.Configure():
                self.scheduler.accept_configure(message)

    def _bind(self, bind: m.Bind) -> None:
        self._callbacks += 1
        function_id = f"\0{self._callbacks}"
        self._supervisor.load(m.Load(function_id, bind.label, bind.stage, bind.function))
        home = ANY if bind.concurrent else self._registry.callback_home(bind.hook)
        actor = "" if bind.concurrent else function_id
        function = Function(function_id, bind.label, "", home, bind.concurrent, bind.reads, actor)
        # Once unbound, it is still held by the plans of events that were accepted before.
        weakref.finalize(function, self._retired.append, function_id).atexit = False
        self._registry.bind_callback(bind.hook, bind.stage, bind.name, function)

    def forget_retired(self) -> None:
        """Unload callbacks that no event will call any more."""
        while self._retired:
            self._supervisor.forget(self._retired.pop())

    # -- losing processes --------------------------------------------------------------------------------

    def replace(self, seat: Seat, detail: str, instance: int | None) -> list[Any]:
        """Fill a seat again whose process died; ``instance`` is what it was making, -1 if it was not.

        Returns what to tell the user's process.
        """
        starting = instance is not None
        blamed = instance is not None and 0 <= instance < len(seat.instances)
        ident = seat.instances[instance or 0][0] if blamed else ""
        if ident and not self.ready:
            self._problems[ident] = f"{detail} while initialising it"
            for other in self._supervisor.seats.values():
                other.instances = [entry for entry in other.instances if entry[0] != ident]
        if self._supervisor.may_restart(seat, starting):
            self._supervisor.start(seat)
            return []
        if ident and self.ready:
            return self._leave_out(seat, ident, detail)
        self.scheduler.slot_gone(seat.slot, f"{seat.name} cannot be started: {detail} while starting")
        return [m.Log(f"{seat.name} is given up: {detail} while starting"), *self._check_ready()]

    def _leave_out(self, seat: Seat, ident: str, detail: str) -> list[Any]:
        """Go on without an instance that keeps ending its process while it is made; its events fail by its name."""
        seat.instances = [entry for entry in seat.instances if entry[0] != ident]
        seat.left_out[ident] = f"{detail} while initialising it"
        seat.starts_failed.clear()
        self._supervisor.start(seat)
        return [_not_again(ident, f"{seat.left_out[ident]}; it is left out")]

    # -- statistics --------------------------------------------------------------------------------------

    def stats(self) -> dict[str, Any]:
        """Return what the dispatcher knows for ``Rigger.stats``."""
        counters = self.scheduler.counters
        ended = counters.succeeded + counters.failed + counters.lost
        return {
            "events": {
                "accepted": counters.accepted,
                "ended": ended,
                "succeeded": counters.succeeded,
                "failed": counters.failed,
                "lost": counters.lost,
                "pending": counters.accepted - ended,
            },
            "hooks": self._hook_stats(),
            "functions": counters.functions(),
            "processes": [self._seat_stats(seat) for seat in self._supervisor.seats.values()],
        }

    def _hook_stats(self) -> dict[str, Any]:
        counted = self.scheduler.counters.hooks()
        rows: dict[str, Any] = {}
        for hook in dict.fromkeys([*self._registry.hooks, *counted]):
            plan = self._registry.plan(hook)
            row = counted.get(hook, {"events": 0, "failures": 0, "seconds": 0.0})
            rows[hook] = {**row, "concurrent": plan.concurrent, "kept_ordered_by": list(plan.blockers)}
        return rows

    def _seat_stats(self, seat: Seat) -> dict[str, Any]:
        kept = self.keeper.spool if self.keeper is not None and seat.slot.number == ARCHIVE else None
        return {
            **({"spooled": kept.jobs, "dead_letters": kept.dead} if kept is not None else {}),
            "role": "archive" if seat.slot.number == ARCHIVE else "worker",
            "name": seat.name,
            "pid": seat.process.pid if seat.process is not None else 0,
            "jobs": seat.past_jobs + seat.jobs,
            "busy_seconds": seat.slot.busy,
            "restarts": seat.restarts,
        }


def _not_again(ident: str, problem: str) -> m.Log:
    return m.Log(f"instance {ident!r} could not be initialised again: {problem}")
