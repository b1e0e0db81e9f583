"""The scheduler in situations that random driving reaches too rarely."""

from __future__ import annotations

from typing import Any

import pytest

from rigger_mp.encoding import dump_arguments, dump_updates
from rigger_mp.engine import messages as m
from rigger_mp.engine.activity import ARCHIVE, Activity, Kind, Slot, Swap, Task
from rigger_mp.engine.commit_log import NEWS_KEPT, CommitLog
from rigger_mp.engine.kept_jobs import Died, Finished, KeptJob, Payload
from rigger_mp.engine.placement import ANY
from rigger_mp.engine.registry import Function, Registry
from rigger_mp.engine.schedule import Scheduler
from rigger_mp.engine.slots import MOST_JOBS
from rigger_mp.engine.snapshots import Snapshots

NOTHING = b""
QUICK = 0.00001


class Bench:
    """A scheduler whose every function takes ``seconds``, and what it sent and said."""

    def __init__(
        self, *functions: tuple[str, str, int], ordered: tuple[str, ...] = (), **options: Any
    ) -> None:
        workers = options.pop("workers", 2)
        retries = options.pop("max_retries", 0)
        registry = Registry(dict.fromkeys(ordered, False), frozenset({workers}))
        idents = list(dict.fromkeys(ident for _, ident, _ in functions))
        for hook, ident, home in functions:
            actor = "" if home == ANY else ident
            function = Function(f"{ident}.{hook}", ident, ident, home, True, ("x",), actor, retries)
            registry.bind_instance(idents, ident, {hook: function})
        shared = [Slot(number) for number in range(workers)]
        self.slots = [*shared, Slot(workers, shared=False), Slot(ARCHIVE, shared=False)]
        self.scheduler = Scheduler(registry, CommitLog(), self.slots, **options)
        self.registry = registry
        for slot in self.slots:
            self.scheduler.slot_up(slot)
        self.sent: list[tuple[Slot, m.Job]] = []
        self.tokens = 0

    def fire(self, hook: str, times: int = 1) -> None:
        for _ in range(times):
            self.tokens += 1
            self.scheduler.accept(m.Event(self.tokens, hook, dump_arguments({"n": self.tokens})))

    def pump(self) -> list[tuple[Slot, m.Job]]:
        jobs = self.scheduler.next_jobs()
        self.sent += jobs
        return jobs

    def finish(self, seconds: float = QUICK, updates: bytes = NOTHING) -> None:
        """Finish what was sent, and what that makes ready, until nothing is left."""
        self.pump()
        while self.sent:
            slot, job = self.sent.pop(0)
            results = tuple(tuple((NOTHING, updates, None, seconds) for _ in stage) for stage in job.stages)
            self.scheduler.done(slot, job.job, results)
            self.pump()

    def lose_next(self) -> None:
        """Send what may be sent, and lose the process that gets the first of it."""
        slot, job = self.pump()[0]
        self.scheduler.slot_lost(slot, job.job, m.WORKER_LOST, "killed")
        self.scheduler.slot_up(slot)
        self.sent = [(other, sent) for other, sent in self.sent if other is not slot]

    def retry(self) -> list[int]:
        """Give back what waits for its retry; return how many retries each has had then."""
        delayed = self.scheduler.delayed[:]
        self.scheduler.delayed.clear()
        for task, _ in delayed:
            self.scheduler.retry(task)
        return [retry for _, retry in delayed]

    def measured(self, *hooks: str) -> Bench:
        for hook in hooks:
            self.fire(hook)
            self.finish()
        self.scheduler.messages.clear()
        return self

    def outcomes(self) -> list[tuple[int, int]]:
        said = [message for message in self.scheduler.messages if isinstance(message, m.Outcome)]
        self.scheduler.messages.clear()
        return [(outcome.token, outcome.status) for outcome in said]


def test_a_run_of_ordered_events_goes_out_at_once() -> None:
    bench = Bench(("add", "free", ANY), ordered=("add",)).measured("add")
    bench.fire("add", 50)
    jobs = bench.pump()
    assert len(jobs) == 50
    assert len({slot.number for slot, _ in jobs}) == 1
    assert all(job.commit for _, job in jobs)
    bench.finish()
    assert bench.outcomes() == [(token, m.OK) for token in range(2, 52)]


