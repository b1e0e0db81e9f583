"""The scheduler: events and completions in, jobs and outcomes out. Pure: no I/O, no clock, no process.

::

    accept ─▶ waiting ─(admission: barriers)─▶ running ─(steps)─▶ tasks ─(turns)─▶ ready / shared
                                                  ▲                                     │ room in a slot
                                                  └───────── done, lost ◀──── job ◀─────┘

*Admission* keeps the order. A concurrent event starts unless an ordered one runs or waits before it. An
ordered event starts when nothing runs, or when everything that runs is a *chain*: ordered events sent whole
to one worker, which executes them one after another, so that the order holds without a round trip each.
No other commit may come between those of a chain: background handlers' updates are deferred until its end.
Ordered events of one hook that nobody waits for are even one activity and one job, a *series*
(:mod:`rigger_mp.engine.series`), of which each event ends by itself.

*Turns*: concurrent events that use the same stateful instance draw a ticket for it when they are admitted,
and their tasks are queued to its worker in the order of the tickets.

A *swap* puts another generation of slots and functions in the place of the present one. It is an ordered
activity: what was accepted before ends on the old slots, what was accepted after it starts on the new ones.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rigger_mp.encoding import dump_deletions
from rigger_mp.engine import messages as m
from rigger_mp.engine.activity import (
    ANY,
    BACKGROUND,
    CONFIGURE,
    EVENT,
    NO_ACTORS,
    SWAP,
    WRITE,
    Activity,
    Slot,
    Swap,
    Task,
    group_by_home,
)
from rigger_mp.engine.commit_log import CommitLog
from rigger_mp.engine.handover import (
    Handover,
    UnrunnableError,
    background_activity,
    change_at_end,
    hand_over,
    revive,
)
from rigger_mp.engine.kept_jobs import Change, Died, Interrupted, KeptJob
from rigger_mp.engine.losses import failures_of, last_loss, loss_record
from rigger_mp.engine.outcomes import Outcomes, Results
from rigger_mp.engine.placement import is_archive
from rigger_mp.engine.ready_queue import ReadyQueue
from rigger_mp.engine.registry import Function, Plan, Registry, Stage
from rigger_mp.engine.series import Series, divide, length_of_series
from rigger_mp.engine.slots import SlotTable
from rigger_mp.engine.turns import Turns


class Scheduler:
    """Decides what runs next, where.

    Args:
        registry: which functions run for which hook.
        log: the global namespace.
        slots: the places of the worker processes, the archive's included.
        threaded: functions of one stage run in parallel.
        squash: failures do not end their event.
        max_nesting: how deep hooks may fire hooks.
        queue_size: how many nested events may wait.
        copies: the slots that hold a copy of each instance.
        durable: background functions are kept in a spool: an event that hands some over goes on once
            :meth:`kept` or :meth:`not_kept` is told of them.

    Attributes:
        counters: what has happened.
        messages: for the user's process; whoever sends them clears it.
        completed: for the user's process: the tokens of events that ended well and that nobody waits for; likewise.
        commits: for the Manager, likewise.
        begun: the tokens of what takes effect before a worker can mark it as started: assignments among those
            commits, and events whose background handlers are handed over; likewise.
        configured: ``(ident, call)`` of ``configure`` calls whose turn has come, to be replayed whenever
            the instance is made again; likewise.
        nested: nested events that have not ended.
        background: background handlers that have not ended.
        delayed: ``(task, retry)`` of tasks that lost their process, to be given to :meth:`retry` after a while, the
            longer the more often it was retried (1: the first time); likewise.
        handed: what events want kept; whoever tells of their being kept takes them out.
        changes: what became of kept jobs, for the spool; whoever writes them clears it.
    """

    def __init__(
        self,
        registry: Registry,
        log: CommitLog,
        slots: Iterable[Slot],
        *,
        threaded: bool = True,
        squash: bool = False,
        max_nesting: int = 1000,
        queue_size: int = 10_000,
        copies: Mapping[str, tuple[int, ...]] | None = None,
        durable: bool = False,
    ) -> None:
        self.registry = registry
        self.log = log
        self.table = SlotTable(slots)
        self.slots = self.table.slots
        self.threaded = threaded
        self.squash = squash
        self.max_nesting = max_nesting
        self.queue_size = queue_size
        self.copies = dict(copies or {})
        self.durable = durable
        self.outcomes = Outcomes()
        self.counters = self.outcomes.counters
        self.messages = self.outcomes.messages
        self.completed = self.outcomes.completed
        self.commits: list[m.CommitEntry] = []
        self.begun: list[int] = []
        self.delayed: list[tuple[Task, int]] = []
        self.configured: list[tuple[str, bytes]] = []
        self.handed: list[Handover] = []
        self.changes: list[Change] = []
        self._turns = Turns(self._make_ready)
        self._waiting: deque[Activity] = deque()
        self._deferred: list[m.CommitEntry] = []
        self._running = 0
        self._ordered_running = 0
        self.background = 0
        self._nested_waiting = 0
        self.nested = 0
        self._chain: int | None = None
        self._job = 0
        self._staged: dict[int, frozenset[str]] = {}
        self._held = False

    # -- what comes in -----------------------------------------------------------------------------------

    def accept(self, event: m.Event) -> None:
        """Take an event from the user's process."""
        plan = self.registry.plan(event.hook)
        self._accept(
            Activity(
                EVENT, event.token, plan, event.arguments, segments=event.segments, since=event.since
            )
        )

    def accept_series(self, series: m.Series) -> None:
        """Take events from the user's process that nobody waits for."""
        plan = self.registry.plan(series.hook)
        length = self._length_of_series(plan)
        if length == 1:
            for token, arguments in series.events:
                self._accept(Activity(EVENT, token, plan, arguments, since=m.NOBODY_WAITS))
            return
        for part in divide(series.events, length):
            self._accept(Activity(EVENT, 0, plan, b"", since=m.NOBODY_WAITS, series=part))

    def _length_of_series(self, plan: Plan) -> int:
        length = length_of_series(plan, self.threaded, self.table.estimate(plan.stages))
        if length == 1 or plan.fused_home is None:
            return 1
        slot = self.table.least_loaded() if plan.fused_home == ANY else self.slots[plan.fused_home]
        return min(length, slot.quota or length)

    def accept_nested(self, event: m.Nested) -> None:
        """Take an event that a hook fired."""
        if event.depth > self.max_nesting:
            detail = f"fired {event.depth} hooks deep; max_nesting is {self.max_nesting}"
            return self.outcomes.refuse(event.hook, "NestingLimitExceeded", detail)
        if self._nested_waiting >= self.queue_size:
            detail = f"{self._nested_waiting} nested events are waiting; queue_size is {self.queue_size}"
            return self.outcomes.refuse(event.hook, "QueueFull", detail)
        self._nested_waiting += 1
        self.nested += 1
        plan = self.registry.plan(event.hook)
        self._accept(
            Activity(EVENT, 0, plan, event.arguments, event.depth, nested=True, segments=event.segments)
        )
        return None

    def accept_write(self, write: m.Write) -> None:
        """Take an assignment to the global namespace; it is sequenced like an ordered event."""
        plan = Plan("global_data", concurrent=False)
        self._accept(Activity(WRITE, write.token, plan, write.updates, clear=write.clear))

    def accept_configure(self, call: m.Configure) -> None:
        """Take a call of ``configure``; it is sequenced like an ordered event."""
        plan = Plan(call.ident, concurrent=False)
        self._accept(Activity(CONFIGURE, call.token, plan, call.arguments))

    def done(self, slot: Slot, job: int, results: Results, segments: m.Segments = ()) -> int:
        """Take the results of a job, and what their large values are in; return how many jobs that ends.

        One that is done already is ignored.
        """
        task = slot.remove(job)
        if task is None:
            return 0
        activity = task.activity
        activity.update_segments += segments
        self.outcomes.count_calls(slot, task, results, self.table.estimates)
        if activity.kind is EVENT:
            self._task_done(task, results)
        elif activity.kind is BACKGROUND:
            self._background_done(task, results)
        else:
            activity.unfinished -= 1
            activity.results.update({str(job): result for stage in results for result in stage})
            self._finish_configure(activity)
        return 1

    def done_of_series(self, slot: Slot, job: int, place: int, results: Sequence[Results]) -> int:
        """Take the results of events of a job's series, that at ``place`` and those behind it, as :meth:`done` does."""
        task = slot.outstanding.get(job)
        series = task.activity.series if task is not None else None
        if task is None or series is None or place > series.ended:
            return 0
        activity, new = task.activity, results[series.ended - place :]
        self.outcomes.count_calls_of_series(slot, task, new, self.table.estimates)
        series.ended += len(new)
        for of_one in new:
            failures = self._merge_stages(activity, of_one)
            token, _ = series.events.popleft()
            if failures:
                self.outcomes.failed(m.Outcome(token, m.FAILED, (), failures, self.log.version, "", activity.plan.hook))
            else:
                self.outcomes.succeeded(activity.plan.hook, token)
        if not series.events:
            slot.remove(job)
            self._end(activity, m.OK)
        return len(new)

    # -- generations -------------------------------------------------------------------------------------

    def stage(self, slot: Slot, idents: Iterable[str]) -> None:
        """Take a slot of a coming generation, which will get a copy of these instances.

        Until the swap it gets nothing but the ``configure`` calls whose turn comes meanwhile.
        """
        self.slots[slot.number] = slot
        slot.held = self._held and is_archive(slot.number)
        self._staged[slot.number] = frozenset(idents)

    def unstage(self, slots: Iterable[Slot]) -> None:
        """Forget the slots of a generation that does not come."""
        for slot in slots:
            del self._staged[slot.number]
            self.slot_lost(slot, 0, m.WORKER_LOST, "")
            del self.slots[slot.number]

    def accept_swap(self, swap: Swap) -> None:
        """Take a generation whose slots are staged; whatever is accepted from now on is its."""
        self.registry, self.squash, self.max_nesting = swap.registry, swap.squash, swap.max_nesting
        self._accept(Activity(SWAP, 0, Plan("reload", concurrent=False), b"", swap=swap))

    def _swap(self, activity: Activity) -> None:
        swap = activity.swap
        assert swap is not None
        for slot in swap.slots:
            del self._staged[slot.number]
        self.table.swap(swap.slots, swap.shared, [slot for n, slot in self.slots.items() if n in self._staged])
        self.copies, self.threaded = dict(swap.copies), swap.threaded
        self._end(activity, m.OK)
        if swap.message is not None:
            self.messages.append(swap.message)

    # -- what becomes of slots ---------------------------------------------------------------------------

    def slot_up(self, slot: Slot) -> None:
        """Note that a process with its instances fills a slot."""
        slot.up = True

    def slot_lost(self, slot: Slot, started: int, status: int, detail: str) -> None:
        """Note that the process of a slot died while it ran job ``started`` (0: none).

        That job is lost, or that event of a series; what was sent and not started will be sent again, in its order.
        """
        tasks = slot.clear()
        culprit = self._take_culprit(tasks, started)
        for task in reversed(tasks.values()):
            self.table.put_back(slot, task)
        if culprit is not None:
            self._task_lost(slot, culprit, status, detail)
        self._drop_configure(slot)

    def _take_culprit(self, tasks: dict[int, Task], started: int) -> Task | None:
        """Take out what counts as job ``started``, if it has not ended: a task, or an event of a task's series."""
        for job, task in tasks.items():
            series = task.activity.series
            if started == job + (0 if series is None else series.ended):
                if task.activity.count == 1:
                    del tasks[job]
                return task if series is None else self._single_out(task, series)
        return None

    def retry(self, task: Task) -> None:
        """Run a task again that was delayed; it is ignored if it has ended meanwhile."""
        self.table.release(task)

    def slot_gone(self, slot: Slot, detail: str) -> None:
        """Note that a slot will never be filled again: what needs it fails from now on."""
        slot.gone = detail
        stranded, slot.ready = slot.ready, ReadyQueue()
        if slot.number == self._chain:
            self._chain = self.table.least_loaded().number
        for task in stranded:
            # What the chain alone kept here moves with it.
            if task.activity.ordered and task.activity.plan.fused_home == ANY and task.stages:
                task.home = self.table.least_loaded().number
            self._make_ready(task)
        for task in self.table.strand():
            self._fail_task(task, m.NOT_STARTED, detail)

    # -- what goes out -----------------------------------------------------------------------------------

    def next_jobs(self) -> list[tuple[Slot, m.Job]]:
        """Start what may start and return the jobs to send, in the order in which to send them."""
        jobs: list[tuple[Slot, m.Job]] = []
        while True:
            self._admit()
            before = len(jobs)
            for slot, task in self.table.sendable():
                jobs.append((slot, self._send(slot, task)))
            # A chain grows by what fits behind what was just sent.
            if len(jobs) == before or self._chain is None:
                return jobs

    @property
    def idle(self) -> bool:
        """Whether everything accepted has ended, background handlers included."""
        return not (self._waiting or self._running or self.background)

    @property
    def waiting(self) -> int:
        """How many activities are accepted and not started."""
        return sum(activity.count for activity in self._waiting)

    # -- admission ---------------------------------------------------------------------------------------

    def _accept(self, activity: Activity) -> None:
        activity.squash = self.squash
        activity.ordered = not activity.plan.concurrent
        self.counters.accepted += activity.count if activity.kind is EVENT else 0
        self._waiting.append(activity)

    def _admit(self) -> None:
        while self._waiting and self._may_start(self._waiting[0]):
            self._start(self._waiting.popleft())

    def _may_start(self, activity: Activity) -> bool:
        if not activity.ordered:
            return not self._ordered_running
        return not self._running or self._extends_chain(activity)

    def _extends_chain(self, activity: Activity) -> bool:
        if self._chain is None or self._deferred or activity.kind is not EVENT:
            return False
        plan, slot = activity.plan, self.slots[self._chain]
        if not plan.stages or plan.background:
            return False
        if plan.fused_home != self._chain and not (plan.fused_home == ANY and slot.shared):
            return False
        return self.table.has_room(slot, plan.stages, activity.count)

    def _start(self, activity: Activity) -> None:
        self._running += 1
        self._ordered_running += activity.ordered
        self._nested_waiting -= activity.nested
        if activity.kind is WRITE:
            self._write(activity)
        elif activity.kind is CONFIGURE:
            self._configure(activity)
        elif activity.kind is SWAP:
            self._swap(activity)
        else:
            self._start_event(activity)

    def _start_event(self, event: Activity) -> None:
        plan = event.plan
        event.fused = (event.ordered and self._chain is not None) or event.series is not None or self._fuse(plan)
        if event.ordered:
            if self._chain is None and event.fused and not plan.background and plan.stages:
                self._chain = plan.fused_home if plan.fused_home != ANY else self.table.least_loaded().number
        else:
            if plan.actors:
                self._turns.draw(event, plan.actors)
            if not event.fused or plan.handover:
                event.pinned = self.log.pin(plan.reads)
        self._next_step(event)

    def _fuse(self, plan: Plan) -> bool:
        if plan.fused_home is None:
            return False
        return not self.threaded or plan.widest < 2 or not self.table.fan_out_pays(plan)

    # -- steps of an event -------------------------------------------------------------------------------

    def _next_step(self, event: Activity) -> None:
        if event.step == event.plan.handover and event.plan.background and not event.handed:
            self._hand_over(event)
            if self.durable:
                return
        steps = event.steps()
        if event.step >= len(steps):
            self._end(event, m.OK)
            return
        tasks = self._tasks(event, steps[event.step])
        event.unfinished = len(tasks)
        if event.fused:
            self._turns.queue(tasks[0])
            return
        event.results.clear()
        if not self.threaded:
            event.postponed = deque(tasks[1:])
            tasks = tasks[:1]
        for task in tasks:
            self._turns.queue(task)

    def _tasks(self, event: Activity, stages: tuple[Stage, ...]) -> list[Task]:
        if event.fused:
            home = event.plan.fused_home
            assert home is not None
            if event.ordered and self._chain is not None:
                home = self._chain
            return [self._task(event, stages, home)]
        return [self._task(event, (part,), home) for home, part in group_by_home(stages[0], self.threaded)]

    def _task(self, activity: Activity, stages: tuple[Stage, ...], home: int) -> Task:
        actors = NO_ACTORS
        if activity.tickets:
            actors = frozenset(f.actor for stage in stages for f in stage if f.actor) & activity.tickets
        return Task(activity, stages, home, actors)

    def _task_done(self, task: Task, results: Results) -> None:
        event = task.activity
        event.unfinished -= 1
        if event.fused:
            self._finish_step(event, results)
            return
        event.results.update(zip(task.ids[0], results[0], strict=False))
        self._finish_fan_out(event)

    def _finish_fan_out(self, event: Activity) -> None:
        if event.postponed and event.lost is None and (event.squash or not failures_of(event.results.values())):
            self._turns.queue(event.postponed.popleft())
            return
        if event.postponed:
            event.unfinished -= len(event.postponed)
            event.postponed = None
        if event.unfinished:
            return
        if event.lost is not None:
            self._end(event, event.lost[0], detail=event.lost[1])
            return
        ids = event.plan.ids[event.step]
        self._finish_step(event, (tuple(event.results[id_] for id_ in ids if id_ in event.results),))

    def _finish_step(self, event: Activity, results: Results) -> None:
        failures = self._merge_stages(event, results)
        if failures:
            self._end(event, m.FAILED, failures)
            return
        event.step += 1
        self._next_step(event)

    def _merge_stages(self, event: Activity, results: Results) -> tuple[Any, ...]:
        """Merge what stages returned, up to the first that fails their event; return its failures."""
        for stage in results:
            local: m.Group = ()
            updates: m.Group = ()
            failures: tuple[Any, ...] = ()
            for of_local, of_globals, failure, _ in stage:  # no comprehensions: most stages have one function
                if of_local:
                    local = (*local, of_local)
                if of_globals:
                    updates = (*updates, of_globals)
                if failure is not None:
                    failures = (*failures, failure)
            if failures and not event.squash:
                return failures
            if failures:
                self.outcomes.squashed(event.plan.hook, failures)
            if local:
                event.updates = (*event.updates, local)
            if updates:
                self._merge(event, updates)
        return ()

    def _merge(self, event: Activity, updates: m.Group) -> None:
        if not event.ordered:
            event.overlay = (*event.overlay, updates)
            return
        self._commit((updates,))
        if event.replica is not None:
            event.replica.version += 1

    def _end(
        self, activity: Activity, status: int, failures: tuple[Any, ...] = (), *, detail: str = ""
    ) -> None:
        if activity.overlay and status in (m.OK, m.FAILED):
            self._commit(activity.overlay)
        self._turns.give_up(activity)
        self.nested -= activity.nested
        self._running -= 1
        self._ordered_running -= activity.ordered
        news = self.log.news(activity.since)
        self.outcomes.report(activity, status, failures, detail, self.log.version, news=news)
        if not self._running:
            self._chain = None
        if not self._ordered_running:
            self._commit_deferred()

    # -- commits -----------------------------------------------------------------------------------------

    def _commit(self, entry: m.CommitEntry) -> None:
        self.log.append(entry)
        self.commits.append(entry)

    def _commit_deferred(self) -> None:
        deferred, self._deferred = self._deferred, []
        self.background -= len(deferred)
        for entry in deferred:
            self._commit(entry)

    def _write(self, write: Activity) -> None:
        groups: tuple[m.Group, ...] = ((write.arguments,),)
        if write.clear:
            groups = ((dump_deletions(self.log.namespace),), *groups)
        self._commit(groups)
        self.begun.append(write.token)
        self._end(write, m.OK)

    # -- background --------------------------------------------------------------------------------------

    def _hand_over(self, event: Activity) -> None:
        event.handed = True
        if event.token:
            self.begun.append(event.token)
        handover = hand_over(event, self.log.pin(event.plan.background_reads))
        if self.durable:
            self.handed.append(handover)
        else:
            self._queue_handed(handover, [0] * len(handover.jobs))

    def kept(self, handover: Handover, keys: Iterable[int]) -> None:
        """Note that the spool keeps what an event handed over, by these keys; the event goes on."""
        self._queue_handed(handover, keys)
        self._next_step(handover.event)

    def not_kept(self, handover: Handover, detail: str) -> None:
        """Note that the spool cannot keep what an event handed over: it is not run, and the event ends."""
        self._end(handover.event, m.NOT_KEPT, detail=detail)

    def _queue_handed(self, handover: Handover, keys: Iterable[int]) -> None:
        event = handover.event
        for function, job, key in zip(event.plan.background, handover.jobs, keys, strict=True):
            child = background_activity(event.plan, job.payload, event.depth, key)
            actors = frozenset((function.actor,)) & event.tickets
            if actors:
                self._turns.transfer(event, child, actors)
            self._queue_background(child, function, actors)

    def _queue_background(self, child: Activity, function: Function, actors: frozenset[str] = frozenset()) -> None:
        stages = ((function,),)
        self.background += 1
        self._turns.queue(Task(child, stages, function.home, actors))

    def resume(self, job: KeptJob) -> None:
        """Take a job that the spool kept from before; those handed over earlier must be taken earlier."""
        try:
            child, function = revive(job, self.registry.plan(job.hook))
        except UnrunnableError as problem:
            self.changes.append(Died(job.key, job.attempts, str(problem), ""))
            record = loss_record(job.label, problem.type_name, str(problem), stage="background")
            self.outcomes.squashed(job.hook, (record,))
        else:
            self._queue_background(child, function)

    def hold_archive(self, held: bool) -> None:
        """Send the archive no more jobs, or do so again: what becomes of them could not be written down."""
        self._held = held
        for slot in self.slots.values():
            if is_archive(slot.number):
                slot.held = held

    def _background_done(self, task: Task, results: Results) -> None:
        (result,) = results[0]
        if task.activity.key:
            self.changes.append(change_at_end(task.activity, result[2]))
        if result[1]:  # it has not ended before its update is committed
            self._deferred.append(((result[1],),))
            if not self._ordered_running:
                self._commit_deferred()
            return
        self.background -= 1
        if result[2] is not None:
            self.outcomes.squashed(task.activity.plan.hook, (result[2],))

    # -- configure ---------------------------------------------------------------------------------------

    def _configure(self, call: Activity) -> None:
        self.configured.append((call.plan.hook, call.arguments))
        ident = call.plan.hook
        staged = (number for number, idents in self._staged.items() if ident in idents)
        slots = [self.slots[number] for number in (*self.copies.get(ident, ()), *staged)]
        alive = [slot for slot in slots if not slot.gone]
        call.unfinished = len(alive)
        for slot in alive:
            slot.ready.append(Task(call, (), slot.number))
        self._finish_configure(call)

    def _drop_configure(self, slot: Slot) -> None:
        """Count calls as done that a new process gets anyway, because it replays all of them."""
        for task in [task for task in slot.ready if task.activity.kind is CONFIGURE]:
            slot.ready.remove(task)
            task.activity.unfinished -= 1
            self._finish_configure(task.activity)

    def _finish_configure(self, call: Activity) -> None:
        if call.unfinished:
            return
        failures = failures_of(call.results.values())
        self._end(call, m.FAILED if failures else m.OK, failures[:1])

    # -- sending -----------------------------------------------------------------------------------------

    def _make_ready(self, task: Task) -> None:
        gone = self.table.put(task)
        if gone:
            self._fail_task(task, m.NOT_STARTED, gone)

    def _send(self, slot: Slot, task: Task) -> m.Job:
        activity = task.activity
        job = self._job + 1
        self._job += activity.count
        in_chain = activity.kind is EVENT and activity.ordered and activity.fused
        delta = None if activity.pinned is not None else self._delta(slot, activity, in_chain)
        slot.add(job, task)
        activity.replica = slot if in_chain else None
        series: tuple[tuple[int, bytes], ...] = ()
        if activity.series is not None:
            activity.series.ended = 0
            series = tuple(activity.series.events)
        kind = m.CALL_CONFIGURE if activity.kind is CONFIGURE else m.CALL_EVENT
        plan = activity.plan
        stages = plan.ids if task.stages is plan.stages else task.ids
        return m.Job(
            job, kind, plan.hook, stages, activity.arguments, activity.updates, delta,
            activity.overlay, activity.pinned, in_chain, activity.squash, activity.depth,
            activity.token if activity.kind is EVENT else 0, activity.segments + activity.update_segments,
            (activity.key, activity.retries) if activity.key else None, series,
        )  # fmt: skip

    def _delta(self, slot: Slot, activity: Activity, in_chain: bool) -> Any:
        if in_chain and slot.outstanding:
            return None  # its replica is ahead of the log, by the updates of the chain's earlier events
        if not in_chain and not self.log.matters(activity.plan.reads, slot.version):
            return None
        delta = self.log.delta(slot.version)
        slot.version = self.log.version
        return delta

    # -- losses ------------------------------------------------------------------------------------------

    def _single_out(self, task: Task, series: Series) -> Task:
        """Return a task of the first event of a series, which it leaves."""
        whole = task.activity
        token, arguments = series.events.popleft()
        event = Activity(EVENT, token, whole.plan, arguments, squash=whole.squash, since=m.NOBODY_WAITS, unfinished=1)
        self._running += 1
        self._ordered_running += 1
        if not series.events:
            self._end(whole, m.OK)
        return Task(event, task.stages, task.home)

    def _task_lost(self, slot: Slot, task: Task, status: int, detail: str) -> None:
        activity = task.activity
        if activity.kind is CONFIGURE:
            activity.unfinished -= 1  # it is replayed when the instance is made again
            self._finish_configure(activity)
            return
        activity.retries += 1
        task.losses += 1
        # A background handler may have been lost before, with another engine.
        attempts = activity.retries if activity.kind is BACKGROUND else task.losses
        if activity.lost or attempts > _most_retries(task):
            self._fail_task(task, *last_loss(status, detail, attempts))
            return
        if activity.key:
            self.changes.append(Interrupted(activity.key))
        self.table.delay(slot, task)
        self.delayed.append((task, attempts))

    def _fail_task(self, task: Task, status: int, detail: str) -> None:
        activity = task.activity
        if activity.kind is BACKGROUND:
            self.background -= 1
            if activity.key:
                self.changes.append(Died(activity.key, activity.retries, detail, ""))
            self.outcomes.lose_background(task, status, detail)
        elif activity.kind is CONFIGURE:
            activity.unfinished -= 1
            self._finish_configure(activity)
        else:
            activity.unfinished -= 1
            activity.lost = activity.lost or (status, detail)
            self._finish_fan_out(activity)


def _most_retries(task: Task) -> int:
    return max((function.max_retries for stage in task.stages for function in stage), default=0)
