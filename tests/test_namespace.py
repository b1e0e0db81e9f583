"""Namespaces of encoded chains against plain values and ``recursive_update``."""

from __future__ import annotations

import copy
import enum
import pickle
import tracemalloc
from collections.abc import Callable
from typing import Any
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rigger_mp import namespace as namespace_module
from rigger_mp.encoding import (
    collect,
    dump_assignments,
    dump_deletions,
    dump_updates,
    encode_assignment,
    encode_update,
    load_chain,
    load_names,
    load_skeleton,
    recursive_update,
)
from rigger_mp.engine import commit_log
from rigger_mp.engine.commit_log import CommitLog, merged_updates
from rigger_mp.namespace import (
    MIN_LINKS_TO_COMPACT,
    Namespace,
    VersionedNamespace,
    compact,
    extend_chain,
    joined_commits,
)


class Color(enum.Enum):
    RED = 1
    BLUE = 2


class Guarded:
    """Tells when it is made again: what merges and compacts must not."""

    revived = 0

    def __init__(self, value: int) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Guarded) and other.value == self.value

    def __hash__(self) -> int:
        return hash(self.value)

    def __reduce__(self) -> Any:
        return _revive, (self.value,)


def _revive(value: int) -> Guarded:
    Guarded.revived += 1
    return Guarded(value)


TEXT = st.text("ab", max_size=2)
LEAVES = st.integers(0, 3) | st.none() | st.booleans() | TEXT | st.builds(Guarded, st.integers(0, 2))
KEYS = st.sampled_from(["a", "b", ("a", 1), Color.RED, Color.BLUE, Guarded(1), 7, None])
VALUES = st.recursive(
    LEAVES | st.tuples(LEAVES, LEAVES),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)
NAMES = st.sampled_from(["x", "y"])
UPDATE = st.dictionaries(NAMES, VALUES, min_size=1, max_size=2)
STAGE = st.tuples(st.just("stage"), st.lists(UPDATE, min_size=1, max_size=3))
ASSIGN = st.tuples(st.just("assign"), UPDATE)
DELETE = st.tuples(st.just("delete"), st.sets(NAMES, min_size=1))
COMMITS = st.lists(st.one_of(STAGE, STAGE, STAGE, ASSIGN, DELETE), max_size=14)
LIST_MERGE = st.sampled_from(["extend", "replace"])
Commit = tuple[str, Any]


def encode(commit: Commit) -> tuple[bytes, ...]:
    kind, content = commit
    if kind == "stage":
        return tuple(dump_updates(update) for update in content)
    return (dump_assignments(content),) if kind == "assign" else (dump_deletions(sorted(content)),)


def merge_plainly(state: dict[str, Any], commit: Commit, list_merge: str) -> dict[str, Any]:
    """The model: one stage's updates are merged with each other, and then into the state."""
    state, (kind, content) = copy.deepcopy(state), copy.deepcopy(commit)
    if kind == "stage":
        collected: dict[str, Any] = {}
        for update in content:
            recursive_update(collected, update, list_merge)
        recursive_update(state, collected, list_merge)
    elif kind == "assign":
        state.update(content)
    else:
        for name in content:
            state.pop(name, None)
    return state


def states_of(commits: list[Commit], list_merge: str) -> list[dict[str, Any]]:
    states: list[dict[str, Any]] = [{}]
    for commit in commits:
        states.append(merge_plainly(states[-1], commit, list_merge))
    return states


def same(left: Any, right: Any) -> bool:
    """Equal, and of the same types: ``True`` is not ``1`` here."""
    if type(left) is not type(right):
        return False
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list):
        return len(left) == len(right) and all(map(same, left, right))
    return bool(left == right)


def load_all(chains: dict[str, Any], list_merge: str) -> dict[str, Any]:
    return {name: load_chain(chain, list_merge) for name, chain in chains.items()}