def test_no_more_jobs_are_sent_ahead_than_the_limit() -> None:
    bench = Bench(("add", "free", ANY), ordered=("add",), workers=1)
    bench.fire("add")
    bench.finish(seconds=0.0)
    bench.fire("add", MOST_JOBS + 10)
    assert len(bench.pump()) == MOST_JOBS
    bench.finish(seconds=0.0)
    assert bench.scheduler.idle


def test_an_event_that_nobody_waits_for_is_told_by_its_token_unless_it_fails() -> None:
    bench = Bench(("add", "a", 0)).measured("add")
    for token in (5, 6, 7):
        bench.scheduler.accept(m.Event(token, "add", NOTHING, (), m.NOBODY_WAITS))
    for failure in (None, ("a.add", "hook", "ValueError", "no", "", b""), None):
        bench.pump()
        slot, job = bench.sent.pop(0)
        bench.scheduler.done(slot, job.job, (((NOTHING, b"", failure, QUICK),),))
    assert bench.scheduler.completed == [5, 7]
    assert bench.outcomes() == [(6, m.FAILED)]


def test_unmeasured_and_slow_work_is_sent_one_at_a_time() -> None:
    bench = Bench(("add", "a", 0))
    bench.fire("add", 3)
    assert len(bench.pump()) == 1
    bench.finish(seconds=1.0)
    bench.fire("add", 3)
    assert len(bench.pump()) == 1


def test_a_worker_has_a_second_task_ahead_only_while_more_wait_than_there_are_workers() -> None:
    bench = Bench(("add", "free", ANY))
    bench.fire("add")
    bench.finish(seconds=0.01)
    bench.fire("add", 3)
    assert [slot.number for slot, _ in bench.pump()] == [0, 1], "whichever worker is free first gets the third"
    bench.fire("add", 3)
    assert [slot.number for slot, _ in bench.pump()] == [0, 1]
    assert [len(slot.outstanding) for slot in bench.slots[:2]] == [2, 2]


def test_an_event_in_a_run_is_not_fanned_out() -> None:
    functions = (("two", "free", ANY), ("two", "other", ANY), ("one", "free", ANY))
    bench = Bench(*functions, workers=3, ordered=("one", "two"))
    bench.measured("one")
    bench.fire("two")
    bench.finish(seconds=0.0006)
    bench.fire("one")
    bench.fire("two")
    jobs = bench.pump()
    assert [job.stages for _, job in jobs] == [(("free.one",),), (("free.two", "other.two"),)]
    assert len({slot.number for slot, _ in jobs}) == 1


def test_alone_the_same_event_is_fanned_out() -> None:
    bench = Bench(("two", "free", ANY), ("two", "other", ANY), workers=3, ordered=("two",))
    bench.fire("two")
    assert [job.stages for _, job in bench.pump()] == [(("free.two",),), (("other.two",),)]


def test_an_ordered_event_without_functions_waits_for_those_before_it() -> None:
    bench = Bench(("add", "free", ANY), ordered=("add", "nothing")).measured("add")
    bench.fire("add")
    bench.fire("nothing")
    bench.pump()
    assert bench.outcomes() == []
    bench.finish(updates=dump_updates({"x": 1}))
    said = [message for message in bench.scheduler.messages if isinstance(message, m.Outcome)]
    assert [(outcome.token, outcome.version) for outcome in said] == [(2, 1), (3, 1)]


def test_a_dedicated_worker_gets_nothing_that_may_run_elsewhere() -> None:
    bench = Bench(("own", "dedicated", 2), ("add", "free", ANY), ordered=("own", "add"))
    bench.measured("own", "add")
    bench.fire("own")
    bench.fire("add")
    assert [(slot.number, job.hook) for slot, job in bench.pump()] == [(2, "own")]
    bench.finish()
    assert bench.outcomes() == [(3, m.OK), (4, m.OK)]


def test_a_lost_run_loses_only_what_was_running() -> None:
    bench = Bench(("add", "free", ANY), ordered=("add",)).measured("add")
    bench.fire("add", 4)
    (slot, first), *_ = bench.pump()
    bench.scheduler.slot_lost(slot, first.job, m.WORKER_LOST, "killed")
    bench.sent.clear()
    bench.pump()
    bench.scheduler.slot_up(slot)
    bench.finish()
    assert sorted(bench.outcomes()) == [(2, m.WORKER_LOST), (3, m.OK), (4, m.OK), (5, m.OK)]


