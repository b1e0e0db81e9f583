"""Simulated worker processes around the pure scheduler, and notes of what they did.

A :class:`World` delivers jobs to simulated hosts in order, keeps each host's replica of the globals exactly
as the jobs say, and notes every call of a function: when it ran and which globals it saw.
"""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass, field
from typing import Any
from zlib import crc32

from rigger_mp.encoding import (
    collect,
    dump_arguments,
    dump_assignments,
    dump_updates,
    load_chain,
    load_names,
    load_part,
)
from rigger_mp.engine import messages as m
from rigger_mp.engine.activity import Slot, Swap, Task
from rigger_mp.engine.commit_log import CommitLog, merged_updates
from rigger_mp.engine.kept_jobs import Change, Interrupted
from rigger_mp.engine.placement import ANY
from rigger_mp.engine.registry import Function, Plan, Registry
from rigger_mp.engine.schedule import Scheduler
from rigger_mp.engine.slots import BUDGET, LONGEST_PREFETCH, MOST_JOBS
from rigger_mp.namespace import Namespace, extend_chain

GLOBALS = ("list", "tree", "last")


@dataclass(eq=False)
class Call:
    """One call of a function: ``stage`` counts the event's foreground stages, -1 is the background."""

    event: int
    function: Function
    stage: int
    seen: dict[str, Any]
    updates: bytes
    failed: bool
    seconds: float
    delivered: bool = False


@dataclass(eq=False)
class Execution:
    """One job, or event of a series, that a host started; ``end`` is when it finished or was lost.

    Of a series, ``place`` is that of the event, and ``job`` is as if it were sent alone.
    """

    event: int
    job: m.Job
    start: int
    calls: list[Call]
    results: tuple[tuple[tuple[Any, ...], ...], ...]
    place: int | None = None
    end: int = 0
    lost: bool = False

    @property
    def background(self) -> bool:
        return any(call.stage < 0 for call in self.calls)


@dataclass(eq=False)
class Accepted:
    """An accepted event, write or configure call; nobody is told the outcome of a silent one."""

    number: int
    kind: str
    plan: Plan
    squash: bool = False
    silent: bool = False
    outcomes: list[Any] = field(default_factory=list)


@dataclass(eq=False)
class Host:
    """A simulated process: a replica, jobs not started, the job that runs, results not yet delivered."""

    replica: Namespace
    inbox: deque[tuple[m.Job, int | None]] = field(default_factory=deque)
    running: Execution | None = None
    outbox: deque[Execution] = field(default_factory=deque)
    last_job: int = 0