@pytest.fixture(params=[(1, 0), (MIN_LINKS_TO_COMPACT, 200)], ids=["early", "late"], autouse=True)
def compaction(request: pytest.FixtureRequest) -> Any:
    """Run every test with chains compacted as early as can be, too."""
    links, overhead = request.param
    with (
        mock.patch.object(namespace_module, "MIN_LINKS_TO_COMPACT", links),
        mock.patch.object(namespace_module, "LINK_OVERHEAD", overhead),
    ):
        yield


FEW = settings(max_examples=80, deadline=None)


@FEW
@given(COMMITS, LIST_MERGE)
def test_namespace_is_the_sum_of_its_commits(commits: list[Commit], list_merge: str) -> None:
    namespace = Namespace(list_merge)
    for commit, expected in zip(commits, states_of(commits, list_merge)[1:], strict=True):
        namespace.commit(collect(map(load_names, encode(commit))))
        assert same({name: namespace.load(name) for name in namespace}, expected)
        assert len(namespace) == len(expected)


@FEW
@given(COMMITS, LIST_MERGE, st.integers(0, 14))
def test_a_replacement_goes_on_where_the_other_was(
    commits: list[Commit], list_merge: str, cut: int
) -> None:
    first, second = Namespace(list_merge), Namespace(list_merge)
    for commit in commits[:cut]:
        first.commit(collect(map(load_names, encode(commit))))
    second.replace(first.export())
    for commit in commits[cut:]:
        second.commit(collect(map(load_names, encode(commit))))
    assert same({name: second.load(name) for name in second}, states_of(commits, list_merge)[-1])


@FEW
@given(COMMITS, LIST_MERGE)
def test_extended_chains_load_as_the_namespace_does(commits: list[Commit], list_merge: str) -> None:
    chain = None
    for commit in commits:
        link = collect(map(load_names, encode(commit)))
        if "x" in link:
            chain = extend_chain(chain, link["x"], list_merge)
    expected = states_of(commits, list_merge)[-1]
    assert (chain is not None) == ("x" in expected)
    if chain is not None:
        assert same(load_chain(chain, list_merge), expected["x"])


@FEW
@given(COMMITS, LIST_MERGE, st.lists(st.integers(0, 14), max_size=14))
def test_every_version_from_the_floor_on_can_be_read(
    commits: list[Commit], list_merge: str, floors: list[int]
) -> None:
    versions = VersionedNamespace(list_merge)
    states = states_of(commits, list_merge)
    for number, commit in enumerate(commits):
        if number < len(floors):
            versions.raise_floor(floors[number])
        versions.commit([collect(map(load_names, encode(commit)))])
        for version in range(versions.floor, versions.version + 1):
            check_version(versions, version, states[version], list_merge)
    assert same(load_all(versions.export(), list_merge), states[-1])


def check_version(versions: VersionedNamespace, version: int, state: dict[str, Any], list_merge: str) -> None:
    chains = {name: versions.read(name, version) for name in ("x", "y")}
    found = {name: chain for name, chain in chains.items() if chain is not None}
    assert same(load_all(found, list_merge), state)
    assert sorted(versions.names(version)) == sorted(state)


@FEW
@given(COMMITS, LIST_MERGE, st.integers(0, 14))
def test_a_restored_or_dumped_versioned_namespace_goes_on(
    commits: list[Commit], list_merge: str, cut: int
) -> None:
    first, second, third = (VersionedNamespace(list_merge) for _ in range(3))
    for commit in commits[:cut]:
        first.commit([collect(map(load_names, encode(commit)))])
    second.restore(first.version, first.export())
    third.load_dump(*first.dump())
    states = states_of(commits, list_merge)
    for commit in commits[cut:]:
        for versions in (second, third):
            versions.raise_floor(versions.version)
            versions.commit([collect(map(load_names, encode(commit)))])
            check_version(versions, versions.version, states[versions.version], list_merge)
            check_version(versions, versions.floor, states[versions.floor], list_merge)