def test_a_run_moves_to_another_worker_when_its_own_is_given_up() -> None:
    bench = Bench(("add", "free", ANY), ordered=("add",)).measured("add")
    bench.fire("add", 4)
    (slot, first), *_ = bench.pump()
    bench.scheduler.slot_lost(slot, first.job, m.WORKER_LOST, "killed")
    bench.sent.clear()
    bench.scheduler.slot_gone(slot, "restarted too often")
    bench.finish()
    assert bench.outcomes() == [(2, m.WORKER_LOST), (3, m.OK), (4, m.OK), (5, m.OK)]


@pytest.mark.parametrize("ordered", [(), ("add",)], ids=["concurrent", "ordered"])
def test_max_retries_counts_the_losses_that_an_event_survives(ordered: tuple[str, ...]) -> None:
    bench = Bench(("add", "a", 0), max_retries=2, ordered=ordered)
    bench.fire("add")
    for retry in (1, 2, 3):
        bench.lose_next()
        if retry < 3:
            assert bench.outcomes() == []
            assert bench.pump() == [], "it must wait until it is given back"
            assert not bench.scheduler.idle
            assert bench.retry() == [retry]
    assert bench.outcomes() == [(1, m.QUARANTINED)]
    assert bench.pump() == []
    assert bench.scheduler.idle


def test_an_event_that_has_no_retries_is_lost_at_once() -> None:
    bench = Bench(("add", "a", 0))
    bench.fire("add")
    bench.lose_next()
    assert bench.retry() == []
    assert bench.outcomes() == [(1, m.WORKER_LOST)]


def test_an_ordered_event_that_waits_for_its_retry_holds_up_all_later_ones() -> None:
    bench = Bench(("add", "free", ANY), ("own", "a", 1), ordered=("add",), max_retries=1).measured("add", "own")
    bench.fire("add", 3)
    bench.fire("own")
    bench.lose_next()
    bench.fire("add", 2)
    assert bench.pump() == []
    bench.retry()
    assert [job.hook for _, job in bench.pump()][:3] == ["add"] * 3
    bench.finish()
    assert bench.outcomes() == [(token, m.OK) for token in range(3, 9)]


def test_only_what_must_not_overtake_waits_behind_a_retry() -> None:
    functions = [("x", "a", 0), ("y", "b", 0), ("both", "a", 0), ("both", "b", 0), ("free", "f", ANY)]
    bench = Bench(*functions, max_retries=1, workers=1).measured("x", "y", "both", "free")
    bench.fire("x")
    bench.lose_next()
    for hook in ("y", "x", "both", "y", "free"):
        bench.fire(hook)
    assert [job.hook for _, job in bench.pump()] == ["y", "free"]
    bench.finish()
    bench.fire("y")
    assert bench.pump() == []
    bench.retry()
    assert [job.hook for _, job in bench.pump()] == ["x", "x", "both", "y", "y"]
    bench.finish()
    assert bench.scheduler.idle


def test_what_was_sent_keeps_its_place_before_what_waits_behind_a_retry() -> None:
    functions = [("x", "a", 0), ("y", "b", 0), ("both", "a", 0), ("both", "b", 0)]
    bench = Bench(*functions, max_retries=1, workers=1).measured("x", "y", "both")
    bench.fire("x")
    bench.lose_next()
    for hook in ("y", "both"):
        bench.fire(hook)
    ((slot, _),) = bench.pump()
    bench.scheduler.slot_lost(slot, 0, m.WORKER_LOST, "killed")
    bench.sent.clear()
    bench.scheduler.slot_up(slot)
    bench.retry()
    assert [job.hook for _, job in bench.pump()] == ["y", "x", "both"]


def test_a_retry_ends_with_its_slot() -> None:
    bench = Bench(("add", "a", 0), ("free", "f", ANY), max_retries=1)
    for hook in ("add", "free"):
        bench.fire(hook)
        bench.lose_next()
    for slot in bench.slots[:2]:
        bench.scheduler.slot_lost(slot, 0, m.WORKER_LOST, "killed")
        bench.scheduler.slot_gone(slot, "restarted too often")
    assert bench.outcomes() == [(1, m.NOT_STARTED), (2, m.NOT_STARTED)]
    assert bench.retry() == [1, 1]
    assert bench.pump() == []
    assert bench.scheduler.idle


