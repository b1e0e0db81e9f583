"""Updates of a job's stages, put into one where that says the same: against the stages' own updates, one by one."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from rigger_mp.encoding import collect, encode_updates, load_names
from rigger_mp.engine.commit_log import CommitLog
from rigger_mp.engine.job_updates import Returned, combined_updates, encode_results

FAILURE = ("a.add", "hook", "ValueError", "no", "", b"")

SCALARS = st.integers(0, 3) | st.none() | st.text("ab", max_size=2)
VALUES = st.recursive(
    SCALARS | st.tuples(SCALARS),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("pq"), inner, max_size=2),
    max_leaves=6,
)
UPDATES = st.dictionaries(st.sampled_from("xyz"), VALUES, max_size=3)
STAGES = st.lists(st.lists(UPDATES, min_size=1, max_size=3), min_size=1, max_size=3)
LIST_MERGE = st.sampled_from(["extend", "replace"])


def returned(update: dict[str, Any], failure: Any = None) -> Returned:
    return (b"", b"", failure, 0.1), encode_updates(update)


def merged(stage: list[Returned]) -> Any:
    return collect([updates for _, updates in stage])


def committed(log: CommitLog, results: Any) -> dict[str, Any]:
    """Commit results as the scheduler does, a stage each."""
    for stage in results:
        group = tuple(updates for _, updates, _, _ in stage if updates)
        if group:
            log.append((group,))
    return {name: log.namespace.load(name) for name in log.namespace}


def one_by_one(log: CommitLog, stages: list[list[Returned]]) -> dict[str, Any]:
    for stage in stages:
        committed(log, encode_results([stage], [merged(stage)]))
    return {name: log.namespace.load(name) for name in log.namespace}


@given(UPDATES, STAGES, LIST_MERGE, st.booleans())
def test_together_they_do_what_they_do_one_by_one(
    before: dict[str, Any], updates: list[list[dict[str, Any]]], list_merge: str, fails: bool
) -> None:
    stages = [[returned(update) for update in stage] for stage in updates]
    kept = [merged(stage) for stage in stages]
    expected_stages = list(stages)
    if fails:
        stages.append([returned({"x": "an update beside a failure"}), returned({}, FAILURE)])
    logs = CommitLog(list_merge), CommitLog(list_merge)
    for log in logs:
        committed(log, encode_results([[returned(before)]], [encode_updates(before)]))
    results = encode_results(stages, kept)
    expected = one_by_one(logs[0], expected_stages)
    state = committed(logs[1], results[: len(kept)])
    assert state == expected
    assert list(state) == list(expected), "names come in the order in which they were made"
    assert [len(stage) for stage in results] == [len(stage) for stage in stages]
    assert [failure for *_, failure, _ in results[-1]] == [fields[2] for fields, _ in stages[-1]]


def test_stages_that_replace_are_one_commit() -> None:
    stages = [[returned({"x": 1, "first": 1})], [returned({})], [returned({"x": 2, "log": ["a"]})], [returned({})]]
    log = CommitLog()
    state = committed(log, encode_results(stages, [merged(stage) for stage in stages]))
    assert state == {"x": 2, "first": 1, "log": ["a"]}
    assert log.version == 1


def test_a_stage_that_merges_into_another_ones_update_is_a_commit_of_its_own() -> None:
    # {"p": 1} takes away what {"p": {"b": 2}} would otherwise be merged into.
    stages = [encode_updates({"x": {"p": 1}}), encode_updates({"x": {"p": {"b": 2}}})]
    assert combined_updates(stages) is None
    assert combined_updates([*stages[:1], encode_updates({"y": {"p": 1}})]) is not None


def test_what_each_function_updates_of_a_single_stage_stays_its_own() -> None:
    # The stage may have functions in other processes, whose updates come in between.
    stage = [returned({"x": 1}), returned({}), returned({"x": 2})]
    ((first, second, third),) = encode_results([stage], [merged(stage)])
    assert (load_names(first[1]), second[1], load_names(third[1])) == ({"x": 1}, b"", {"x": 2})