@FEW
@given(st.lists(st.lists(STAGE, min_size=1, max_size=3), max_size=10), LIST_MERGE, st.data())
def test_any_replica_catches_up_with_the_log(
    entries: list[list[Commit]], list_merge: str, data: st.DataObject
) -> None:
    with mock.patch.object(commit_log, "ENTRIES_KEPT", data.draw(st.integers(1, 5))):
        log, state = CommitLog(list_merge), dict[str, Any]()
        replicas = [(0, Namespace(list_merge))]
        for entry in entries:
            log.append(tuple(map(encode, entry)))
            for commit in entry:
                state = merge_plainly(state, commit, list_merge)
            assert same({name: log.namespace.load(name) for name in log.namespace}, state)
            if data.draw(st.booleans()):
                replicas = [(log.version, catch_up(log, *replica)) for replica in replicas]
                replicas.append((0, Namespace(list_merge)))
        for version, replica in replicas:
            caught_up = catch_up(log, version, replica)
            assert same({name: caught_up.load(name) for name in caught_up}, state)
        assert log.delta(log.version) is None


def catch_up(log: CommitLog, version: int, replica: Namespace) -> Namespace:
    delta = log.delta(version)
    if delta is not None and delta[0]:
        replica.replace(delta[1])
    elif delta is not None:
        for entry in delta[1]:
            for update in merged_updates(entry):
                replica.commit(update)
    return replica


def test_a_replica_that_kept_a_deleted_name_matters() -> None:
    log = CommitLog()
    log.append(((dump_updates({"x": {}, "y": 1}),),))
    log.append(((dump_deletions(["x"]),),))
    assert log.matters(frozenset({"x"}), 1)
    assert not log.matters(frozenset({"x"}), 2)
    assert log.matters(frozenset({"y"}), 2)
    assert not log.matters(frozenset(), 0)


def test_bytes_kept_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commit_log, "BYTES_KEPT", 10_000)
    log = CommitLog()
    for _ in range(20):
        log.append(((dump_updates({"x": b"0" * 3000}),),))
    whole, _chains = log.delta(10)
    assert whole
    whole, entries = log.delta(18)
    assert not whole
    assert len(entries) == 2


# -- no user code ----------------------------------------------------------------------------------------


def test_merging_compacting_and_pruning_run_no_user_code() -> None:
    Guarded.revived = 0
    namespace, versions, log = Namespace(), VersionedNamespace(), CommitLog()
    for number in range(200):
        update = {"x": {"deep": {Guarded(number % 3): [Guarded(number)], Color.RED: {number: Color.BLUE}}}}
        encoded = dump_updates(update)
        namespace.commit(load_names(encoded))
        versions.commit([load_names(encoded)])
        versions.raise_floor(number)
        log.append(((encoded,),))
    compact(namespace.chain("x"), "extend")
    assert Guarded.revived == 0
    value = namespace.load("x")
    assert Guarded.revived > 0
    assert value == load_chain(versions.read("x", 200) or ()) == log.namespace.load("x")
    assert value["deep"][Guarded(1)] == [Guarded(number) for number in range(200) if number % 3 == 1]
    assert value["deep"][Color.RED][199] is Color.BLUE


def test_skeletons_refuse_any_other_global() -> None:
    with pytest.raises(pickle.UnpicklingError, match="must not refer to"):
        load_skeleton(pickle.dumps({"a": Guarded(1)}))


def test_loads_are_private_copies() -> None:
    namespace = Namespace()
    namespace.commit({"x": encode_update({"list": [1], "object": Guarded(1)})})
    first = namespace.load("x")
    first["list"].append(2)
    first["object"].value = 9
    assert namespace.load("x") == {"list": [1], "object": Guarded(1)}


# -- cost ------------------------------------------------------------------------------------------------


def test_chains_stay_proportional_to_their_values() -> None:
    namespace = Namespace()
    longest = 0
    for number in range(3000):
        namespace.commit({"x": encode_update({"key": number})})
        longest = max(longest, len(namespace.chain("x")))
    assert longest <= MIN_LINKS_TO_COMPACT + 2