def test_configure_waits_behind_a_retry_of_its_background_instance() -> None:
    copies = {"a": (ARCHIVE,), "b": (ARCHIVE,)}
    bench = Bench(("add", "a", ARCHIVE), ("other", "b", ARCHIVE), max_retries=1, copies=copies)
    bench.fire("add")
    bench.lose_next()
    bench.scheduler.accept_configure(m.Configure(7, "b", NOTHING))
    ((slot, job),) = bench.pump()
    assert job.hook == "b"
    bench.scheduler.done(slot, job.job, (((NOTHING, NOTHING, None, QUICK),),))
    bench.scheduler.accept_configure(m.Configure(8, "a", NOTHING))
    assert bench.pump() == []
    bench.retry()
    assert [job.hook for _, job in bench.pump()] == ["add"]


def test_configure_is_not_sent_again_to_who_replays_it() -> None:
    bench = Bench(("add", "a", 0), copies={"a": (0, 1)})
    bench.scheduler.accept_configure(m.Configure(7, "a", NOTHING))
    jobs = bench.pump()
    assert [(slot.number, job.kind) for slot, job in jobs] == [(0, m.CALL_CONFIGURE), (1, m.CALL_CONFIGURE)]
    slot, job = jobs[0]
    bench.scheduler.done(slot, job.job, (((NOTHING, NOTHING, None, QUICK),),))
    bench.scheduler.slot_lost(jobs[1][0], 0, m.WORKER_LOST, "killed")
    bench.scheduler.slot_up(jobs[1][0])
    assert bench.outcomes() == [(7, m.OK)]
    assert bench.pump() == []


def test_a_failed_configure_fails_once() -> None:
    bench = Bench(("add", "a", 0), copies={"a": (0, 1)})
    bench.scheduler.accept_configure(m.Configure(7, "a", NOTHING))
    failure = ("a.configure", "configure", "ValueError", "no", "", b"")
    for slot, job in bench.pump():
        bench.scheduler.done(slot, job.job, (((NOTHING, NOTHING, failure, QUICK),),))
    (outcome,) = bench.scheduler.messages
    assert (outcome.status, outcome.failures) == (m.FAILED, (failure,))


def test_a_configure_call_that_ends_its_process_is_replayed_in_the_next() -> None:
    bench = Bench(("add", "a", 0), copies={"a": (0,)})
    bench.scheduler.accept_configure(m.Configure(7, "a", b"call"))
    ((slot, job),) = bench.pump()
    bench.scheduler.slot_lost(slot, job.job, m.WORKER_LOST, "killed")
    bench.scheduler.slot_up(slot)
    assert bench.scheduler.configured == [("a", b"call")]
    assert bench.outcomes() == [(7, m.OK)]
    assert bench.pump() == []
    assert bench.scheduler.idle


def test_a_configure_call_ends_whose_slot_is_given_up() -> None:
    bench = Bench(("add", "a", 0), copies={"a": (0, 1)})
    bench.slots[0].up = False
    bench.scheduler.accept_configure(m.Configure(7, "a", NOTHING))
    ((slot, job),) = bench.pump()
    assert slot.number == 1
    bench.scheduler.slot_gone(bench.slots[0], "it cannot be started")
    assert bench.outcomes() == []
    bench.scheduler.done(slot, job.job, (((NOTHING, NOTHING, None, QUICK),),))
    assert bench.outcomes() == [(7, m.OK)]
    assert bench.scheduler.idle


def test_what_a_dead_worker_had_done_is_not_done_again() -> None:
    bench = Bench(("add", "a", 0))
    bench.fire("add")
    ((slot, job),) = bench.pump()
    bench.scheduler.done(slot, job.job, (((NOTHING, NOTHING, None, QUICK),),))
    bench.scheduler.slot_lost(slot, job.job, m.WORKER_LOST, "killed")
    bench.scheduler.done(slot, job.job, (((NOTHING, NOTHING, None, QUICK),),))
    assert bench.outcomes() == [(1, m.OK)]
    assert bench.pump() == []


def test_time_limits_end_their_event_by_name() -> None:
    bench = Bench(("add", "a", 0))
    bench.fire("add")
    ((slot, job),) = bench.pump()
    bench.scheduler.slot_lost(slot, job.job, m.TIME_LIMIT, "took too long")
    assert bench.outcomes() == [(1, m.TIME_LIMIT)]


