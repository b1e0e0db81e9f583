"""How values meet (``recursive_update``) and how they travel."""

from __future__ import annotations

import copy
import enum
import pickle
import subprocess
import sys
import threading
from collections import OrderedDict, defaultdict
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rigger_mp.encoding import (
    Opaque,
    collect,
    dump_arguments,
    dump_assignments,
    dump_deletions,
    dump_skeleton,
    dump_updates,
    dump_value,
    encode_update,
    load_chain,
    load_names,
    load_part,
    load_skeleton,
    plain_mappings,
    recursive_update,
)
from rigger_mp.errors import EncodingError

LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.complex_numbers(allow_nan=False)
    | st.text(st.characters(exclude_categories=[]), max_size=5)
    | st.binary(max_size=5)
    | st.fractions()
    | st.dates()
)
KEYS = st.text(max_size=2) | st.integers() | st.tuples(st.booleans(), st.text(max_size=1))
VALUES = st.recursive(
    LEAVES | st.frozensets(LEAVES, max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(KEYS, inner, max_size=3)
        | st.dictionaries(KEYS, inner, max_size=2).map(OrderedDict)
    ),
    max_leaves=10,
)
NAMED = st.dictionaries(st.text(max_size=4), VALUES, max_size=4)


class Color(enum.Enum):
    RED = "red"


class ReadOnly(Mapping[Any, Any]):
    """A mapping that is no dict and cannot be changed."""

    def __init__(self, **values: Any) -> None:
        self._values = values

    def __getitem__(self, key: Any) -> Any:
        return self._values[key]

    def __iter__(self) -> Iterator[Any]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)


class Broken(ReadOnly):
    def __iter__(self) -> Iterator[Any]:
        raise LookupError("no keys today")


# -- recursive_update ------------------------------------------------------------------------------------


def test_mappings_merge_at_every_depth() -> None:
    orig = {"a": {"b": {"c": 1, "d": 2}}, "x": 0}
    assert recursive_update(orig, {"a": {"b": {"d": 3, "e": 4}}}) is orig
    assert orig == {"a": {"b": {"c": 1, "d": 3, "e": 4}}, "x": 0}


def test_lists_extend_and_anything_else_replaces() -> None:
    orig = {"list": [1], "tuple": (1,), "set": {1}, "value": 1}
    recursive_update(orig, {"list": [2, 3], "tuple": (2,), "set": {2}, "value": None})
    assert orig == {"list": [1, 2, 3], "tuple": (2,), "set": {2}, "value": None}


def test_lists_replace_where_asked_at_every_depth() -> None:
    orig = {"a": {"b": [1]}, "c": [1]}
    assert recursive_update(orig, {"a": {"b": [2]}, "c": []}, "replace") == {"a": {"b": [2]}, "c": []}


@pytest.mark.parametrize("older", [5, None, "text", [1], (1,)])
def test_a_mapping_takes_the_place_of_what_is_none(older: Any) -> None:
    assert recursive_update({"a": older}, {"a": {"b": 1}}) == {"a": {"b": 1}}
    assert recursive_update(older, {"b": 1}) == {"b": 1}


@pytest.mark.parametrize("older", [5, None, "text", {"b": 1}, (1,)])
def test_a_list_takes_the_place_of_what_is_none(older: Any) -> None:
    assert recursive_update({"a": older}, {"a": [1]}) == {"a": [1]}


def test_an_empty_mapping_changes_no_mapping_and_an_empty_list_no_list() -> None:
    assert recursive_update({"a": {"b": 1}, "c": [1]}, {"a": {}, "c": []}) == {"a": {"b": 1}, "c": [1]}


def test_new_mappings_become_plain_dicts_and_old_ones_keep_their_type() -> None:
    orig: dict[str, Any] = {"old": OrderedDict(a=1), "counts": defaultdict(int, a=1)}
    updates = {"new": OrderedDict(b=MappingProxyType({"c": 1})), "old": {"b": 2}, "counts": ReadOnly(b=2)}
    recursive_update(orig, updates)
    assert type(orig["new"]) is dict
    assert type(orig["new"]["b"]) is dict
    assert orig["old"] == OrderedDict(a=1, b=2)
    assert type(orig["old"]) is OrderedDict
    assert orig["counts"]["missing"] == 0


