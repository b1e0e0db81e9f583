"""What a host remembers of globals: always what decoding them would give, and always a private copy."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rigger_mp.encoding import encode_assignment, encode_update
from rigger_mp.engine import replica as replica_module
from rigger_mp.engine.replica import Replica, copy_containers, is_simple
from rigger_mp.namespace import Namespace

LEAVES = st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=2) | st.tuples(st.integers(0, 1))
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3)
)
NAMES = st.sampled_from(["x", "y"])
STEPS = st.one_of(
    st.tuples(st.just("merge"), NAMES, VALUES),
    st.tuples(st.just("assign"), NAMES, VALUES),
    st.tuples(st.just("delete"), NAMES, st.none()),
    st.tuples(st.just("read"), NAMES, st.none()),
)


def spoil(value: Any) -> None:
    """Change a value everywhere it can be changed."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for part in list(inner):
        spoil(part)
    if isinstance(value, dict):
        value["spoiled"] = True
    elif isinstance(value, list):
        value.append("spoiled")


def encode(kind: str, value: Any) -> Any:
    return {"merge": encode_update, "assign": encode_assignment, "delete": lambda _: ("d", ())}[kind](value)


@given(st.lists(STEPS, max_size=30), st.sampled_from(["extend", "replace"]))
def test_what_is_remembered_is_what_decoding_gives(steps: list[Any], list_merge: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(replica_module, "SMALLEST", 0)
        replica, plain = Replica(list_merge), Namespace(list_merge)
        for kind, name, value in steps:
            if kind == "read":
                assert (name in replica) is (name in plain)
                if name in plain:
                    assert replica.load(name) == plain.load(name)
                    spoil(replica.load(name))
                continue
            update = {name: encode(kind, value)}
            replica.commit(update)
            plain.commit(update)
        assert {name: replica.load(name) for name in replica} == {name: plain.load(name) for name in plain}


def test_only_plain_trees_are_remembered() -> None:
    shared: list[int] = []
    assert is_simple({"a": [1, {"b": None}], "c": "text"})
    assert not is_simple({"a": shared, "b": shared}), "a copy would make two of it"
    assert not is_simple({"a": (1, [2])}), "what is inside a tuple may be mutable"
    assert not is_simple({(1, 2): 3})
    assert not is_simple({"a": {1}})
    assert not is_simple("text")
    endless: list[Any] = []
    for _ in range(100_000):
        endless = [endless]
    assert not is_simple(endless)


def test_a_large_value_that_is_read_again_is_decoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    replica = Replica()
    replica.commit({"table": encode_update({"rows": {str(n): n for n in range(2000)}})})
    assert replica.load("table") == replica.load("table")
    monkeypatch.setattr(replica_module.Namespace, "load", lambda *_: pytest.fail("decoded again"))
    replica.commit({"table": encode_update({"rows": {"new": 1}})})
    value = replica.load("table")
    assert value["rows"]["new"] == 1
    assert len(value["rows"]) == 2001


def test_a_value_that_nobody_reads_any_more_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replica_module, "MOST_UPDATES", 10)
    replica = Replica()
    replica.commit({"table": encode_update({str(n): n for n in range(2000)})})
    replica.load("table"), replica.load("table")
    for n in range(20):
        replica.commit({"table": encode_update({f"new {n}": n})})
    assert not replica._remembered
    assert len(replica.load("table")) == 2020


def test_a_copy_shares_no_container() -> None:
    value = {"a": [1, {"b": [2]}], "c": {}}
    copy = copy_containers(value)
    spoil(copy)
    assert value == {"a": [1, {"b": [2]}], "c": {}}