def test_thousands_of_turns_may_fail_at_once() -> None:
    bench = Bench(("add", "a", 0), ("add", "b", 1), ("quick", "free", ANY), workers=3)
    callback = Function("first", "first", "", ANY, True)
    bench.registry.bind_callback("add", "pre", "first", callback)
    bench.fire("add", 3000)
    slowest, *_ = bench.pump()
    bench.sent.remove(slowest)
    bench.finish()  # all but the first event, whose turn the others await
    assert bench.outcomes() == []
    slot = bench.slots[0]
    assert slowest[0] is slot
    bench.scheduler.slot_lost(slot, slowest[1].job, m.WORKER_LOST, "killed")
    bench.scheduler.slot_gone(slot, "restarted too often")
    bench.finish()
    assert sorted(bench.outcomes()) == [(1, m.WORKER_LOST), *((token, m.NOT_STARTED) for token in range(2, 3001))]
    assert bench.scheduler.idle


def test_no_work_at_all_is_left_for_any_worker() -> None:
    bench = Bench(("add", "free", ANY), workers=1)
    bench.fire("add", 3)
    ((slot, job),) = bench.pump()
    bench.scheduler.slot_lost(slot, job.job, m.WORKER_LOST, "killed")
    bench.scheduler.slot_gone(slot, "restarted too often")
    bench.fire("add")
    bench.sent.clear()
    assert bench.pump() == []
    assert sorted(bench.outcomes()) == [(1, m.WORKER_LOST), *((token, m.NOT_STARTED) for token in (2, 3, 4))]


# -- nested events ---------------------------------------------------------------------------------------


def test_only_nested_events_count_against_the_nested_queue() -> None:
    bench = Bench(("add", "a", 0), queue_size=2)
    for _ in range(5):
        bench.scheduler.accept(m.Event(0, "add", dump_arguments({})))
    bench.finish()
    for _ in range(4):
        bench.scheduler.accept_nested(m.Nested("add", dump_arguments({}), 1))
    refused = [message.failures[0][2] for message in bench.scheduler.messages]
    assert refused == ["QueueFull"] * 2
    bench.finish()
    counters = bench.scheduler.counters
    assert (counters.accepted, counters.succeeded, counters.lost) == (9, 7, 2)


def test_nesting_has_a_limit() -> None:
    bench = Bench(("add", "a", 0), max_nesting=3)
    for depth in (3, 4):
        bench.scheduler.accept_nested(m.Nested("add", dump_arguments({}), depth))
    (refusal,) = bench.scheduler.messages
    assert refusal.failures[0][2] == "NestingLimitExceeded"
    assert [job.depth for _, job in bench.pump()] == [3]


# -- writes ----------------------------------------------------------------------------------------------


def test_a_write_waits_for_the_events_before_it_and_holds_up_those_after() -> None:
    bench = Bench(("add", "free", ANY))
    bench.fire("add")
    bench.scheduler.accept_write(m.Write(100, dump_updates({"x": 1}), False))
    bench.fire("add")
    assert [job.delta for _, job in bench.pump()] == [None]
    assert bench.outcomes() == []
    slot, job = bench.sent.pop()
    bench.scheduler.done(slot, job.job, (((NOTHING, NOTHING, None, QUICK),),))
    assert [job.delta for _, job in bench.pump()] == [(False, (((dump_updates({"x": 1}),),),))]
    assert bench.outcomes() == [(1, m.OK), (100, m.OK)]


def test_a_run_ends_where_background_updates_wait() -> None:
    bench = Bench(("bg", "keeper", ARCHIVE), ("add", "free", ANY), ordered=("add",)).measured("add", "bg")
    bench.fire("bg")
    ((archive, job),) = bench.pump()
    bench.sent.clear()
    bench.fire("add", 2)
    assert len(bench.pump()) == 2
    bench.scheduler.done(archive, job.job, (((NOTHING, dump_updates({"x": "bg"}), None, QUICK),),))
    bench.fire("add")
    assert bench.pump() == []
    bench.finish()
    assert bench.scheduler.idle
    assert bench.scheduler.log.namespace.load("x") == "bg"


