"""A generation: the processes that one configuration asked for, and the functions that they bound.

::

    Boot ─▶ place ─▶ seats ─▶ Hosted from every worker ─▶ the archive's seat ─▶ Hosted ─▶ registry: ready

The first generation is the one that the engine starts with; each reload makes another. Generations differ in
the numbers of their slots, so that two of them can be at work at once.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from rigger_mp.engine import messages as m
from rigger_mp.engine.activity import Slot
from rigger_mp.engine.blueprint import Boot
from rigger_mp.engine.placement import ANY, ARCHIVE, is_archive, place
from rigger_mp.engine.registry import Function, Registry
from rigger_mp.engine.starting import worker_name
from rigger_mp.engine.supervisor import Seat, SeatKind, Supervisor

if TYPE_CHECKING:
    from rigger_mp.engine.job_marks import JobMarks


class Generation:
    """See the module.

    Args:
        boot: what it consists of.
        supervisor: starts the processes.
        first: the number of its first slot.
        archive: the number of its archive's slot.

    Attributes:
        registry: which of its functions run for which hook.
        slots: its slots, in the order in which they were made; the archive's last, if it has one.
        shared: the numbers of those that take tasks that any worker may run.
        problems: what is wrong, by instance.
        ready: whether every instance has been tried once; nothing runs before.
    """

    def __init__(self, boot: Boot, supervisor: Supervisor, first: int = 0, archive: int = ARCHIVE) -> None:
        self.boot = boot
        self._supervisor = supervisor
        self._plans = {plan.ident: plan for plan in boot.instances}
        self._placement = place(boot.instances, boot.workers, first, archive)
        self.registry = Registry(boot.overrides, self._placement.dedicated, first)
        self.shared = self._placement.shared
        self.slots = [Slot(number, shared=number in self.shared) for number in self._placement.slots]
        self.problems: dict[str, str] = {}
        self.ready = False
        self._kind = SeatKind(boot.settings, boot.limits)
        self._functions: dict[str, dict[str, m.HostedFunction]] = {}

    # -- starting ----------------------------------------------------------------------------------------

    def start_workers(self) -> None:
        """Start the processes of all slots but the archive's."""
        for position, slot in enumerate(self.slots):
            setups = self._setups(self.living_in(slot.number))
            self._supervisor.add(slot, worker_name(position), self._kind, setups)

    def start_archive(self, job_marks: JobMarks | None) -> Slot | None:
        """Start the archive's process if there is one to be and there is none yet; return its slot.

        Args:
            job_marks: where it notes which jobs it starts and ends, if there is a spool.
        """
        archived = self.archived()
        if not archived or is_archive(self.slots[-1].number):
            return None
        slot = Slot(self._placement.archive, shared=False)
        self.slots.append(slot)
        self._supervisor.add(slot, "archive", self._kind, self._setups(archived), job_marks)
        return slot

    def living_in(self, number: int) -> list[str]:
        """Return the instances that a slot has a copy of."""
        if is_archive(number):
            return self.archived()
        return self._placement.living_in(number)

    def archived(self) -> list[str]:
        """Return the instances that the archive has a copy of, as far as their hooks are known."""
        with_background_hooks = {
            ident for ident, functions in self._functions.items() if any(f.bg for f in functions.values())
        }
        return [
            ident
            for ident in self._plans
            if is_archive(self._placement.homes[ident]) or ident in with_background_hooks
        ]

    def _setups(self, idents: Iterable[str]) -> list[tuple[str, bytes]]:
        return [(ident, self._plans[ident].setup) for ident in idents if ident not in self.problems]

    # -- what became of it -------------------------------------------------------------------------------

    @property
    def seats(self) -> list[Seat]:
        """The seats that have not been dismissed."""
        seats = self._supervisor.seats
        return [seats[slot.number] for slot in self.slots if slot.number in seats]

    def seats_that_may_run(self, home: int) -> list[Seat]:
        """Return the seats where a function of this home may run."""
        numbers = self.shared if home == ANY else {home}
        return [seat for seat in self.seats if seat.slot.number in numbers]

    @property
    def tried(self) -> bool:
        """Whether every seat that there is has a process with its instances, or never will have one."""
        return all(seat.hosted or seat.slot.gone for seat in self.seats)

    def take_hosted(self, message: m.Hosted) -> None:
        """Take what a host could make."""
        self.problems.update(message.problems)
        for fields in message.functions:
            function = m.HostedFunction._make(fields)
            self._functions.setdefault(function.ident, {})[function.event] = function

    def give_up(self, ident: str, problem: str) -> None:
        """Make an instance nowhere any more."""
        self.problems[ident] = problem
        for seat in self.seats:
            seat.instances = [entry for entry in seat.instances if entry[0] != ident]

    def bind_instances(self) -> dict[str, tuple[int, ...]]:
        """Bind what was hosted; return the slots that hold a copy of each instance."""
        copies: dict[str, tuple[int, ...]] = {}
        living = {slot.number: self.living_in(slot.number) for slot in self.slots}
        for ident, functions in self._functions.items():
            if ident in self.problems:
                continue
            bindings = {event: self._function(function) for event, function in functions.items()}
            self.registry.bind_instance(self._plans, ident, bindings)
            copies[ident] = tuple(number for number, idents in living.items() if ident in idents)
        self.ready = True
        return copies

    def _function(self, hosted: m.HostedFunction) -> Function:
        plan = self._plans[hosted.ident]
        home = self._placement.archive if hosted.bg else self._placement.homes[hosted.ident]
        actor = "" if plan.stateless else f"{hosted.ident}@archive" if is_archive(home) else hosted.ident
        default = self.boot.archive_retries if is_archive(home) else self.boot.default_retries
        retries = plan.max_retries or self.boot.hook_retries.get(hosted.event, 0) or default
        concurrent = plan.stateless or hosted.concurrent
        return Function(
            hosted.function_id, hosted.label, hosted.ident, home, concurrent, hosted.reads, actor, retries
        )

    def describe_problems(self, but: Iterable[str] = ()) -> tuple[str, ...]:
        """Say which instances could not be initialised, and why; some need not be named."""
        return tuple(f"instance {ident!r}: {text}" for ident, text in self.problems.items() if ident not in but)

    def describe_hooks(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
        """Return the hooks of each instance."""
        return tuple((ident, tuple(functions)) for ident, functions in self._functions.items())