@pytest.mark.parametrize("versioned", [False, True], ids=["Namespace", "VersionedNamespace"])
def test_growing_a_mapping_costs_no_square(versioned: bool) -> None:
    """What compactions write in all stays proportional to what was committed."""
    written: list[int] = []
    real = compact

    def counting(chain: Any, list_merge: str) -> Any:
        link = real(chain, list_merge)
        written.append(sum(map(len, link[1])))
        return link

    target: Any = VersionedNamespace() if versioned else Namespace()
    committed = 0
    with mock.patch.object(namespace_module, "compact", counting):
        for number in range(4000):
            link = encode_update({number: number})
            committed += len(link[1][0]) + 200
            target.commit([{"x": link}] if versioned else {"x": link})
            if versioned:
                target.raise_floor(number)
    assert written
    assert sum(written) <= 2 * committed
    chain = target.read("x", target.version) if versioned else target.chain("x")
    assert load_chain(chain) == {number: number for number in range(4000)}


def test_what_is_superseded_below_the_floor_is_forgotten() -> None:
    versions = VersionedNamespace()
    for number in range(20):
        once = encode_assignment({1: 2})
        versions.commit([{"big": encode_update(b"0" * 10_000), f"once{number}": once}])
        versions.commit([load_names(dump_deletions([f"once{number}"]))])
        versions.raise_floor(versions.version)
    _version, _floor, history = versions.dump()
    assert {name: len(links) for name, links in history.items()} == {"big": 1}


@given(COMMITS, LIST_MERGE, st.sets(st.integers(0, 14)))
def test_what_is_added_counts_whenever_somebody_reads(commits: list[Commit], list_merge: str, reads: set[int]) -> None:
    added, committed = Namespace(list_merge), Namespace(list_merge)
    deletes, deleted = False, False
    for number, commit in enumerate(commits):
        update = collect(map(load_names, encode(commit)))
        deletes |= added.add(update)
        deleted |= committed.commit(update)
        if number in reads:
            deletes |= added.settle()
            assert same({name: added.load(name) for name in added}, {name: committed.load(name) for name in committed})
    assert same({name: added.load(name) for name in added}, {name: committed.load(name) for name in committed})
    assert not deletes or deleted


@given(COMMITS, LIST_MERGE)
def test_joined_commits_do_what_they_do_one_by_one(commits: list[Commit], list_merge: str) -> None:
    joined, single = VersionedNamespace(list_merge), VersionedNamespace(list_merge)
    updates = [collect(map(load_names, encode(commit))) for commit in commits]
    joined.commit(joined_commits(updates), len(updates))
    for update in updates:
        single.commit([update])
    assert joined.version == single.version
    assert loaded(joined, list_merge) == loaded(single, list_merge)


def loaded(versions: VersionedNamespace, list_merge: str) -> dict[str, Any]:
    return {name: load_chain(chain, list_merge) for name, chain in versions.export().items()}


LARGE: dict[str, Callable[[int], dict[str, Any]]] = {
    "bytes": lambda number: {"x": bytes(1 << 20)},
    "merged": lambda number: {"x": encode_update({"row": "x" * (1 << 20)})},
    "integers": lambda number: {"x": number << (8 << 20)},
    "names": lambda number: {f"name {n}": float(number) for n in range(10_000)},
}


@pytest.mark.parametrize("large", LARGE.values(), ids=LARGE)
def test_what_waits_takes_little_memory(large: Callable[[int], dict[str, Any]]) -> None:
    namespace = Namespace()
    tracemalloc.start()
    try:
        for number in range(1, 60):
            namespace.add(large(number))
            namespace.add({"x": None, "number": number})
        assert tracemalloc.get_traced_memory()[0] < 10 << 20
    finally:
        tracemalloc.stop()
    assert namespace.load("number") == 59
