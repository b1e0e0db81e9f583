"""What the design promises about order, snapshots, updates, arguments, failures and limits."""

from __future__ import annotations

import enum
import threading
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
from quiet import QuietRigger
from semantic_plugins import (
    CustomError,
    Failing,
    Late,
    Looker,
    Meeting,
    Nester,
    Orderly,
    Sequence,
    Spoiler,
    Taker,
    Waiter,
)
from waiting import DEADLINE, wait_for

from rigger_mp import HookError, Rigger
from rigger_mp.errors import (
    DeadlockError,
    HookResultError,
    MissingArgumentsError,
    NestingLimitExceeded,
    NotRunningError,
    QueueFull,
    RemoteTraceback,
    WorkerLost,
)

PLUGINS: dict[str, type] = {
    "meeting": Meeting,
    "orderly": Orderly,
    "sequence": Sequence,
    "waiter": Waiter,
    "looker": Looker,
    "spoiler": Spoiler,
    "late": Late,
    "taker": Taker,
    "failing": Failing,
    "nester": Nester,
}


def engine(options: dict[str, Any] | None = None, **instances: Any) -> QuietRigger:
    """Return an engine with an instance for each keyword: the plugin's name, or an entry."""
    entries = {ident: {"plugin": entry} if isinstance(entry, str) else entry for ident, entry in instances.items()}
    return QuietRigger({"workers": 2, **(options or {}), "plugins": entries}, plugins=PLUGINS)


