"""The chaos suite's own check: made-up histories, each with one broken promise, are found out."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from chaos.ledger import Event, History, Kill, Outcome, check, read_ledger

OK = Outcome("ok")


def lost(pid: int, name: str = "WorkerLost", hook: str = "plain") -> Outcome:
    return Outcome(name, f"hook '{hook}': worker-0 (pid {pid}) was killed by SIGKILL")


def commit(history: History, function: str, *numbers: str) -> None:
    chaos = history.globals.setdefault("chaos", {})  # type: ignore[attr-defined]
    updates = chaos.setdefault(function, {"keys": {}, "order": []})
    for number in numbers:
        updates["keys"][number] = 1
        updates["order"].append(number)


def fire(history: History, number: str, kind: str, outcome: Outcome | None, *pids: int, via: str = "rigger") -> None:
    """Add an event, its outcome if it has one, and a run in each process."""
    history.events[number] = Event(number, kind, via)
    if outcome is not None:
        history.outcomes[number].append(outcome)
    for pid in pids:
        read_ledger(history, {pid: [f"run {number} {kind}"]})


@pytest.fixture
def history() -> History:
    """A history without a flaw: successes, a kill that cost one event, and one event that ends itself."""
    flawless = History(globals={})
    for number, pid in (("1", 10), ("2", 11)):
        fire(flawless, number, "plain", OK, pid)
        commit(flawless, "plain", number)
    for number in ("3", "4"):
        outcome = Outcome("ok", answers={"total": int(number) - 2})
        fire(flawless, number, "count", outcome, 10)
        commit(flawless, "count", number)
    flawless.globals["total"] = 2  # type: ignore[index]
    fire(flawless, "5", "plain", lost(12), 12)
    flawless.kills.append(Kill(12, "worker", "SIGKILL"))
    fire(flawless, "6", "vanish", Outcome("WorkerLost", "hook 'vanish': worker-0 (pid 13) exited with status 7"), 13)
    fire(flawless, "7", "filed", OK, 10)
    commit(flawless, "filed", "7")
    commit(flawless, "filed_bg", "7")
    commit(flawless, "filed_too", "7")
    read_ledger(flawless, {20: ["run 7 filed_bg", "run 7 filed_too"]})
    fire(flawless, "8", "forgotten", None, 11)
    commit(flawless, "forgotten", "8")
    return flawless


def test_a_flawless_history_passes(history: History) -> None:
    assert check(history) == []


def no_outcome(history: History) -> None:
    del history.outcomes["1"]


def two_outcomes(history: History) -> None:
    history.outcomes["1"].append(OK)


def success_without_a_run(history: History) -> None:
    fire(history, "9", "plain", OK)
    commit(history, "plain", "9")


def run_twice(history: History) -> None:
    read_ledger(history, {14: ["run 1 plain"]})


def lost_and_run_twice(history: History) -> None:
    read_ledger(history, {14: ["run 5 plain"]})


def retried_too_often(history: History) -> None:
    fire(history, "9", "retried", OK, 30, 31, 32, 33)
    commit(history, "retried", "9")


def blamed_without_a_death(history: History) -> None:
    fire(history, "9", "plain", lost(11), 11)


def blamed_for_another_events_crash(history: History) -> None:
    fire(history, "9", "plain", lost(13), 13)


def two_blamed_for_one_kill(history: History) -> None:
    fire(history, "9", "plain", lost(12), 12)


def blamed_on_a_process_that_it_did_not_run_in(history: History) -> None:
    fire(history, "9", "plain", lost(15), 10)
    history.kills.append(Kill(15, "worker", "SIGKILL"))


def late_without_a_limit(history: History) -> None:
    fire(history, "9", "plain", lost(16, "TimeLimitExceeded"), 16)
    history.kills.append(Kill(16, "worker", "SIGKILL"))


def late_in_a_process_that_it_did_not_run_in(history: History) -> None:
    fire(history, "9", "hang", lost(16, "TimeLimitExceeded", "hang"))


def engine_lost_with_its_dispatcher_alive(history: History) -> None:
    fire(history, "9", "plain", Outcome("EngineLost", "hook 'plain': the engine was stopped"))


def failed_without_a_reason(history: History) -> None:
    fire(history, "9", "plain", Outcome("HookError", "hook 'plain': 1 function(s) failed"), 10)


def wrong_answer(history: History) -> None:
    fire(history, "9", "plain", Outcome("ok", answers={"wrong": "answer 4"}), 10)
    commit(history, "plain", "9")


def missing_update(history: History) -> None:
    fire(history, "9", "plain", OK, 10)


def update_of_a_lost_event(history: History) -> None:
    commit(history, "plain", "5")


def update_merged_twice(history: History) -> None:
    history.globals["chaos"]["plain"]["order"].append("1")


def update_of_what_never_ran(history: History) -> None:
    commit(history, "plain", "99")


def counted_twice(history: History) -> None:
    history.outcomes["4"] = [Outcome("ok", answers={"total": 1})]


def total_lost(history: History) -> None:
    history.globals["total"] = 1  # type: ignore[index]


def committed_out_of_order(history: History) -> None:
    history.globals["chaos"]["count"]["order"].reverse()


def run_out_of_order(history: History) -> None:
    fire(history, "9", "keep", OK)
    fire(history, "10", "keep", OK)
    commit(history, "keep", "9", "10")
    read_ledger(history, {17: ["run 10 keep", "run 9 keep"]})


def background_lost_in_silence(history: History) -> None:
    updates = history.globals["chaos"]["filed_too"]
    updates["keys"].clear()
    updates["order"].clear()


def background_reported_and_done(history: History) -> None:
    history.reports.append(lost(12, hook="filed"))


def forgotten_lost_in_silence(history: History) -> None:
    fire(history, "9", "forgotten", None)


def child_lost_in_silence(history: History) -> None:
    fire(history, "9", "family", OK, 10)
    commit(history, "family", "9")
    read_ledger(history, {10: ["fired 9.0"]})


BROKEN = (
    (no_outcome, "event 1 .*0 outcomes"),
    (two_outcomes, "event 1 .*2 outcomes"),
    (success_without_a_run, "event 9 .*never ran"),
    (run_twice, "event 1 .*2 times"),
    (lost_and_run_twice, "event 5 .*2 times"),
    (retried_too_often, "event 9 .*4 times"),
    (blamed_without_a_death, "event 9 .*pid 11"),
    (blamed_for_another_events_crash, "event 9 .*pid 13"),
    (two_blamed_for_one_kill, "event 9 .*pid 12"),
    (blamed_on_a_process_that_it_did_not_run_in, r"event 9 .*\[10\].*pid 15"),
    (late_without_a_limit, "event 9 .*no time limit"),
    (late_in_a_process_that_it_did_not_run_in, "blamed for a death of pid 16"),
    (engine_lost_with_its_dispatcher_alive, "event 9 .*EngineLost"),
    (failed_without_a_reason, "event 9 .*HookError"),
    (wrong_answer, "event 9 .*answer 4"),
    (missing_update, "event 9 .*missing from"),
    (update_of_a_lost_event, "event 5 .*in the globals"),
    (update_merged_twice, "event 1: plain.*2 times"),
    (update_of_what_never_ran, "event 99: .*never ran"),
    (counted_twice, "counted to 1"),
    (total_lost, "total is 1"),
    (committed_out_of_order, "event 3 after event 4"),
    (run_out_of_order, "event 9 after event 10"),
    (background_lost_in_silence, "'filed'.*missing.*filed_too"),
    (background_reported_and_done, "'filed'.*reported"),
    (forgotten_lost_in_silence, "'forgotten'.*missing.*'9'"),
    (child_lost_in_silence, r"'child'.*missing.*'9\.0'"),
)


@pytest.mark.parametrize(("break_it", "text"), BROKEN, ids=[break_it.__name__ for break_it, _ in BROKEN])
def test_a_broken_promise_is_found_out(history: History, break_it: Callable[[History], None], text: str) -> None:
    break_it(history)
    violations = check(history)
    assert any(re.search(text, violation) for violation in violations), violations


def test_an_event_may_be_late_before_its_first_line_if_its_process_stood_still(history: History) -> None:
    late_in_a_process_that_it_did_not_run_in(history)
    history.kills.append(Kill(16, "worker", "SIGSTOP"))
    assert check(history) == []


def test_a_lost_dispatcher_allows_started_events_to_be_lost(history: History) -> None:
    fire(history, "9", "plain", Outcome("EngineLost", "hook 'plain': the dispatcher died"), 10)
    history.kills.append(Kill(1, "dispatcher", "SIGKILL"))
    assert check(history) == []


def test_a_lost_dispatcher_allows_what_it_counted_to_be_missing(history: History) -> None:
    forget_child_and_background(history)
    history.kills.append(Kill(1, "dispatcher", "SIGKILL"))
    assert len(check(history)) == 2
    text = "the engine's dispatcher process died before 1 nested event and 2 background handlers had ended"
    history.reports.append(Outcome("EngineLost", text))
    assert check(history) == []


def forget_child_and_background(history: History) -> None:
    background_lost_in_silence(history)
    child_lost_in_silence(history)


def test_a_lost_dispatcher_allows_no_event_to_be_run_again_that_has_run(history: History) -> None:
    fire(history, "9", "plain", OK, 10, 11)
    commit(history, "plain", "9")
    history.kills.append(Kill(1, "dispatcher", "SIGKILL"))
    assert any("event 9 (plain) ran plain 2 times" in violation for violation in check(history))