def test_mappings_that_cannot_be_changed_are_replaced_by_merged_ones() -> None:
    frozen = MappingProxyType({"a": 1})
    assert recursive_update(frozen, {"b": 2}) == {"a": 1, "b": 2}
    assert recursive_update({"x": ReadOnly(a=1)}, {"x": {"b": 2}}) == {"x": {"a": 1, "b": 2}}
    assert frozen == {"a": 1}


@settings(deadline=None)
@given(NAMED, NAMED, NAMED, st.sampled_from(["extend", "replace"]))
def test_updates_are_never_changed(orig: Any, first: Any, second: Any, list_merge: str) -> None:
    before = copy.deepcopy((first, second))
    recursive_update(orig, first, list_merge)
    recursive_update(orig, second, list_merge)
    recursive_update(orig, first, list_merge)
    assert (first, second) == before


# -- encoding --------------------------------------------------------------------------------------------


def decode(data: bytes) -> dict[str, Any]:
    return {name: load_chain((link,)) for name, link in load_names(data).items()}


@settings(deadline=None)
@given(NAMED)
def test_arguments_arrive_as_they_were(arguments: dict[str, Any]) -> None:
    arrived = decode(dump_arguments(arguments))
    assert arrived == arguments
    assert list(map(type, arrived.values())) == list(map(type, arguments.values()))


@settings(deadline=None)
@given(NAMED)
def test_updates_arrive_with_plain_mappings(updates: dict[str, Any]) -> None:
    expected = {name: plain_mappings(value) for name, value in updates.items()}
    for dump in (dump_updates, dump_assignments):
        arrived = decode(dump(updates))
        assert arrived == expected
        assert all(type(value) is dict for value in arrived.values() if isinstance(value, Mapping))


@settings(deadline=None)
@given(st.lists(NAMED, min_size=1, max_size=4), st.sampled_from(["extend", "replace"]))
def test_updates_of_a_stage_are_merged_with_each_other(stage: list[dict[str, Any]], list_merge: str) -> None:
    expected: dict[str, Any] = {}
    for update in stage:
        recursive_update(expected, update, list_merge)
    collected = collect(load_names(dump_updates(update)) for update in stage)
    assert {name: load_part(link, list_merge) for name, link in collected.items()} == expected


@settings(deadline=None)
@given(st.lists(VALUES, max_size=3) | st.dictionaries(KEYS, VALUES, max_size=3))
def test_skeletons_can_be_opened_and_closed(value: Any) -> None:
    data = encode_update(value)[1][0]
    reopened = dump_skeleton(load_skeleton(data))
    assert load_chain([("M", (reopened,))]) == plain_mappings(value)


def test_mappings_of_every_type_travel_as_arguments() -> None:
    counts = defaultdict(list, a=[1])
    ordered = OrderedDict(b=1, a=2)
    arrived = decode(dump_arguments({"ordered": ordered, "counts": counts, "own": ReadOnly(a=1)}))
    assert list(arrived["ordered"]) == ["b", "a"]
    assert arrived["counts"]["missing"] == []
    assert type(arrived["own"]) is ReadOnly


def test_mappings_of_every_type_travel_as_updates() -> None:
    frozen = MappingProxyType({"a": OrderedDict(b=ReadOnly(c=[OrderedDict(d=1)]))})
    arrived = decode(dump_updates({"x": frozen}))
    assert arrived == {"x": {"a": {"b": {"c": [OrderedDict(d=1)]}}}}
    assert type(arrived["x"]["a"]["b"]) is dict
    assert type(arrived["x"]["a"]["b"]["c"][0]) is OrderedDict  # merging stops at lists


def test_each_load_is_a_private_copy() -> None:
    chain = [("M", (encode_update({"a": [1]})[1][0],)), encode_update({"a": [2]})]
    first = load_chain(chain)
    first["a"].append("mine")
    assert load_chain(chain) == {"a": [1, 2]}


