"""Who is to blame, who is started again, and who is killed: the supervisor over processes that a test plays."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from rigger_mp.engine.activity import Slot
from rigger_mp.engine.blueprint import Limits
from rigger_mp.engine.marks import ROWS, Marks
from rigger_mp.engine.stats import complete_stats
from rigger_mp.engine.supervisor import LIMIT_CHECK, Seat, SeatKind, Supervisor


class Played:
    """A process that does what the test says."""

    def __init__(self, deadline: float = 0.0) -> None:
        self.journal = SimpleNamespace(deadline=deadline)
        self.done: list[str] = []
        self.runs = True

    def halt(self) -> bool:
        self.done.append("halt")
        return self.runs

    def resume(self) -> None:
        self.done.append("resume")

    def kill(self) -> None:
        self.done.append("kill")

    def kill_tree(self) -> None:
        self.done.append("kill_tree")

    def let_end(self) -> None:
        self.done.append("let_end")

    def reap(self) -> None:
        self.done.append("reap")

    pid = 1

    def describe_end(self) -> str:
        return "has ended"


@pytest.fixture
def marks() -> Iterator[Marks]:
    made = Marks(4)
    yield made
    made.close()


@pytest.fixture
def supervisor(marks: Marks) -> Supervisor:
    return Supervisor(marks, lambda seat: None, lambda seat: None)


def seat(supervisor: Supervisor, number: int = 0, deadline: float = 0.0, **limits: Any) -> tuple[Seat, Played]:
    process: Any = Played(deadline)
    made = Seat(Slot(number), f"worker-{number}", SeatKind(b"", Limits(**limits)), process=process)
    supervisor.seats[number] = made
    return made, process


def test_only_who_is_late_while_it_stands_still_is_to_blame(supervisor: Supervisor) -> None:
    past, future = time.monotonic() - 1.0, time.monotonic() + 1000.0
    late, _ = seat(supervisor, 0, past)
    _, in_time = seat(supervisor, 1, future)
    _, unlimited = seat(supervisor, 2)
    _, just_ended = seat(supervisor, 3, past)
    _, gone = seat(supervisor, 4, past)
    gone.runs = False
    halt = just_ended.halt

    def end_before_it_stands_still() -> bool:
        just_ended.journal.deadline = 0.0
        return halt()

    just_ended.halt = end_before_it_stands_still  # type: ignore[method-assign]
    assert supervisor.overdue() == [late]
    assert (in_time.done, unlimited.done, gone.done) == ([], [], ["halt"])
    assert just_ended.done == ["halt", "resume"]


def test_time_limits_are_looked_at_while_something_limited_runs(supervisor: Supervisor) -> None:
    made, _ = seat(supervisor)
    assert supervisor.next_check() is None
    supervisor.time_limited = True
    assert supervisor.next_check() is None
    made.slot.outstanding[1] = None  # type: ignore[assignment]
    assert supervisor.next_check() == LIMIT_CHECK
    made.slot.outstanding.clear()
    supervisor.dismiss(made)
    assert supervisor.next_check() == LIMIT_CHECK


def test_starts_that_fail_count_within_the_period_alone(
    supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, _ = seat(supervisor, max_restarts=1, restart_period=60.0)
    times = itertools.count(1000.0, 61.0)
    monkeypatch.setattr(time, "monotonic", lambda: next(times))
    assert all(supervisor.may_restart(made, ended_while_starting=True) for _ in range(5))
    monkeypatch.setattr(time, "monotonic", lambda: 5000.0)
    assert supervisor.may_restart(made, ended_while_starting=True)
    assert not supervisor.may_restart(made, ended_while_starting=True)
    assert supervisor.may_restart(made, ended_while_starting=False)


def test_who_is_needed_no_more_is_killed_unless_it_ends_in_time(supervisor: Supervisor) -> None:
    slow, slow_process = seat(supervisor, 0)
    quick, quick_process = seat(supervisor, 1)
    for made in (slow, quick):
        supervisor.dismiss(made)
    supervisor.end_dismissed()
    slow.end_by = time.monotonic() - 0.001
    supervisor.end_dismissed()
    assert (slow_process.done, quick_process.done) == (["let_end", "kill_tree"], ["let_end"])
    assert supervisor.bury(slow) == "worker-0 (pid 1) has ended"
    supervisor.end_dismissed()
    supervisor.dismiss(slow)
    assert (list(supervisor.seats), supervisor.dismissed) == ([1], {quick})


def test_processes_beyond_the_rows_of_the_marks_are_not_counted(supervisor: Supervisor, marks: Marks) -> None:
    counted, _ = seat(supervisor, 0)
    beyond, _ = seat(supervisor, 1)
    counted.row, beyond.row = 0, ROWS
    for made in (counted, beyond):
        supervisor.count_nested(made)
        marks.fire(made.row)
        supervisor.bury(made)
        supervisor.send(made, [])
    assert supervisor.nested_received == 1


def test_a_place_without_a_process_has_no_measurements() -> None:
    rows = [{"role": "worker", "name": "worker-0", "pid": 0}, {"role": "worker", "name": "worker-1", "pid": 1 << 23}]
    stats = complete_stats({"processes": rows}, {"dispatcher": 0, "manager": 0}, 0)
    main, *others = stats["processes"]
    assert (main["role"], main["alive"], main["rss_bytes"] > 0) == ("main", True, True)
    assert {(row["alive"], row["rss_bytes"]) for row in others} == {(False, 0)}
