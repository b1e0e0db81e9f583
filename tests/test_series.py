"""Events that nobody waits for travel and run together, and each has the outcome that it would have alone."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter, deque
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from quiet import QuietRigger
from test_schedule_cases import Bench
from waiting import wait_for

from rigger_mp import HookError, RiggerBasePlugin
from rigger_mp.encoding import dump_arguments, dump_updates
from rigger_mp.engine import messages as m
from rigger_mp.engine import series
from rigger_mp.engine.placement import ANY
from rigger_mp.engine.registry import Function, Plan
from rigger_mp.engine.series import divide, gather, join_done, length_of_series
from rigger_mp.errors import WorkerLost

# -- how they travel ------------------------------------------------------------------------------------------


def event(token: int, hook: str, since: int = m.NOBODY_WAITS, segments: Any = ()) -> m.Event:
    return m.Event(token, hook, b"arguments %d" % token, segments, since)


def test_what_nobody_waits_for_is_gathered_by_hook() -> None:
    others = [event(4, "a", since=-1), m.Drain(5), event(6, "a", segments=((1, b""),))]
    messages = [event(1, "a"), event(2, "a"), event(3, "b"), others[0], event(7, "a"), *others[1:], event(8, "a")]
    first, second, waited, third, *rest, last = gather(messages)
    assert (first.hook, first.events) == ("a", [(1, b"arguments 1"), (2, b"arguments 2")])
    assert (second.hook, [token for token, _ in second.events]) == ("b", [3])
    assert [waited, *rest] == others
    assert [token for token, _ in third.events] == [7]
    assert [token for token, _ in last.events] == [8]


@given(st.lists(st.tuples(st.sampled_from("ab"), st.booleans())))
def test_gathering_keeps_every_event_in_its_place(drawn: list[tuple[str, bool]]) -> None:
    messages = [event(n, hook, m.NOBODY_WAITS if silent else -1) for n, (hook, silent) in enumerate(drawn)]
    unfolded = []
    for message in gather(messages):
        if isinstance(message, m.Series):
            unfolded += [m.Event(*fields, (), m.NOBODY_WAITS) for fields in _with_hook(message)]
        else:
            unfolded.append(message)
    assert unfolded == messages


def _with_hook(message: m.Series) -> list[tuple[int, str, bytes]]:
    return [(token, message.hook, arguments) for token, arguments in message.events]


def test_ends_of_one_series_are_joined_where_they_follow_each_other() -> None:
    done = [m.DoneOfSeries(job, place, (f"{job}-{place}",)) for job, place in ((1, 3), (1, 4), (9, 0), (9, 2), (9, 2))]
    log = m.Log("in between")
    joined = [message for message, _ in join_done((message, 7) for message in [*done[:2], log, *done[2:]])]
    assert joined == [
        m.DoneOfSeries(1, 3, ["1-3", "1-4"]), log, m.DoneOfSeries(9, 0, ["9-0"]),
        m.DoneOfSeries(9, 2, ["9-2"]), m.DoneOfSeries(9, 2, ["9-2"]),
    ]  # fmt: skip


def function(name: str, home: int = 0, retries: int = 0) -> Function:
    return Function(name, name, name, home, False, (), name, retries)


ORDERED = Plan("event", hooks=(function("a"),), concurrent=False)


@pytest.mark.parametrize(
    ("plan", "threaded", "estimate"),
    [
        (ORDERED, True, None),
        (ORDERED, True, series.WORK),
        (Plan("event", hooks=(function("a"),), concurrent=True), True, 0.00001),
        (Plan("event", concurrent=False), True, 0.0),
        (Plan("event", hooks=(function("a"), function("b", home=1)), concurrent=False), True, 0.00001),
        (Plan("event", hooks=(function("a", ANY), function("b", ANY)), concurrent=False), True, 0.00001),
        (Plan("event", hooks=(function("a"),), background=(function("b", -2),), concurrent=False), True, 0.00001),
        (Plan("event", hooks=(function("a", retries=1),), concurrent=False), True, 0.00001),
    ],
    ids=["unmeasured", "slow", "concurrent", "empty", "two homes", "may fan out", "background", "retried"],
)
def test_what_runs_alone(plan: Plan, threaded: bool, estimate: float | None) -> None:
    assert length_of_series(plan, threaded, estimate) == 1


def test_a_series_is_as_long_as_its_work_allows() -> None:
    assert length_of_series(ORDERED, True, series.WORK / 10) == 10
    assert length_of_series(ORDERED, True, 1e-9) == series.LONGEST
    assert length_of_series(ORDERED, True, 0.0) == series.LONGEST
    two = Plan("event", hooks=(function("a", ANY), function("b", ANY)), concurrent=False)
    assert length_of_series(two, False, series.WORK / 10) == 10
    assert [part.events for part in divide([(1, b""), (2, b""), (3, b"")], 2)] == [
        deque([(1, b""), (2, b"")]), deque([(3, b"")])
    ]  # fmt: skip


# -- what the scheduler makes of them -------------------------------------------------------------------------


class Course:
    """A scheduler that was given events 1 to 10 as one series, and what it says of them."""

    def __init__(self) -> None:
        self.bench = Bench(("write", "line", 0), ordered=("write",)).measured("write")
        self.scheduler, self.slot = self.bench.scheduler, self.bench.slots[0]
        self.scheduler.accept_series(m.Series("write", [(token, dump_arguments({})) for token in range(1, 11)]))
        self.job = self.send()

    def send(self) -> m.Job:
        ((slot, job),) = self.bench.pump()
        assert slot is self.slot
        return job

    def end(self, first: int, last: int, failure: Any = None) -> None:
        result = (b"", b"" if failure else dump_updates({"x": 1}), failure, 0.00001)
        self.scheduler.done_of_series(self.slot, self.job.job, first, [((result,),)] * (last - first + 1))

    def lose(self, started: int) -> None:
        self.scheduler.slot_lost(self.slot, started, m.WORKER_LOST, "killed")
        self.scheduler.slot_up(self.slot)

    def take_said(self) -> tuple[list[int], list[tuple[int, int]]]:
        """Return which events ended well, and the others with their statuses."""
        completed = list(self.scheduler.completed)
        self.scheduler.completed.clear()
        return completed, self.bench.outcomes()


def test_a_series_is_one_job_and_its_events_end_by_themselves() -> None:
    course = Course()
    assert [token for token, _ in course.job.series] == list(range(1, 11))
    assert course.scheduler.waiting == 0
    course.end(0, 3)
    assert course.take_said() == ([1, 2, 3, 4], [])
    assert course.scheduler.log.version == 4
    course.end(4, 4, failure=("line.write", "hook", "ValueError", "no", "", b""))
    course.end(5, 9)
    assert course.take_said() == ([6, 7, 8, 9, 10], [(5, m.FAILED)])
    assert course.scheduler.log.version == 9
    assert course.scheduler.idle


def test_what_is_told_twice_counts_once() -> None:
    course = Course()
    course.end(0, 3)
    course.end(0, 3)
    course.end(2, 5)
    assert course.take_said() == ([1, 2, 3, 4, 5, 6], [])
    course.end(6, 9)
    course.end(6, 9)
    assert course.take_said() == ([7, 8, 9, 10], [])
    assert course.scheduler.log.version == 10


def test_only_the_event_that_ran_is_lost_and_those_behind_it_are_sent_again() -> None:
    course = Course()
    course.end(0, 3)
    course.lose(course.job.job + 4)
    assert course.take_said() == ([1, 2, 3, 4], [(5, m.WORKER_LOST)])
    old, course.job = course.job, course.send()
    assert [token for token, _ in course.job.series] == [6, 7, 8, 9, 10]
    assert course.job.job > old.job + 9
    course.scheduler.done_of_series(course.slot, old.job, 4, [((b"", b"", None, 0.1),)])
    assert course.take_said() == ([], []), "of the process that died"
    course.end(0, 4)
    assert course.take_said() == ([6, 7, 8, 9, 10], [])
    assert course.scheduler.idle


@pytest.mark.parametrize("started", [-1, 3])
def test_nobody_is_blamed_for_a_process_that_dies_between_two_events(started: int) -> None:
    course = Course()
    course.end(0, 3)
    course.lose(course.job.job + started if started >= 0 else 0)
    course.job = course.send()
    assert [token for token, _ in course.job.series] == [5, 6, 7, 8, 9, 10]
    course.end(0, 5)
    assert course.take_said() == (list(range(1, 11)), [])


def test_the_last_event_may_be_the_one_that_is_lost() -> None:
    course = Course()
    course.end(0, 8)
    course.lose(course.job.job + 9)
    assert course.bench.pump() == []
    assert course.take_said() == (list(range(1, 10)), [(10, m.WORKER_LOST)])
    assert course.scheduler.idle


def test_all_that_are_left_end_where_no_process_can_be_started() -> None:
    course = Course()
    course.end(0, 3)
    course.scheduler.slot_lost(course.slot, 0, m.WORKER_LOST, "killed")
    course.scheduler.slot_gone(course.slot, "cannot be started")
    assert course.take_said() == ([1, 2, 3, 4], [(token, m.NOT_STARTED) for token in range(5, 11)])
    assert course.scheduler.idle
    assert course.scheduler.counters.lost == 6


# -- what becomes of them -------------------------------------------------------------------------------------


class Line(RiggerBasePlugin):
    """Stateful: its events run one at a time, in the order fired."""

    def plugin_initialize(self) -> None:
        self.calls = 0
        for hook in ("write", "report"):
            self.register_plugin_hook(hook)

    def write(self, path: str, number: int, dies: int = -1, fails: int = -1, waits: int = -1) -> Any:
        self.calls += 1
        while number == waits and not Path(path).with_name("gate").exists():
            time.sleep(0.01)
        with Path(path).open("a") as file:
            file.write(f"{number}\n")
        if number == dies:
            os.kill(os.getpid(), signal.SIGKILL)
        if number == fails:
            raise ValueError(f"number {number}")
        return {"number": number}, {"last": number, "all": [number], "pids": [os.getpid()]}

    def report(self) -> Any:
        return {"calls": self.calls}, None


def rigger(**keys: Any) -> QuietRigger:
    return QuietRigger({"workers": 2, "plugins": {"line": {"plugin": "line"}}, **keys}, plugins={"line": Line})


def fire(engine: QuietRigger, path: Path, total: int, **arguments: int) -> None:
    for number in range(total):
        engine.fire_hook("write", wait=False, path=str(path), number=number, **arguments)


def written(path: Path) -> list[int]:
    return [int(line) for line in path.read_text().split()]


def warm_up(engine: QuietRigger, path: Path) -> None:
    """Have the engine know that its events are quick."""
    for _ in range(20):
        engine.fire_hook("write", path=str(path), number=0)
    path.unlink()
    del engine.global_data["all"]


def test_they_run_in_order_and_each_commits(tmp_path: Path) -> None:
    with rigger() as engine:
        warm_up(engine, tmp_path / "out")
        fire(engine, tmp_path / "out", 1000)
        assert engine.fire_hook("report")["calls"] == 1020
        assert written(tmp_path / "out") == list(range(1000)) == engine.global_data["all"]
        stats = engine.stats()
        assert stats["hooks"]["write"]["events"] == stats["functions"]["line.write"]["calls"] == 1020
        assert stats["events"]["pending"] == 0
        assert sum(row.get("jobs", 0) for row in stats["processes"]) == 1021


@pytest.mark.parametrize("dies", [0, 37, 299])
def test_a_process_that_dies_in_the_middle_loses_one(tmp_path: Path, dies: int) -> None:
    with rigger() as engine:
        warm_up(engine, tmp_path / "out")
        fire(engine, tmp_path / "out", 300, dies=dies)
        engine.drain()
        others = [number for number in range(300) if number != dies]
        assert written(tmp_path / "out") == list(range(300))
        assert engine.global_data["all"] == others
        wait_for(lambda: engine.failures)
        (loss,) = engine.failures
        assert isinstance(loss, WorkerLost)
        assert engine.stats()["events"]["lost"] == 1
        assert engine.fire_hook("report")["calls"] == 299 - dies


def test_one_that_fails_takes_no_other_with_it(tmp_path: Path) -> None:
    with rigger() as engine:
        warm_up(engine, tmp_path / "out")
        fire(engine, tmp_path / "out", 100, fails=50)
        engine.drain()
        assert engine.global_data["all"] == [number for number in range(100) if number != 50]
        wait_for(lambda: engine.failures)
        assert "number 50" in str(engine.failures)
        assert engine.stats()["functions"]["line.write"]["failures"] == 1
        with pytest.raises(HookError, match="number 7"):
            engine.fire_hook("write", path=str(tmp_path / "out"), number=7, fails=7)


def test_with_squashed_exceptions_too(tmp_path: Path) -> None:
    with rigger(squash_exceptions=True) as engine:
        warm_up(engine, tmp_path / "out")
        fire(engine, tmp_path / "out", 100, fails=50)
        engine.drain()
        wait_for(lambda: engine.failures)
        assert [str(error) for error in engine.failures] == ["number 50"]
        assert engine.stats()["events"]["failed"] == 0


@pytest.mark.parametrize("limit", [1, 7, 100])
def test_workers_are_recycled_between_them(tmp_path: Path, limit: int) -> None:
    total = 30 * limit
    with rigger(max_tasks_per_child=limit) as engine:
        warm_up(engine, tmp_path / "out")
        fire(engine, tmp_path / "out", total)
        engine.drain()
        assert written(tmp_path / "out") == list(range(total)) == engine.global_data["all"]
        assert max(Counter(engine.global_data["pids"]).values()) < 2 * limit + (limit == 1)


@pytest.mark.parametrize("waited", [False, True])
def test_what_has_ended_does_not_wait_for_a_long_one_behind_it(tmp_path: Path, waited: bool) -> None:
    out, arguments = tmp_path / "out", {"waits": 10, "fails": 3}
    with rigger() as engine:
        warm_up(engine, out)
        if waited:
            for number in range(20):
                engine.submit("write", path=str(out), number=number, **arguments)
        else:
            fire(engine, out, 20, **arguments)
        ended = [0, 1, 2, 4, 5, 6, 7, 8, 9]
        wait_for(lambda: engine.global_data.get("all") == ended)
        assert engine.stats()["events"]["pending"] == 10
        assert waited or wait_for(lambda: engine.failures) is None
        (tmp_path / "gate").touch()
        engine.drain()
        assert engine.global_data["all"] == ended + list(range(10, 20))
        assert sum(row.get("jobs", 0) for row in engine.stats()["processes"]) == 40