def test_what_is_sent_is_what_was_passed_when_it_was_passed() -> None:
    value = {"a": [1]}
    argument, update = dump_arguments({"x": value}), dump_updates({"x": value})
    value["a"].append(2)
    assert decode(argument) == decode(update) == {"x": {"a": [1]}}


def test_two_names_of_one_list_or_mapping_part_when_they_are_updated() -> None:
    row, tree = ["row"], {"leaves": [1]}
    base = load_names(dump_updates({"x": {"one": row, "two": row, "tree": tree, "same tree": tree}}))["x"]
    update = encode_update({"one": ["more"], "tree": {"leaves": [2]}})
    loaded = load_chain([base, update])
    assert (loaded["one"], loaded["two"]) == (["row", "more"], ["row"])
    assert loaded["same tree"] == {"leaves": [1]}


def test_objects_shared_within_a_list_stay_shared() -> None:
    row = ["row"]
    arrived = decode(dump_updates({"x": [row, row]}))["x"]
    assert arrived[0] is arrived[1]


def test_users_objects_are_opaque_in_skeletons() -> None:
    skeleton = load_skeleton(dump_skeleton({Color.RED: [Color.RED, 1j, Color, len]}))
    ((key, values),) = skeleton.items()
    assert all(type(part) is Opaque for part in (key, *values))
    assert key == values[0] != values[1]
    assert len({key, values[0]}) == 1


def test_deletions_name_what_they_delete() -> None:
    assert load_names(dump_deletions(["a", "b"])) == {"a": ("d", ()), "b": ("d", ())}


def test_names_carry_no_code() -> None:
    with pytest.raises(pickle.UnpicklingError, match="must not refer to"):
        load_names(pickle.dumps({"a": Color.RED}))


# -- what cannot be pickled ------------------------------------------------------------------------------

SELF_CONTAINED: dict[str, Any] = {}
SELF_CONTAINED["self"] = SELF_CONTAINED
UNPICKLABLE = [threading.Lock(), {"deep": {"in": threading.Lock()}}, [threading.Lock()], (n for n in ())]


@pytest.mark.parametrize("value", UNPICKLABLE, ids=["lock", "in mapping", "in list", "generator"])
@pytest.mark.parametrize(
    ("dump", "noun"), [(dump_arguments, "argument"), (dump_updates, "update"), (dump_assignments, "global")]
)
def test_what_cannot_be_pickled_is_named(dump: Any, noun: str, value: Any) -> None:
    with pytest.raises(EncodingError, match=f"{noun} 'guilty'.*cannot (be )?pickle") as caught:
        dump({"fine": 1, "guilty": value})
    assert isinstance(caught.value.__cause__, Exception)


@pytest.mark.parametrize("value", [SELF_CONTAINED, Broken(a=1)], ids=["contains itself", "raises"])
def test_mappings_that_cannot_be_read_are_named(value: Any) -> None:
    with pytest.raises(EncodingError, match="update 'guilty'"):
        dump_updates({"guilty": value})


# -- values of __main__ ----------------------------------------------------------------------------------

SENDER = """
import sys
from dataclasses import dataclass
from rigger_mp.encoding import dump_arguments, dump_updates

@dataclass
class Point:
    x: int
    def double(self):
        return Point(2 * self.x)

factor = 3
values = {"point": Point(2), "cls": Point, "scale": lambda n: n * factor, "nested": {"list": [Point(1)]}}
sys.stdout.buffer.write(dump_arguments(values) if sys.argv[1] == "arguments" else dump_updates(values))
"""


@pytest.mark.parametrize("what", ["arguments", "updates"])
def test_classes_and_lambdas_of_main_travel_by_value(what: str) -> None:
    command = [sys.executable, "-c", SENDER, what]
    arrived = decode(subprocess.run(command, check=True, capture_output=True, timeout=60).stdout)
    assert arrived["point"].double().x == 4
    assert arrived["scale"](5) == 15
    assert arrived["nested"]["list"][0].x == 1
    assert isinstance(arrived["cls"](1), arrived["cls"])


def test_closures_travel_by_value() -> None:
    offset = 10
    assert pickle.loads(dump_value(lambda n: n + offset))(1) == 11