def test_background_updates_wait_for_the_end_of_an_ordered_event() -> None:
    bench = Bench(("bg", "keeper", ARCHIVE), ("add", "free", ANY), ordered=("add",))
    bench.fire("bg")
    ((archive, job),) = bench.pump()
    bench.fire("add")
    ((slot, ordered_job),) = bench.pump()
    bench.scheduler.done(archive, job.job, (((NOTHING, dump_updates({"x": "bg"}), None, QUICK),),))
    assert bench.scheduler.log.version == 0
    bench.scheduler.done(slot, ordered_job.job, (((NOTHING, dump_updates({"x": "add"}), None, QUICK),),))
    assert bench.scheduler.log.namespace.load("x") == "bg"
    assert bench.scheduler.log.version == 2


# -- the durable archive ---------------------------------------------------------------------------------


def durable(*functions: tuple[str, str, int], **options: Any) -> Bench:
    return Bench(*functions, durable=True, **options)


def test_an_event_waits_until_the_spool_keeps_what_it_hands_over() -> None:
    bench = durable(("work", "a", 0), ("work", "later", ARCHIVE))
    bench.fire("work")
    assert bench.pump() == []
    (handover,) = bench.scheduler.handed
    assert [(job.hook, job.label) for job in handover.jobs] == [("work", "later")]
    bench.scheduler.handed.clear()
    bench.scheduler.kept(handover, [17])
    assert [job.kept for _, job in bench.pump()] == [None, (17, 0)]
    bench.finish()
    assert bench.outcomes() == [(1, m.OK)]
    assert bench.scheduler.changes == [Finished(17)]


def test_an_event_whose_jobs_cannot_be_kept_ends_and_runs_nothing() -> None:
    bench = durable(("work", "a", 0), ("work", "later", ARCHIVE))
    bench.fire("work")
    bench.pump()
    bench.scheduler.not_kept(bench.scheduler.handed.pop(), "the disk is full")
    assert bench.pump() == []
    (outcome,) = bench.scheduler.messages
    assert (outcome.status, outcome.detail) == (m.NOT_KEPT, "the disk is full")
    assert bench.scheduler.idle


def kept_job(attempts: int = 0, function: str = "later.work", payload: bytes | None = None) -> KeptJob:
    dumped = Payload(dump_arguments({"n": 5}), (), (), {}).dump() if payload is None else payload
    return KeptJob(3, "work", function, "later.work", 0, attempts, dumped)


def test_a_kept_job_is_resumed_as_the_attempt_that_it_is() -> None:
    bench = durable(("work", "later", ARCHIVE), max_retries=2)
    bench.scheduler.resume(kept_job(attempts=2))
    ((slot, job),) = bench.pump()
    assert (slot.number, job.kept, job.stages) == (ARCHIVE, (3, 2), (("later.work",),))
    bench.scheduler.slot_lost(slot, job.job, m.WORKER_LOST, "killed")
    (died,) = bench.scheduler.changes
    assert died == Died(3, 3, "killed; quarantined after 3 attempts (max_retries)", "")
    assert bench.scheduler.idle


@pytest.mark.parametrize(
    ("job", "reason"),
    [
        (kept_job(attempts=1), "it was running when its process was killed (attempts: 1; max_retries is 0)"),
        (kept_job(function="other.work"), "later.work is not there to be run in the background any more"),
        (kept_job(payload=b"damaged"), "its arguments are damaged in the spool"),
    ],
)
def test_a_kept_job_that_cannot_be_run_is_given_up_with_the_reason(job: KeptJob, reason: str) -> None:
    bench = durable(("work", "later", ARCHIVE))
    bench.scheduler.resume(job)
    assert bench.pump() == []
    assert bench.scheduler.changes == [Died(3, job.attempts, reason, "")]
    (message,) = bench.scheduler.messages
    assert reason in str(message)


def test_an_archive_that_is_held_gets_nothing_until_it_is_released() -> None:
    bench = durable(("work", "later", ARCHIVE))
    bench.scheduler.hold_archive(True)
    bench.scheduler.resume(kept_job())
    assert bench.pump() == []
    bench.scheduler.hold_archive(False)
    assert len(bench.pump()) == 1


# -- swaps -----------------------------------------------------------------------------------------------

NEW = (10, 11)
NEW_ARCHIVE = ARCHIVE - 1
DONE = "swapped"


