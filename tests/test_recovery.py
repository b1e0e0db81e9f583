"""What is decided when the dispatcher has died, and the memory that tells how far it had come."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator

import psutil
import pytest

from rigger_mp.engine import recovery as engine_recovery
from rigger_mp.engine.blueprint import Limits
from rigger_mp.engine.manager_client import GlobalsReader
from rigger_mp.engine.marks import ROWS, Counts, Marks
from rigger_mp.engine.recovery import Recovery
from rigger_mp.errors import EngineLost


@pytest.fixture
def marks() -> Iterator[Marks]:
    made = Marks(4)
    yield made
    made.close()


def runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_deaths_count_within_the_period_alone(marks: Marks, monkeypatch: pytest.MonkeyPatch) -> None:
    recovery = Recovery(Limits(max_restarts=2, restart_period=60.0), marks)
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    for _ in range(5):
        assert recovery.refuse(finished=False, was_ready=True) == ""
        now += 31.0
    assert recovery.refuse(finished=False, was_ready=True) == ""
    assert "3 times within 60 s (max_restarts)" in recovery.refuse(finished=False, was_ready=True)


def test_a_dispatcher_that_had_finished_or_was_never_ready_gets_no_successor(marks: Marks) -> None:
    recovery = Recovery(Limits(), marks)
    assert recovery.refuse(finished=True, was_ready=True) == "the engine was stopped"
    assert "died" in recovery.refuse(finished=False, was_ready=False)


def test_globals_that_nobody_has_are_lost_and_said_once(marks: Marks) -> None:
    recovery = Recovery(Limits(), marks)
    reader = GlobalsReader("extend", lambda gone: False)
    assert recovery.take_globals(reader, 0) == ((0, {}), "")
    (version, chains), problem = recovery.take_globals(reader, 7)
    assert (version, chains) == (7, {})
    assert "at once" in problem

    class Gone(GlobalsReader):
        def settle(self) -> tuple[int, dict[str, tuple[()]]]:  # type: ignore[override]
            raise EngineLost("the Manager process is gone")

    _, problem = recovery.take_globals(Gone("extend", lambda gone: False), 7)
    assert problem == "the global namespace is lost: the Manager process is gone"
    assert [str(error) for error in recovery.losses(problem)] == [problem]
    assert recovery.losses("") == []


@pytest.mark.parametrize("sentinels", [True, False])
def test_the_dispatchers_processes_are_killed_and_what_they_had_left_is_counted(
    marks: Marks, monkeypatch: pytest.MonkeyPatch, sentinels: bool
) -> None:
    if not sentinels:
        monkeypatch.setattr(engine_recovery, "open_sentinel", lambda pid: None)
    # Nobody's children, as a dead dispatcher's are: whoever adopted them reaps them.
    spawn = "import subprocess; print(subprocess.Popen(['sleep', '600'], start_new_session=True, stdout=-3).pid)"
    pids = [int(subprocess.check_output([sys.executable, "-c", spawn])) for _ in range(2)]
    for row, pid in enumerate(pids):
        marks.add_process(row, pid)
    marks.add_process(2, (1 << 22) + 1)
    for _ in range(3):
        marks.fire(0)
    marks.note(Counts(nested=1, background=1, received=2))
    recovery = Recovery(Limits(), marks)
    recovery.end_workers()
    assert not any(map(runs, pids))
    (loss,) = recovery.losses("")
    assert str(loss).endswith("before 2 nested events and 1 background handler had ended")
    assert marks.pids() == []


@pytest.mark.parametrize("anonymous", [True, False])
def test_marks_are_shared_by_whoever_has_their_file(monkeypatch: pytest.MonkeyPatch, anonymous: bool) -> None:
    if not anonymous:
        monkeypatch.delattr(os, "memfd_create")
    ours = Marks(4)
    theirs = Marks(4, os.dup(ours.fd))
    theirs.start(9)
    assert [ours.has_started(token) for token in (5, 9, 13, 10)] == [True, True, False, False]
    ours.close()
    theirs.close()


def test_processes_beyond_the_rows_are_not_counted(marks: Marks) -> None:
    marks.add_process(ROWS, os.getpid())
    marks.fire(ROWS)
    marks.remove_process(ROWS, 5)
    assert marks.pids() == []
    assert marks.take_unfinished() == (0, 0)


def test_a_child_that_a_hook_forked_touches_the_memory_no_more(marks: Marks) -> None:
    theirs = Marks(4, os.dup(marks.fd))
    theirs.leave()
    theirs.start(9)
    theirs.fire(0)
    assert not marks.has_started(9)
    assert marks.take_unfinished() == (0, 0)
    theirs.close()
