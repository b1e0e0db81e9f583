"""What an engine consists of, put together: generations of slots, callbacks, and the scheduler over them.

::

    Reload ─▶ staged: its processes start beside ─▶ every instance made ─▶ Swap, in the order of events ─▶ serves
                 │ something cannot be made                                   │
                 └─▶ refused: its processes end                               └─▶ the former one's end, when idle

Events that are accepted once everything is made are planned with the new generation's functions; the swap
separates them from those before.
"""

from __future__ import annotations

import itertools
import pickle
import weakref
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rigger_mp.engine import messages as m
from rigger_mp.engine.activity import ANY, ARCHIVE, Slot, Swap
from rigger_mp.engine.blueprint import Boot
from rigger_mp.engine.commit_log import CommitLog
from rigger_mp.engine.generation import Generation
from rigger_mp.engine.placement import is_archive
from rigger_mp.engine.registry import Function
from rigger_mp.engine.schedule import Scheduler
from rigger_mp.engine.supervisor import Seat, Supervisor

if TYPE_CHECKING:
    from rigger_mp.engine.keeper import Keeper
    from rigger_mp.engine.spool import Spool


@dataclass(slots=True)
class Staged:
    """A generation that does not serve yet, and the message that asked for it."""

    generation: Generation
    reload: m.Reload
    squash: bool