class Coming:
    """A generation staged beside that of a bench: a stateful ``a`` in slot 10, ``free`` anywhere, a ``keeper``."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.registry = Registry({"ordered": False})
        self.slots = [Slot(number, shared=False) for number in (*NEW, NEW_ARCHIVE)]
        homes = {"a": NEW[0], "free": ANY, "keeper": NEW_ARCHIVE}
        for ident, hook in (("a", "add"), ("free", "any"), ("free", "ordered"), ("keeper", "bg")):
            actor = "" if ident == "free" else ident
            function = Function(f"{ident}.{hook}", f"new {ident}", ident, homes[ident], True, ("x",), actor)
            self.registry.bind_instance(homes, ident, {hook: function})
        for slot, idents in zip(self.slots, (["a", "free"], ["free"], ["keeper"]), strict=True):
            bench.scheduler.stage(slot, idents)
            bench.scheduler.slot_up(slot)

    def take_over(self) -> None:
        copies = {"a": NEW[:1], "free": NEW, "keeper": (NEW_ARCHIVE,)}
        swap = Swap(self.registry, tuple(self.slots), frozenset(NEW), copies, True, False, 1000, DONE)
        self.bench.scheduler.accept_swap(swap)


def finish_one(bench: Bench) -> None:
    slot, job = bench.sent.pop(0)
    bench.scheduler.done(slot, job.job, tuple(tuple((NOTHING, NOTHING, None, QUICK) for _ in s) for s in job.stages))


def places(jobs: list[tuple[Slot, m.Job]]) -> list[int]:
    return [slot.number for slot, _ in jobs]


def test_a_swap_waits_for_what_was_accepted_before_and_what_comes_after_waits_for_it() -> None:
    bench = Bench(("add", "a", 0), ("any", "free", ANY)).measured("add", "any")
    coming = Coming(bench)
    bench.fire("add")
    assert places(bench.pump()) == [0]
    bench.fire("any")
    coming.take_over()
    bench.fire("any", 2)
    bench.fire("add")
    jobs = bench.pump()
    assert len(jobs) == 1
    assert places(jobs)[0] < NEW[0]
    finish_one(bench)
    assert bench.pump() == []
    assert bench.scheduler.messages == [m.Outcome(3, m.OK, (), (), 0, "", "add")]
    finish_one(bench)
    assert set(places(bench.pump())) <= set(NEW)
    assert len(bench.sent) == 2, "one to each: how long the new functions take is not known"
    assert bench.scheduler.messages[-1] == DONE
    assert [slot.number for slot in bench.scheduler.table.take_drained()] == [0, 1, 2, ARCHIVE]
    bench.finish()
    assert bench.scheduler.idle
    assert set(bench.scheduler.slots) == {*NEW, NEW_ARCHIVE}


def test_a_swap_of_an_idle_engine_happens_at_once() -> None:
    bench = Bench(("add", "a", 0))
    Coming(bench).take_over()
    bench.pump()
    assert bench.scheduler.messages == [DONE]
    assert bench.scheduler.idle


def test_a_run_of_ordered_events_does_not_cross_a_swap() -> None:
    bench = Bench(("ordered", "free", ANY), ordered=("ordered",)).measured("ordered")
    coming = Coming(bench)
    bench.fire("ordered", 3)
    coming.take_over()
    bench.fire("ordered", 3)
    assert len(bench.pump()) == 3
    for _ in range(2):
        finish_one(bench)
        assert bench.pump() == []
    finish_one(bench)
    jobs = bench.pump()
    assert set(places(jobs)) <= set(NEW)
    assert jobs[0][1].commit


def test_the_new_archive_waits_for_the_last_handler_of_the_old_one_and_nobody_waits_for_either() -> None:
    bench = Bench(("bg", "keeper", ARCHIVE), ("any", "free", ANY)).measured("bg", "any")
    coming = Coming(bench)
    bench.fire("bg")
    ((archive, _),) = bench.pump()
    bench.scheduler.table.estimates.record("keeper.bg", 1.0)
    bench.fire("bg")
    coming.take_over()
    bench.fire("bg")
    bench.fire("any")
    (running,) = bench.sent
    jobs = bench.pump()
    assert DONE in bench.scheduler.messages
    assert set(places(jobs)) <= {*NEW, ARCHIVE}
    assert [slot.number for slot in bench.scheduler.table.take_drained()] == [0, 1, 2]
    bench.sent.remove(running)
    bench.sent.insert(0, running)
    bench.scheduler.slot_lost(archive, running[1].job, m.WORKER_LOST, "killed")
    bench.scheduler.slot_up(archive)
    bench.sent = [entry for entry in bench.sent if entry[0] is not archive]
    assert places(bench.pump()) == [ARCHIVE], "the old archive's next process goes on where the other died"
    assert bench.scheduler.table.take_drained() == []
    bench.sent.sort(key=lambda entry: entry[0] is not archive)
    finish_one(bench)
    assert places(bench.pump()) == [NEW_ARCHIVE]
    assert [slot.number for slot in bench.scheduler.table.take_drained()] == [ARCHIVE]
    bench.finish()
    assert bench.scheduler.idle


def test_a_staged_slot_gets_the_configure_calls_of_its_instances_and_nothing_else() -> None:
    bench = Bench(("add", "a", 0), ("any", "free", ANY)).measured("add", "any")
    bench.scheduler.copies.update({"a": (0,), "free": (0, 1)})
    Coming(bench)
    bench.fire("any", 50)
    assert not set(places(bench.pump())) & set(NEW)
    bench.finish()
    for token, ident in ((100, "a"), (101, "free"), (102, "nobody")):
        bench.scheduler.accept_configure(m.Configure(token, ident, b""))
        numbers = places(bench.pump())
        assert sorted(numbers) == {"a": [0, 10], "free": [0, 1, 10, 11], "nobody": []}[ident]
        bench.finish()
    assert bench.outcomes()[-3:] == [(100, m.OK), (101, m.OK), (102, m.OK)]


def test_a_configure_call_ends_whose_staged_slot_is_refused() -> None:
    bench = Bench(("add", "a", 0))
    bench.scheduler.copies["a"] = (0,)
    coming = Coming(bench)
    coming.slots[1].up = False
    bench.scheduler.accept_configure(m.Configure(100, "a", b""))
    bench.scheduler.accept_configure(m.Configure(101, "free", b""))
    assert places(bench.pump()) == [0, 10]
    finish_one(bench)
    assert bench.outcomes() == []
    bench.scheduler.unstage(coming.slots)
    assert bench.outcomes() == [(100, m.OK)]
    bench.pump()
    assert bench.outcomes() == [(101, m.OK)]
    assert bench.scheduler.idle
    assert set(bench.scheduler.slots) == {0, 1, 2, ARCHIVE}


def test_options_hold_for_what_is_accepted_after_the_swap() -> None:
    bench = Bench(("add", "a", 0), ("any", "free", ANY), squash=True)
    coming = Coming(bench)
    bench.fire("add")
    coming.take_over()
    bench.fire("any")
    assert [job.squash for _, job in bench.pump()] == [True]
    finish_one(bench)
    assert [job.squash for _, job in bench.pump()] == [False]


# -- the parts -------------------------------------------------------------------------------------------


def test_a_slot_counts_what_it_was_sent() -> None:
    slot = Slot(0, up=True)
    plan = Registry({}).plan("hook")
    measured, unknown = (
        Task(Activity(Kind.EVENT, 1, plan, b""), (), 0, estimate=estimate) for estimate in (0.5, None)
    )
    slot.add(1, measured)
    slot.add(2, unknown)
    assert (slot.load, slot.unmeasured, slot.has_room(0.0, 1.0, 10)) == (0.5, 1, False)
    assert slot.remove(2) is unknown
    assert (slot.load, slot.unmeasured, slot.has_room(0.0, 1.0, 10)) == (0.5, 0, True)
    slot.add(3, unknown)
    assert slot.remove(1) is measured
    assert (slot.load, slot.unmeasured) == (0.0, 1)
    assert slot.remove(1) is None
    assert slot.remove(3) is unknown
    assert (slot.load, slot.unmeasured) == (0.0, 0)


def test_news_are_told_while_they_are_few_and_known() -> None:
    log = CommitLog()
    entries = [((dump_updates({"n": number}),),) for number in range(NEWS_KEPT + 1)]
    for entry in entries:
        log.append(entry)
    assert log.news(0) is None
    assert log.news(1) == tuple(entries[1:])
    assert log.news(log.version) == ()
    assert CommitLog("extend", log.version, {}).news(log.version) is None


def test_a_snapshot_keeps_its_version_readable_while_it_lives() -> None:
    snapshots = Snapshots()
    assert snapshots.floor() == 0
    first, second = snapshots.take(3, 5), snapshots.take(6, 7)
    assert (snapshots.floor(), snapshots.latest) == (3, 7)
    del second
    assert snapshots.floor() == 3
    del first
    assert snapshots.floor() == 7