class World:
    """The scheduler under test and its surroundings."""

    def __init__(
        self,
        registry: Registry,
        slots: list[Slot],
        functions: dict[str, Function],
        *,
        rng: random.Random,
        threaded: bool,
        list_merge: str,
        copies: dict[str, tuple[int, ...]],
        queue_size: int = 1000,
        durable: bool = False,
    ) -> None:
        self.log = CommitLog(list_merge)
        self.list_merge = list_merge
        self.threaded = threaded
        self.scheduler = Scheduler(
            registry, self.log, slots, threaded=threaded, copies=copies, queue_size=queue_size, max_nesting=5,
            durable=durable,
        )  # fmt: skip
        self.kept: dict[int, list[Change]] = {}
        self.refused: set[int] = set()
        self.functions = functions
        self.rng = rng
        self.hosts: dict[int, Host] = {}
        self.accepted: dict[int, Accepted] = {}
        self.executions: list[Execution] = []
        self.configured: list[tuple[int, int]] = []
        self.clock = 0
        self.nested_refused = 0
        self.squashed: list[m.Squashed] = []
        self.anything_gone = False
        self.staged: set[int] = set()
        self.generations: dict[int, int] = {}
        self.delayed: list[Task] = []
        for function in functions:
            if rng.random() < 0.7:  # it ran before
                self.scheduler.table.estimates.record(function, 0.00005)
        for slot in slots:
            self.generations[slot.number] = 0
            self.bring_up(slot)

    # -- generations -------------------------------------------------------------------------------------

    def stage(self, slot: Slot, idents: list[str]) -> None:
        self.generations[slot.number] = max(self.generations.values()) + (not self.staged)
        self.staged.add(slot.number)
        self.scheduler.stage(slot, idents)
        self.bring_up(slot)

    def unstage(self, slots: tuple[Slot, ...]) -> None:
        for slot in slots:
            host = self.hosts.pop(slot.number, None)
            if host is not None and host.running is not None:
                host.running.lost, host.running.end = True, self._tick()
        self.scheduler.unstage(slots)
        self.staged.clear()

    def swap(
        self,
        registry: Registry,
        slots: tuple[Slot, ...],
        shared: frozenset[int],
        copies: dict[str, tuple[int, ...]],
        functions: dict[str, Function],
    ) -> None:
        functions.update(self.functions)
        self.functions = functions
        self.scheduler.accept_swap(
            Swap(registry, slots, shared, copies, self.threaded, self.scheduler.squash, 5, None)
        )
        self.staged.clear()

    # -- accepting ---------------------------------------------------------------------------------------

    def fire(self, hook: str, *, nested_depth: int = 0, wait: bool = True) -> None:
        number = len(self.accepted) + 1
        plan = self.scheduler.registry.plan(hook)
        silent = bool(nested_depth) or not wait
        accepted = Accepted(number, "event", plan, self.scheduler.squash, silent)
        arguments = dump_arguments({"event": number})
        if not nested_depth:
            self.scheduler.accept(m.Event(number if wait else 0, hook, arguments))
        else:
            before = self.scheduler.waiting
            self.scheduler.accept_nested(m.Nested(hook, arguments, nested_depth))
            if self.scheduler.waiting == before:
                self.nested_refused += 1
                return
        self.accepted[number] = accepted

    def fire_series(self, hook: str, count: int) -> None:
        events = []
        for _ in range(count):
            number = len(self.accepted) + 1
            plan = self.scheduler.registry.plan(hook)
            self.accepted[number] = Accepted(number, "event", plan, self.scheduler.squash)
            events.append((number, dump_arguments({"event": number})))
        self.scheduler.accept_series(m.Series(hook, events))

    def write(self, values: dict[str, Any], clear: bool) -> None:
        number = len(self.accepted) + 1
        self.accepted[number] = Accepted(number, "write", Plan("", concurrent=False))
        self.scheduler.accept_write(m.Write(number, dump_assignments(values), clear))

    def configure(self, ident: str) -> None:
        number = len(self.accepted) + 1
        self.accepted[number] = Accepted(number, "configure", Plan(ident, concurrent=False))
        self.scheduler.accept_configure(m.Configure(number, ident, dump_arguments({"event": number})))

    # -- processes ---------------------------------------------------------------------------------------

    def bring_up(self, slot: Slot) -> None:
        self.hosts[slot.number] = Host(Namespace(self.list_merge))
        slot.refill(self.rng.choice((None, None, 1, 5)))
        self.scheduler.slot_up(slot)

    def lose(self, slot: Slot) -> None:
        """End a process: what it wrote is read first, as from a pipe."""
        host = self.hosts.pop(slot.number)
        while host.outbox:
            self._deliver(slot, host.outbox.popleft())
        started = host.last_job
        if host.running is not None:
            started = host.running.job.job
            host.running.lost, host.running.end = True, self._tick()
        self.scheduler.slot_lost(slot, started, m.WORKER_LOST, "killed")

    def retry(self, pick: int) -> None:
        """Let a task that lost its process be run again."""
        self._take_delayed()
        if self.delayed:
            self.scheduler.retry(self.delayed.pop(pick % len(self.delayed)))

    def _take_delayed(self) -> None:
        for task, retry in self.scheduler.delayed:
            assert 1 <= retry <= max(f.max_retries for stage in task.stages for f in stage)
            self.delayed.append(task)
        self.scheduler.delayed.clear()

    def give_up(self, slot: Slot) -> None:
        self.anything_gone = True
        self.scheduler.slot_gone(slot, "restarted too often")

    def pump(self) -> None:
        """Send what the scheduler wants sent."""
        jobs = self.scheduler.next_jobs()
        while self.scheduler.handed:
            self._keep()
            jobs += self.scheduler.next_jobs()
        for slot, job in jobs:
            assert slot.up
            self.hosts[slot.number].inbox.extend(_unfold(job))
        self._check_budget()
        self._take_delayed()
        self._note_changes()
        for message in self.scheduler.messages:
            if isinstance(message, m.Outcome):
                self.accepted[message.token].outcomes.append(message)
            else:
                self.squashed.append(message)
        self.scheduler.messages.clear()
        for token in self.scheduler.completed:
            self.accepted[token].outcomes.append(m.Outcome(token, m.OK, (), (), self.log.version, "", ""))
        self.scheduler.completed.clear()
        for slot in self.scheduler.table.take_drained():
            host = self.hosts.pop(slot.number, None)
            assert host is None or not (host.inbox or host.running or host.outbox)
        worn = [slot for slot in self.scheduler.slots.values() if slot.up and _is_worn(slot)]
        for slot in worn:
            self.lose(slot)
            self.bring_up(slot)
        if worn:
            self.pump()

    def _keep(self) -> None:
        handed, self.scheduler.handed[:] = self.scheduler.handed[:], []
        for handover in handed:
            event = int(load_part(load_names(handover.jobs[0].payload.arguments)["event"]))
            if not handover.event.plan.handover and self.rng.random() < 0.1:
                self.refused.add(event)
                self.scheduler.not_kept(handover, "no room")
                continue
            first = len(self.kept) + 1
            keys = range(first, first + len(handover.jobs))
            self.kept.update({key: [] for key in keys})
            self.scheduler.kept(handover, keys)

    def _note_changes(self) -> None:
        for change in self.scheduler.changes:
            self.kept[change.key].append(change)
        self.scheduler.changes.clear()

    def _check_budget(self) -> None:
        for slot in self.scheduler.slots.values():
            estimates = [task.estimate for task in slot.outstanding.values()]
            if len(estimates) > 1:
                known = [seconds for seconds in estimates if seconds is not None]
                assert len(known) == len(estimates), "work was queued behind or before unmeasured work"
                assert sum(known) <= (LONGEST_PREFETCH if len(known) == 2 else BUDGET) + 1e-9
                assert len(estimates) <= MOST_JOBS

    def start(self, slot: Slot) -> None:
        host = self.hosts[slot.number]
        job, place = host.inbox.popleft()
        event = load_names(job.arguments)["event"]
        execution = Execution(event, job, self._tick(), [], (), place)
        self._check_place(slot, job)
        self._check_kept(job)
        self._apply(host.replica, job.delta)
        if job.kind == m.CALL_CONFIGURE:
            self.configured.append((event, slot.number))
            execution.results = (((b"", b"", None, 0.0001),),)
        else:
            execution.results = self._run(host, job, execution)
        host.running = execution
        self.executions.append(execution)

    def _check_place(self, slot: Slot, job: m.Job) -> None:
        for id_ in (id_ for stage in job.stages for id_ in stage):
            home = self.functions[id_].home
            fits = home == slot.number or (home == ANY and slot.shared)
            assert fits, f"{id_} does not live in {slot.number}"
            assert slot.number not in self.staged, f"{id_} runs before its generation serves"
            assert int(id_.split(":")[0]) == self.generations[slot.number]

    def _check_kept(self, job: m.Job) -> None:
        if job.kept is not None:
            key, attempt = job.kept
            before = [change for change in self.kept[key] if isinstance(change, Interrupted)]
            assert before == self.kept[key], "a job runs that the spool has given up"
            assert attempt == len(before), "the spool counts other attempts than the job"

    def is_busy(self, slot: Slot) -> bool:
        host = self.hosts[slot.number]
        return bool(host.running or host.inbox)

    def ensure_running(self, slot: Slot) -> None:
        if self.hosts[slot.number].running is None:
            self.start(slot)

    def finish(self, slot: Slot) -> None:
        host = self.hosts[slot.number]
        assert host.running is not None
        host.running.end = self._tick()
        host.last_job = host.running.job.job
        host.outbox.append(host.running)
        host.running = None

    def deliver(self, slot: Slot, twice: bool = False) -> None:
        execution = self.hosts[slot.number].outbox.popleft()
        self._deliver(slot, execution)
        if twice:
            self._tell(slot, execution)

    def _deliver(self, slot: Slot, execution: Execution) -> None:
        for call in execution.calls:
            call.delivered = True
        self._tell(slot, execution)

    def _tell(self, slot: Slot, execution: Execution) -> None:
        number, place = execution.job.job, execution.place
        if place is None:
            self.scheduler.done(slot, number, execution.results)
        else:
            self.scheduler.done_of_series(slot, number - place, place, (execution.results,))

    def _tick(self) -> int:
        self.clock += 1
        return self.clock

    # -- a host ------------------------------------------------------------------------------------------

    def _apply(self, replica: Namespace, delta: Any) -> None:
        if delta is None:
            return
        whole, content = delta
        if whole:
            replica.replace(content)
            return
        for entry in content:
            for update in merged_updates(entry):
                replica.commit(update)

    def _run(self, host: Host, job: m.Job, execution: Execution) -> tuple[tuple[tuple[Any, ...], ...], ...]:
        overlay = merged_updates(job.overlay)
        all_results = []
        for ids in job.stages:
            calls = []
            for id_ in ids:
                calls.append(self._call(host, job, self.functions[id_], overlay, execution.event))
                if calls[-1].failed and not self.threaded and not job.squash:
                    break
            execution.calls += calls
            all_results.append(tuple(_result(call) for call in calls))
            if any(call.failed for call in calls) and not job.squash:
                break
            group = tuple(call.updates for call in calls if call.updates and not call.failed)
            if group and job.commit:
                host.replica.commit(collect(map(load_names, group)))
            elif group:
                overlay = [*overlay, collect(map(load_names, group))]
        return tuple(all_results)

    def _call(self, host: Host, job: m.Job, function: Function, overlay: list[Any], event: int) -> Call:
        plan = self.accepted[event].plan
        stage = next((n for n, stage in enumerate(plan.stages) if function in stage), -1)
        seen = {name: self._read(host, job, overlay, name) for name in function.reads}
        seen = {name: value for name, value in seen.items() if value is not _MISSING}
        failed = self.rng.random() < 0.12
        updates = b"" if failed or self.rng.random() < 0.3 else dump_updates(self._updates(event, function))
        quick = crc32(function.id.encode()) % 4
        seconds = 0.00005 if quick else self.rng.choice((0.0002, 0.002, 0.02))
        return Call(event, function, stage, seen, updates, failed, seconds)

    def _updates(self, event: int, function: Function) -> dict[str, Any]:
        mark = f"{event}:{function.id}:{self._tick()}"
        every = {
            "list": [mark],
            "tree": {"branch": {mark: 1}, "leaves": [mark], str(event % 2): event},
            "last": self.rng.choice((mark, {"is": mark}, [mark])),
        }
        return {name: every[name] for name in self.rng.sample(GLOBALS, self.rng.randint(1, 3))}

    def _read(self, host: Host, job: m.Job, overlay: list[Any], name: str) -> Any:
        if job.pinned is not None:
            chain = job.pinned.get(name)
        else:
            chain = host.replica.chain(name) if name in host.replica else None
        for update in overlay:
            if name in update:
                chain = extend_chain(chain, update[name], self.list_merge)
        return _MISSING if chain is None else load_chain(chain, self.list_merge)


_MISSING = object()


def _is_worn(slot: Slot) -> bool:
    return slot.quota is not None and slot.taken >= slot.quota and not slot.outstanding


def _unfold(job: m.Job) -> list[tuple[m.Job, int | None]]:
    """Return a job, or the events of its series as if each were one, with their places."""
    unfolded: list[tuple[m.Job, int | None]] = []
    for place, (token, arguments) in enumerate(job.series):
        delta = job.delta if place == 0 else None
        alone = job._replace(job=job.job + place, token=token, arguments=arguments, delta=delta, series=())
        unfolded.append((alone, place))
    return unfolded or [(job, None)]


def _result(call: Call) -> tuple[Any, ...]:
    failure = (call.function.label, "hook", "ValueError", "boom", "", b"") if call.failed else None
    return tuple(m.Result(b"", b"" if call.failed else call.updates, failure, call.seconds))