class Assembly:
    """Builds the engine and changes it while it runs.

    Args:
        boot: what it consists of.
        supervisor: starts the processes.

    Attributes:
        keeper: writes to the spool, if there is one.
    """

    def __init__(self, boot: Boot, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._present = Generation(boot, supervisor)
        self._generations = [self._present]
        self._staged: Staged | None = None
        self._next_slot = len(self._present.slots)
        self._archives = itertools.count(ARCHIVE - 1, -1)
        self.scheduler = Scheduler(
            self._present.registry,
            CommitLog(boot.list_merge, *boot.globals),
            self._present.slots,
            threaded=boot.threaded,
            squash=boot.squash,
            max_nesting=boot.max_nesting,
            queue_size=boot.queue_size,
        )
        self.keeper: Keeper | None = None
        self._binds: dict[tuple[str, str, str], m.Bind] = {}
        self._callbacks = 0
        self._retired: list[str] = []

    @property
    def ready(self) -> bool:
        """Whether every instance has been tried once; nothing runs before."""
        return self._present.ready

    # -- starting ----------------------------------------------------------------------------------------

    def keep(self, spool: Spool) -> Keeper:
        """Have background jobs kept in a spool."""
        from rigger_mp.engine.keeper import Keeper  # noqa: PLC0415 - only where there is a spool

        self.scheduler.durable = True
        self.keeper = Keeper(spool, self.scheduler)
        return self.keeper

    def start_workers(self) -> None:
        """Start the processes of all slots but the archive's."""
        self._present.start_workers()

    def hosted(self, seat: Seat, message: m.Hosted) -> list[Any]:
        """Take what a host could make; return what to tell the user's process."""
        if seat.end_by:
            return []
        seat.hosted = True
        seat.starts_failed.clear()
        self.scheduler.slot_up(seat.slot)
        generation = self._generation_of(seat)
        again = generation.ready
        told = [_not_again(*found) for found in message.problems if again and found[0] not in seat.left_out]
        generation.take_hosted(message)
        return [*told, *self._check_ready(generation)]

    def _generation_of(self, seat: Seat) -> Generation:
        return next(generation for generation in self._generations if seat.slot in generation.slots)

    def _check_ready(self, generation: Generation) -> list[Any]:
        if generation.ready or not generation.tried:
            return []
        staged = self._staged if self._staged is not None and self._staged.generation is generation else None
        archive = generation.start_archive(self.keeper.spool.marks if self.keeper is not None else None)
        if archive is not None:
            self._admit_archive(archive, staged)
            return []
        if staged is not None:
            return self._finish_staging(staged)
        self.scheduler.copies.update(generation.bind_instances())
        if self.keeper is not None:
            self.keeper.resume()
        return [m.Ready(generation.describe_problems(), generation.describe_hooks())]

    def _admit_archive(self, archive: Slot, staged: Staged | None) -> None:
        if staged is None:
            self.scheduler.slots[archive.number] = archive
        else:
            self.scheduler.stage(archive, staged.generation.living_in(archive.number))

    # -- reloading ---------------------------------------------------------------------------------------

    def _stage(self, reload: m.Reload) -> None:
        boot: Boot = pickle.loads(reload.boot)
        generation = Generation(boot, self._supervisor, self._next_slot, next(self._archives))
        self._next_slot += len(generation.slots)
        self._generations.append(generation)
        self._staged = Staged(generation, reload, boot.squash)
        for slot in generation.slots:
            slot.shared = False
            self.scheduler.stage(slot, generation.living_in(slot.number))
        generation.start_workers()

    def _finish_staging(self, staged: Staged) -> list[Any]:
        generation, reload = staged.generation, staged.reload
        gone = [slot.gone for slot in generation.slots if slot.gone]
        if gone:
            return self._refuse("StartError", gone)
        broken = generation.describe_problems(() if reload.strict else {*reload.tolerated, *self._present.problems})
        if broken:
            return self._refuse("PluginError", broken)
        self._swap(staged)
        return []

    def _refuse(self, kind: str, why: Iterable[str]) -> list[Any]:
        assert self._staged is not None
        generation, reload = self._staged.generation, self._staged.reload
        self._staged = None
        self.scheduler.unstage(generation.slots)
        for seat in generation.seats:
            self._dismiss(seat)
        return [m.Reloaded(reload.token, kind, "\n".join(why), (), ())]

    def _swap(self, staged: Staged) -> None:
        generation, boot = staged.generation, staged.generation.boot
        copies = generation.bind_instances()
        problems, hooks = generation.describe_problems(), generation.describe_hooks()
        self._present, self._staged = generation, None
        for bind in self._binds.values():
            self._bind(bind)
        self.scheduler.accept_swap(
            Swap(
                generation.registry, tuple(generation.slots), generation.shared, copies,
                boot.threaded, staged.squash, boot.max_nesting,
                m.Reloaded(staged.reload.token, "", "", problems, hooks),
            )
        )  # fmt: skip

    def abandon_reload(self) -> list[Any]:
        """Let what does not serve yet never serve, because the engine stops; return what to tell of it."""
        return [] if self._staged is None else self._refuse("NotRunningError", ["the engine is being stopped"])

    def dismiss_superseded(self) -> None:
        """End the processes of former generations that have nothing left to do."""
        for slot in self.scheduler.table.take_drained():
            self._dismiss(self._supervisor.seats[slot.number])

    def _dismiss(self, seat: Seat) -> None:
        self._supervisor.dismiss(seat)
        self._forget_empty_generations()

    def _forget_empty_generations(self) -> None:
        self._generations = [g for g in self._generations if g is self._present or g.seats]

    # -- changing ----------------------------------------------------------------------------------------

    def take(self, message: Any) -> None:
        """Carry out a change that the user's process asked for, in its place among the events."""
        match message:
            case m.Bind():
                self._binds[message.hook, message.stage, message.name] = message
                self._bind(message)
            case m.Unbind():
                self._binds.pop((message.hook, message.stage, message.name), None)
                self._present.registry.unbind_callback(message.hook, message.stage, message.name)
            case m.Option():
                self._set_squash(message.squash)
            case m.Write():
                self.scheduler.accept_write(message)
            case m.Configure():
                self.scheduler.accept_configure(message)
            case m.Reload():
                self._stage(message)

    def _set_squash(self, squash: bool) -> None:
        self.scheduler.squash = squash
        if self._staged is not None:
            self._staged.squash = squash

    def _bind(self, bind: m.Bind) -> None:
        registry = self._present.registry
        self._callbacks += 1
        function_id = f"\0{self._callbacks}"
        home = ANY if bind.concurrent else registry.callback_home(bind.hook)
        load = m.Load(function_id, bind.label, bind.stage, bind.function)
        self._supervisor.load(load, self._present.seats_that_may_run(home))
        actor = "" if bind.concurrent else function_id
        function = Function(function_id, bind.label, "", home, bind.concurrent, bind.reads, actor)
        # Once unbound, it is still held by the plans of events that were accepted before.
        weakref.finalize(function, self._retired.append, function_id).atexit = False
        registry.bind_callback(bind.hook, bind.stage, bind.name, function)

    def forget_retired(self) -> None:
        """Unload callbacks that no event will call any more."""
        while self._retired:
            self._supervisor.forget(self._retired.pop())

    # -- losing processes --------------------------------------------------------------------------------

    def replace(self, seat: Seat, detail: str, instance: int | None) -> list[Any]:
        """Fill a seat again whose process died; ``instance`` is what it was making, -1 if it was not.

        Returns what to tell the user's process.
        """
        if seat.end_by:
            self._supervisor.dismiss(seat)
            self._forget_empty_generations()
            return []
        generation = self._generation_of(seat)
        starting = instance is not None
        blamed = instance is not None and 0 <= instance < len(seat.making)
        ident = seat.making[instance or 0] if blamed else ""
        if ident and not generation.ready:
            generation.give_up(ident, f"{detail} while initialising it")
        if self._supervisor.may_restart(seat, starting):
            self._supervisor.start(seat)
            return []
        if ident and generation.ready:
            return self._leave_out(seat, ident, detail)
        self.scheduler.slot_gone(seat.slot, f"{seat.name} cannot be started: {detail} while starting")
        return [m.Log(f"{seat.name} is given up: {detail} while starting"), *self._check_ready(generation)]

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
            "generation": self._present.boot.generation,
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
        registry = self._present.registry
        for hook in dict.fromkeys([*registry.hooks, *counted]):
            plan = registry.plan(hook)
            row = counted.get(hook, {"events": 0, "failures": 0, "seconds": 0.0})
            rows[hook] = {**row, "concurrent": plan.concurrent, "kept_ordered_by": list(plan.blockers)}
        return rows

    def _seat_stats(self, seat: Seat) -> dict[str, Any]:
        kept = self.keeper.spool if self.keeper is not None and is_archive(seat.slot.number) else None
        return {
            **({"spooled": kept.jobs, "dead_letters": kept.dead} if kept is not None else {}),
            "role": "archive" if is_archive(seat.slot.number) else "worker",
            "name": seat.name,
            "pid": seat.process.pid if seat.process is not None else 0,
            "jobs": seat.past_jobs + seat.jobs,
            "busy_seconds": seat.slot.busy,
            "restarts": seat.restarts,
        }


def _not_again(ident: str, problem: str) -> m.Log:
    return m.Log(f"instance {ident!r} could not be initialised again: {problem}")