class Gate:
    """Holds events of :class:`Waiter` up until it is opened."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.started, self.release = directory / "started", directory / "release"

    @property
    def arguments(self) -> dict[str, str]:
        return {"started": str(self.started), "release": str(self.release)}

    def wait_until_reached(self) -> None:
        wait_for(self.started.exists)

    def open(self) -> None:
        self.release.touch()


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    return Gate(tmp_path)


# -- order ----------------------------------------------------------------------------------------------------


def meet_twice(rigger: Rigger, place: Path) -> list[Any]:
    """Fire two events, each of which lasts until the other has begun."""
    place.mkdir()
    return [rigger.submit("meet", place=str(place), name=name, people=2) for name in "ab"]


def test_concurrent_events_overlap_and_an_ordered_one_is_a_barrier(tmp_path: Path) -> None:
    with engine(meeting="meeting", orderly="orderly") as rigger:
        before = meet_twice(rigger, tmp_path / "before")
        between = [rigger.submit("meet_in_order") for _ in range(3)]
        after = meet_twice(rigger, tmp_path / "after")
        first, ordered, last = ([future.result()["interval"] for future in part] for part in (before, between, after))
        for pair in (first, last):
            assert max(start for start, _ in pair) < min(end for _, end in pair)
        for earlier, later in ((first, ordered[:1]), (ordered[:1], ordered[1:2]), (ordered[1:2], ordered[2:])):
            assert max(end for _, end in earlier) <= min(start for start, _ in later)
        assert max(end for _, end in ordered) <= min(start for start, _ in last)
        assert len({future.result()["pid"] for future in before}) == 2


def test_stats_tell_what_keeps_a_hook_ordered() -> None:
    options = {"hooks": {"whoami": {"concurrent": True}, "number": {"concurrent": False}}}
    with engine(options, meeting="meeting", orderly="orderly", sequence="sequence") as rigger:
        hooks = rigger.stats()["hooks"]
        assert (hooks["meet"]["concurrent"], hooks["meet"]["kept_ordered_by"]) == (True, [])
        assert not hooks["meet_in_order"]["concurrent"]
        assert hooks["meet_in_order"]["kept_ordered_by"] == ["orderly.<lambda>"]
        assert hooks["number_late"]["concurrent"]
        assert hooks["whoami"]["concurrent"]
        assert not hooks["number"]["concurrent"]
        rigger.register_hook_callback("meet", "pre", lambda: None, name="plain")
        assert not rigger.stats()["hooks"]["meet"]["concurrent"]
        rigger.register_hook_callback("meet", "pre", lambda: None, name="plain", concurrent=True)
        assert rigger.stats()["hooks"]["meet"]["concurrent"]


def test_a_stateful_instance_sees_concurrent_events_in_fire_order() -> None:
    with engine(one="sequence", two="sequence", three="sequence") as rigger:
        # Some events have a stage before, which would let the others overtake them.
        rigger.register_hook_callback("number_late", "pre", lambda: None, concurrent=True)
        assert rigger.stats()["hooks"]["number_late"]["concurrent"]
        futures = [rigger.submit("number_late" if number % 3 else "number") for number in range(300)]
        for ident in ("one", "two", "three"):
            numbers = [future.result()[f"number_{ident}"] for future in futures]
            assert numbers == list(range(1, 301))


def test_assigning_to_global_data_is_sequenced_with_the_events() -> None:
    with engine(waiter="waiter") as rigger:
        seen = []
        for number in range(30):
            rigger.global_data["value"] = number
            seen.append(rigger.submit("read"))
        assert [future.result()["seen"] for future in seen] == list(range(30))


# -- snapshots ------------------------------------------------------------------------------------------------


def test_a_concurrent_event_reads_the_globals_committed_when_it_started(gate: Gate) -> None:
    with engine(waiter="waiter") as rigger:
        rigger.global_data = {"value": "old"}
        wait = Waiter.wait

        def hold(started: str, release: str) -> Any:
            wait(None, started, release)  # type: ignore[arg-type]
            return None, {"other": "own"}

        rigger.register_hook_callback("look", "pre", hold, concurrent=True)
        held = rigger.submit("look", **gate.arguments)
        gate.wait_until_reached()
        rigger.fire_hook("set", new="new")
        assert rigger.global_data["value"] == "new"
        assert "other" not in rigger.global_data  # a concurrent event's updates are merged when it ends
        gate.open()
        assert (held.result()["seen"], held.result()["seen_other"]) == ("old", "own")
        assert (held.result()["value"], rigger.global_data["other"]) == ("new", "own")


@pytest.mark.parametrize("spread", [True, False], ids=["over workers", "on one worker"])
def test_the_stages_of_a_concurrent_event_share_its_snapshot_and_are_merged_at_its_end(
    tmp_path: Path, spread: bool
) -> None:
    def prepare(value: str, directory: str) -> Any:
        Path(directory, "prepares").touch()
        wait_for(Path(directory, "go on").exists)
        return None, {"other": f"pre's, on {value}"}

    entry = {"plugin": "looker", "stateless": not spread}
    lookers = {"one": entry, "two": entry} if spread else {"one": entry}
    with engine({"workers": 3}, waiter="waiter", **lookers) as rigger:
        rigger.global_data = {"value": "old", "other": "before"}
        rigger.register_hook_callback("peek", "pre", prepare, concurrent=True)
        assert rigger.stats()["hooks"]["peek"]["concurrent"]
        held = rigger.submit("peek", directory=str(tmp_path))
        wait_for((tmp_path / "prepares").exists)
        rigger.fire_hook("set", new="new")
        (tmp_path / "go on").touch()
        wait_for(lambda: len(list(tmp_path.glob("* peeks"))) == len(lookers))
        assert rigger.fire_hook("look")["seen_other"] == "before"
        (tmp_path / "end").touch()
        assert held.result()["peeked"] == [("old", "pre's, on old")] * len(lookers)
        assert (held.result()["value"], rigger.global_data["other"]) == ("new", "hook's")


def test_results_keep_the_globals_of_the_moment_when_their_event_ended() -> None:
    with engine(waiter="waiter") as rigger:
        results = [rigger.fire_hook("set", new=number) for number in range(100)]
        del rigger.global_data["value"]
        assert [result["value"] for result in results] == list(range(100))
        assert [result["tree"] for result in results[::-1]] == [{"leaf": n} for n in range(99, -1, -1)]
        rigger.fire_hook("set", new="last")
    assert [result["value"] for result in results] == list(range(100))
    assert rigger.global_data["value"] == "last"


def test_the_functions_of_a_stage_see_the_same_snapshot() -> None:
    with engine(one="waiter", two="waiter", three="waiter") as rigger:
        rigger.global_data = {"value": "before"}
        for number in range(3):
            name = f"seen_{number}"
            rigger.register_hook_callback("mark", "pre", lambda value, name=name: ({name: value}, {"value": name}))
        result = rigger.fire_hook("mark")
        assert [result[f"seen_{number}"] for number in range(3)] == ["before"] * 3
        assert result["value"] == "seen_2"


# -- isolation ------------------------------------------------------------------------------------------------


def test_changing_an_argument_in_place_is_seen_nowhere() -> None:
    items, shared = [1, 2], {"kept": True}
    with engine(one="spoiler", two="spoiler") as rigger:
        rigger.global_data["shared"] = shared
        rigger.register_hook_callback("spoil", "pre", lambda items, shared: items.clear() or shared.clear())
        for _ in range(2):
            result = rigger.fire_hook("spoil", items=items)
            untouched = {"items": [1, 2], "shared": ["kept"], "config": False}
            assert (result["seen_one"], result["seen_two"]) == (untouched, untouched)
            assert result["items"] == [1, 2]
        assert rigger.global_data["shared"] == {"kept": True}
        assert rigger.fire_hook("show")["kept_one"] == [[1, 2, 2], [1, 2, 2]]
        assert "spoilt" not in rigger.config
    assert items == [1, 2]


def test_what_is_read_is_a_private_copy() -> None:
    with engine(waiter="waiter") as rigger:
        result = rigger.fire_hook("set", new=[1])
        rigger.global_data["value"].append(2)
        result["tree"]["leaf"].append(3)
        assert rigger.global_data.copy() == {"value": [1], "tree": {"leaf": [1]}}


# -- updates --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("threaded", [True, False])
def test_updates_are_merged_in_the_order_of_registration(threaded: bool) -> None:
    delays = {"first": 0.06, "second": 0.03, "third": 0.0}
    instances = {ident: {"plugin": "late", "delay": delay} for ident, delay in delays.items()}
    instances["second"]["stateless"] = True
    with engine({"threaded": threaded, "workers": 3}, **instances) as rigger:
        result = rigger.fire_hook("merge")
        for namespace in (result.local_data, rigger.global_data):
            assert namespace["order"] == ["first", "second", "third"]
            assert namespace["winner"] == "third"
            assert namespace["tree"] == {"by": {"first": 1, "second": 1, "third": 1}, "last": "third"}


@pytest.mark.parametrize(("list_merge", "expected"), [("extend", [0, 1, 2]), ("replace", [2])])
def test_option_list_merge(list_merge: str, expected: list[int]) -> None:
    with engine({"list_merge": list_merge}, taker="taker") as rigger:
        rigger.register_hook_callback("hand_over", "pre", lambda: ({"items": [1]}, {"items": [1]}))
        rigger.global_data = {"items": [0]}
        result = rigger.fire_hook("hand_over", items=[0], returned=({"items": [2]}, {"items": [2]}))
        assert result["items"] == expected
        assert rigger.global_data["items"] == expected


# -- where instances live -------------------------------------------------------------------------------------


def test_a_dedicated_instance_is_not_reached_by_a_neighbours_crash() -> None:
    instances = {ident: {"plugin": "sequence"} for ident in ("one", "two", "three")}
    instances["three"]["dedicated"] = True
    with engine({"workers": 1}, **instances) as rigger:
        pids = rigger.fire_hook("whoami")
        assert pids["one"] == pids["two"] != pids["three"]
        rigger.fire_hook("number")
        rigger.register_hook_callback("fall", "pre", lambda: __import__("os")._exit(5))
        with pytest.raises(WorkerLost, match="status 5"):
            rigger.fire_hook("fall")
        after = rigger.fire_hook("number")
        assert [after[f"number_{ident}"] for ident in instances] == [1, 1, 2]
        assert rigger.fire_hook("whoami")["three"] == pids["three"]


def test_stateless_by_configuration(tmp_path: Path) -> None:
    entry = {"plugin": "meeting", "stateless": False}
    with engine(meeting=entry) as rigger:
        assert rigger.stats()["hooks"]["meet"]["kept_ordered_by"] == ["meeting.meet"]
    with engine(orderly={"plugin": "orderly", "stateless": True}, meeting="meeting") as rigger:
        assert rigger.stats()["hooks"]["meet_in_order"]["concurrent"]
        pids = {future.result()["pid"] for future in meet_twice(rigger, tmp_path / "place")}
        assert len(pids) == 2


# -- arguments ------------------------------------------------------------------------------------------------


def test_missing_arguments_name_the_function_the_instance_and_what_is_missing() -> None:
    with engine(taker="taker") as rigger:
        rigger.global_data["second"] = 2
        with pytest.raises(HookError, match=r"taker\.need needs 'first', 'third'") as caught:
            rigger.fire_hook("need")
        assert isinstance(caught.value.__cause__, MissingArgumentsError)
        with pytest.raises(HookError, match=r"needs 'third'.*have it"):
            rigger.fire_hook("need", first=1)
        rigger.squash_exceptions = True
        assert "taken" not in rigger.fire_hook("need", first=1)
        assert [type(error) for error in rigger.failures] == [MissingArgumentsError]


@pytest.mark.parametrize("value", [None, 0, "", False, [], {}])
def test_presence_decides_never_truth(value: Any) -> None:
    with engine(taker="taker") as rigger:
        assert rigger.fire_hook("default")["taken"] == "default"
        assert rigger.fire_hook("need", first=value, second=value, third=value)["taken"] == [value] * 3
        rigger.global_data["value"] = "global"
        assert rigger.fire_hook("default")["taken"] == "global"
        assert rigger.fire_hook("default", value=value)["taken"] == value
        rigger.global_data["value"] = value
        assert rigger.fire_hook("default")["taken"] == value


def test_keyword_parameters_receive_the_whole_local_namespace() -> None:
    with engine(taker="taker") as rigger:
        rigger.global_data = {"named": "from globals", "not_given": 1}
        rigger.register_hook_callback("everything", "pre", lambda: ({"added": 1}, {"global": 1}))
        result = rigger.fire_hook("everything", other=2)
        assert (result["taken"], result["rest"]) == ("from globals", ["added", "config", "other"])


def test_config_is_the_engines_whatever_an_event_calls_so() -> None:
    with engine({"site": "lab"}, taker="taker") as rigger:
        rigger.register_hook_callback("default", "pre", lambda config: ({"value": sorted(config)}, None))
        result = rigger.fire_hook("default", config={"mine": 1})
        assert result["taken"] == ["plugins", "site", "workers"]
        assert result["config"] == rigger.config


@pytest.mark.parametrize("hook", ["positional", "part"])
def test_positional_only_parameters(hook: str) -> None:
    with engine(taker="taker") as rigger:
        assert rigger.fire_hook(hook, first=10)["taken"] == [10, 2, 3]
        assert rigger.fire_hook(hook, first=10, third=30)["taken"] == [10, 2, 30]
        assert rigger.fire_hook(hook, first=10, second=20, third=30)["taken"] == [10, 20, 30]
        with pytest.raises(HookError, match="needs 'first'"):
            rigger.fire_hook(hook, second=20)


def test_async_functions_run_to_completion_on_one_loop() -> None:
    async def prepare() -> Any:
        return {"value": "prepared"}, None

    with engine(taker="taker") as rigger:
        rigger.register_hook_callback("wait_a_while", "pre", prepare)
        assert rigger.fire_hook("wait_a_while")["taken"] == "prepared"
        loop = rigger.global_data["loop"]
        assert rigger.fire_hook("wait_a_while")["loop"] == loop


# -- results of functions -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("returned", "text"),
    [
        (5, "a value of type int"),
        (False, "a value of type bool"),
        ({}, "a value of type dict"),
        ("ab", "a value of type str"),
        ((), "a tuple of 0"),
        (({},), "a tuple of 1"),
        ([{}, {}, {}], "a list of 3"),
        (("a", None), "a value of type str as its local updates"),
        ((None, [1]), "a list of 1 as its global updates"),
        (({}, {1: 2}), "global updates with the name 1"),
    ],
)
def test_wrong_return_shapes_are_named(returned: Any, text: str) -> None:
    with engine(taker="taker") as rigger:
        with pytest.raises(HookError, match=rf"taker\.hand_over returned {text}; expected") as caught:
            rigger.fire_hook("hand_over", returned=returned)
        assert isinstance(caught.value.__cause__, HookResultError)


@pytest.mark.parametrize("returned", [None, (None, None), ({}, {}), [None, {"a": 1}], ({"a": 1}, None)])
def test_right_return_shapes(returned: Any) -> None:
    with engine(taker="taker") as rigger:
        result = rigger.fire_hook("hand_over", returned=returned)
        assert ("a" in result) == ("a" in str(returned))


# -- failures -------------------------------------------------------------------------------------------------


def failing_engine(**options: Any) -> QuietRigger:
    return engine(options, one="failing", second="failing", three="failing")


def test_a_hook_error_holds_every_failure_and_the_remote_traceback() -> None:
    with failing_engine() as rigger:
        with pytest.raises(HookError, match=r"hook 'work': 2 function.* failed") as caught:
            rigger.fire_hook("work", bad=("one", "second"))
        error = caught.value
        assert [(failure.function, failure.stage) for failure in error.failures] == [
            ("one.work", "hook"),
            ("second.work", "hook"),
        ]
        assert [failure.message for failure in error.failures] == ["code 3", "code 6"]
        assert "in fail" in error.failures[0].traceback
        assert "raise CustomError(len(self.ident))" in str(error)
        assert "engine/host.py" not in str(error)
        assert isinstance(error.__cause__, CustomError)
        assert error.__cause__.code == 3
        assert isinstance(error.__cause__.__cause__, RemoteTraceback)
        assert rigger.submit("work", bad=("one",)).exception().failures[0].type_name == "CustomError"


@pytest.mark.parametrize("workers", [1, 2])
def test_a_failure_discards_its_stage_and_skips_later_ones(workers: int) -> None:
    with failing_engine(workers=workers) as rigger:
        rigger.register_hook_callback("work", "pre", lambda: (None, {"before": 1}))
        rigger.register_hook_callback("work", "post", lambda: (None, {"after": 1}))
        with pytest.raises(HookError):
            rigger.fire_hook("work", bad=("second",))
        assert rigger.global_data.copy() == {"before": 1}
        rigger.fire_hook("work")
        assert sorted(rigger.global_data) == ["after", "before", "done"]


@pytest.mark.parametrize("threaded", [True, False])
@pytest.mark.parametrize("workers", [1, 2])
def test_squashing_drops_the_failing_functions_updates_only(workers: int, threaded: bool) -> None:
    with failing_engine(squash_exceptions=True, workers=workers, threaded=threaded) as rigger:
        rigger.register_hook_callback("work", "post", lambda done: ({"seen_by_post": done}, None))
        result = rigger.fire_hook("work", bad=("second",))
        assert result["done"] == result["seen_by_post"] == ["one", "three"]
        (failure,) = rigger.failures
        assert isinstance(failure, CustomError)
        assert "in fail" in str(failure.__cause__)


@pytest.mark.parametrize("workers", [1, 2])
def test_without_threading_a_failure_keeps_the_later_functions_from_running(workers: int) -> None:
    with failing_engine(threaded=False, workers=workers) as rigger:
        with pytest.raises(HookError) as caught:
            rigger.fire_hook("work", bad=("second", "three"))
        assert [failure.function for failure in caught.value.failures] == ["second.work"]


def test_a_failure_that_nobody_waits_for_reaches_handle_failure() -> None:
    with failing_engine() as rigger:
        assert rigger.fire_hook("work", wait=False, bad=("one", "three")) is None
        assert rigger.fire_hook("work", wait=False) is None
    assert [str(error) for error in rigger.failures] == ["code 3", "code 5"]
    assert rigger.global_data["done"] == ["one", "second", "three"]


def test_failures_in_the_background_and_in_nested_hooks_reach_handle_failure() -> None:
    bad = {"plugin": "failing", "background": True}
    with engine(one=bad, two="failing", nester="nester") as rigger:
        rigger.register_hook_callback("nest", "pre", lambda level: [] if level else None)
        assert rigger.fire_hook("work", bad=("one",))["done"] == ["two"]
        rigger.fire_hook("nest", level=0)
    kinds = sorted(type(error).__name__ for error in rigger.failures)
    assert kinds == ["CustomError", "HookResultError"]
    assert rigger.global_data["deepest"] == 0


# -- limits ---------------------------------------------------------------------------------------------------


def raised_on_results_thread(rigger: Rigger, gate: Gate, call: Any) -> BaseException | None:
    """Call a function in the thread that delivers outcomes; return what it raised."""
    raised: Future[BaseException | None] = Future()

    def callback(_: Any) -> None:
        try:
            call(rigger)
        except BaseException as error:
            raised.set_result(error)
        else:
            raised.set_result(None)

    # Held until the callback is added: that of a future which is done runs at once, in this thread.
    rigger.submit("wait", **gate.arguments).add_done_callback(callback)
    gate.open()
    return raised.result(timeout=30)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("raised", [SystemExit, KeyboardInterrupt])
def test_a_callback_may_raise_anything_and_outcomes_are_delivered_all_the_same(
    raised: type[BaseException], gate: Gate
) -> None:
    def callback(_: Any) -> None:
        raise raised

    with engine(waiter="waiter") as rigger:
        rigger.submit("wait", **gate.arguments).add_done_callback(callback)
        gate.open()
        for number in range(3):
            assert rigger.submit("nobody listens", a=number).result(DEADLINE)["a"] == number


WAITING_CALLS = {
    "fire_hook('work')": lambda rigger: rigger.fire_hook("work"),
    "stop()": lambda rigger: rigger.stop(),
    "stats()": lambda rigger: rigger.stats(),
    "configure_plugin()": lambda rigger: rigger.configure_plugin("one", 1),
    "assigning to global_data": lambda rigger: rigger.global_data.update(a=1),
    "a future": lambda rigger: rigger.submit("work").result(),
}


@pytest.mark.parametrize("what", WAITING_CALLS)
def test_waiting_in_the_thread_that_delivers_outcomes_is_a_deadlock_error(what: str, gate: Gate) -> None:
    with engine(one="failing", waiter="waiter") as rigger:
        error = raised_on_results_thread(rigger, gate, WAITING_CALLS[what])
        assert isinstance(error, DeadlockError)
        assert str(error).startswith(f"{what} would wait for ever")
        assert rigger.fire_hook("work")["done"] == ["one"]


def test_submitting_in_the_thread_that_delivers_outcomes_works_until_there_is_no_room(gate: Gate) -> None:
    def submit_three(rigger: Rigger) -> None:
        for number in range(3):
            rigger.fire_hook("look", wait=False, value=number)

    with engine({"queue_size": 2}, waiter="waiter") as rigger:
        error = raised_on_results_thread(rigger, gate, submit_three)
        assert isinstance(error, QueueFull)
        assert "queue_size" in str(error)
    assert sorted(rigger.global_data["looked"]) == [0, 1]


def test_submit_waits_for_room_in_the_queue(gate: Gate) -> None:
    with engine({"queue_size": 2}, waiter="waiter") as rigger:
        futures = [rigger.submit("wait", **gate.arguments) for _ in range(2)]
        accepted = threading.Event()

        def submit_another() -> None:
            futures.append(rigger.submit("look"))
            accepted.set()

        thread = threading.Thread(target=submit_another)
        thread.start()
        assert not accepted.wait(0.2)
        assert not any(future.done() for future in futures)
        gate.open()
        assert accepted.wait(30)
        thread.join()
        for future in futures:
            future.result(timeout=30)


def test_stopping_ends_the_wait_for_room(gate: Gate) -> None:
    rigger = engine({"queue_size": 1}, waiter="waiter").start()
    rigger.submit("wait", **gate.arguments)
    gate.wait_until_reached()
    refused: Future[Any] = Future()

    def submit_another() -> None:
        refused.set_running_or_notify_cancel()
        try:
            rigger.submit("look")
        except NotRunningError as error:
            refused.set_result(error)

    thread = threading.Thread(target=submit_another)
    thread.start()
    wait_for(refused.running)
    rigger.stop(graceful_timeout=0.2)
    thread.join(30)
    assert "not running" in str(refused.result(timeout=30))


def test_hooks_that_fire_hooks_for_ever_meet_the_nesting_limit() -> None:
    with engine({"max_nesting": 5}, nester="nester") as rigger:
        rigger.fire_hook("nest", level=0)
        wait_for(lambda: rigger.failures)
        (error,) = rigger.failures
        assert isinstance(error, NestingLimitExceeded)
        assert "max_nesting is 5" in str(error)
        assert rigger.global_data["deepest"] == 5
        assert rigger.stats()["events"]["pending"] == 0


# -- looking in -----------------------------------------------------------------------------------------------


def test_global_data_is_a_mapping_to_read_assign_and_delete() -> None:
    rigger = engine(waiter="waiter")
    rigger.global_data = {"early": 1}
    assert rigger.global_data["early"] == 1
    with rigger:
        view = rigger.global_data
        assert dict(view) == {"early": 1}
        view["tree"] = {"a": {"b": 1}}
        view["tree"] = {"c": 2}  # hooks merge, assignments do not
        assert (view["tree"], len(view), sorted(view), "tree" in view) == ({"c": 2}, 2, ["early", "tree"], True)
        del view["early"]
        assert view.get("early", "gone") == "gone"
        for wrong in (lambda: view["early"], lambda: view.__delitem__("early")):
            with pytest.raises(KeyError):
                wrong()
        view.update(x=1, y=2)
        assert view.pop("x") == 1
        assert repr(view) == repr({"tree": {"c": 2}, "y": 2})
        rigger.global_data = {"only": [1]}
        assert view == {"only": [1]}
        rigger.fire_hook("set", new=3)
        assert view == {"only": [1], "value": 3, "tree": {"leaf": 3}}
    assert view == rigger.global_data == {"only": [1], "value": 3, "tree": {"leaf": 3}}
    with pytest.raises(NotRunningError):
        view["late"] = 1


def test_global_data_takes_several_values_at_once_and_only_strings_as_names() -> None:
    with engine(waiter="waiter") as rigger:
        view = rigger.global_data
        view.update({"a": 1}, b=2)
        rigger.global_data |= {"c": 3}
        assert view == {"a": 1, "b": 2, "c": 3}
        for wrong in ({1: 2}, [1], 5):
            with pytest.raises(TypeError, match=r"must be a string|takes a mapping"):
                rigger.global_data = wrong
        with pytest.raises(TypeError, match=r"must be a string, not int \(1\)"):
            view[1] = "x"  # type: ignore[index]
        assert view == {"a": 1, "b": 2, "c": 3}
        view.clear()
        assert dict(view) == {}


class Name(enum.StrEnum):
    """No other process can import it."""

    KEPT = "kept"


def test_names_may_be_of_a_class_derived_from_str_and_others_are_not_there() -> None:
    with engine(waiter="waiter") as rigger:
        rigger.global_data = {Name.KEPT: 1}
        result = rigger.fire_hook("nobody listens")
        assert (rigger.global_data[Name.KEPT], result[Name.KEPT], rigger.global_data["kept"]) == (1, 1, 1)
        assert Name.KEPT in rigger.global_data
        assert rigger.global_data.get([1]) is None  # type: ignore[call-overload]
    assert rigger.global_data[Name.KEPT] == 1


def test_global_data_shows_everywhere_what_a_background_handler_has_merged(tmp_path: Path) -> None:
    release = tmp_path / "release"
    entry = {"plugin": "taker", "background": True}
    with engine(taker=entry) as rigger:
        rigger.register_hook_callback("hand_over", "pre", lambda: (None, {"first": 1}))
        release.touch()
        rigger.fire_hook("hand_over", returned=(None, {"merged": 1}))
        # No event ends after it: what is listed must not lag behind what can be read.
        wait_for(lambda: "merged" in rigger.global_data)
        assert sorted(rigger.global_data) == ["first", "merged"]
        assert rigger.global_data.copy() == {"first": 1, "merged": 1}


def test_a_result_is_a_mapping_of_locals_then_globals() -> None:
    with engine(waiter="waiter") as rigger:
        rigger.global_data = {"value": "global", "other": [1]}
        result = rigger.fire_hook("read", value="local")
        assert list(result) == ["value", "config", "seen", "other"]
        assert len(result) == 4
        assert result.get("nothing") is None
        assert "other" in result
        assert result.local_data == {"value": "local", "seen": "local"}
        assert (result.hook, result["value"], result["other"]) == ("read", "local", [1])
        with pytest.raises(KeyError):
            result["nothing"]


def test_the_shape_of_stats() -> None:
    with engine(one="failing", waiter={"plugin": "waiter", "background": True}) as rigger:
        rigger.fire_hook("work")
        with pytest.raises(HookError):
            rigger.fire_hook("work", bad=("one",))
        stats = rigger.stats()
    assert stats["events"] == {"accepted": 2, "ended": 2, "succeeded": 1, "failed": 1, "lost": 0, "pending": 0}
    work = stats["hooks"]["work"]
    assert (work["events"], work["failures"], work["concurrent"]) == (2, 1, False)
    assert work["kept_ordered_by"] == ["one.work"]
    function = stats["functions"]["one.work"]
    assert (function["ident"], function["calls"], function["failures"]) == ("one", 2, 1)
    assert 0 < function["seconds"] < 10
    roles = [row["role"] for row in stats["processes"]]
    assert sorted(roles) == ["archive", "dispatcher", "main", "manager", "worker", "worker"]
    for row in stats["processes"]:
        assert row["alive"]
        assert row["rss_bytes"] > 1 << 20
        assert row["cpu_seconds"] >= 0
        assert set(row) == {
            "role", "name", "pid", "alive", "jobs", "busy_seconds", "cpu_seconds", "rss_bytes", "restarts",
        }  # fmt: skip
    assert sum(row["jobs"] for row in stats["processes"] if row["role"] == "worker") == 2
    assert len({row["pid"] for row in stats["processes"]}) == 6
