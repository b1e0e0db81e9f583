"""Every message crosses a process boundary unchanged, and carries no code."""

from __future__ import annotations

import marshal
import os
import pickle
from io import BytesIO
from typing import Any, get_type_hints

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rigger_mp.engine import messages as m
from rigger_mp.engine.dispatcher import _BytesUnpickler

PARTS = {"FailureRecord", "Result", "HostedFunction"}
CLASSES = [
    cls
    for name, cls in vars(m).items()
    if isinstance(cls, type) and issubclass(cls, tuple) and hasattr(cls, "_fields") and name not in PARTS
]
CHAIN = st.tuples(st.tuples(st.just("M"), st.tuples(st.binary(max_size=5))), st.integers() | st.none())
CHAINS = st.dictionaries(st.text(max_size=5), CHAIN, max_size=2)
ENTRY = st.lists(st.lists(st.binary(max_size=5), max_size=2).map(tuple), max_size=2).map(tuple)
DELTA = st.none() | st.tuples(st.just(False), st.tuples(ENTRY)) | st.tuples(st.just(True), CHAINS)
ANYTHING: dict[str, st.SearchStrategy[Any]] = {
    "delta": DELTA,
    "pinned": st.none() | CHAINS,
    "chains": CHAINS,
    "problems": st.just((("ident", "why"),)),
    "results": st.just((((b"", b"x", ("f", "hook", "E", "m", "", b""), 0.5), (b"", b"", None, 1e-6)),)),
    "functions": st.just((("id", "ident", "event", "label", ("a",), False, True),)),
}
BY_TYPE: dict[Any, st.SearchStrategy[Any]] = {
    int: st.integers(-(2**70), 2**70),
    str: st.text(st.characters(exclude_categories=[])),
    bytes: st.binary(max_size=20),
    bool: st.booleans(),
}


def values(cls: Any) -> st.SearchStrategy[Any]:
    nested = st.just((("nested", (b"1", 2)), ()))
    fields = {
        name: BY_TYPE.get(hint, ANYTHING.get(name, nested)) for name, hint in get_type_hints(cls).items()
    }
    return st.builds(cls, **fields)


def test_every_message_class_is_known_to_unpack() -> None:
    assert len(CLASSES) >= 20
    assert {cls.__name__ for cls in CLASSES} == set(m._CLASSES)


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_round_trip_of_each_class(cls: Any) -> None:
    @settings(max_examples=20, deadline=None)
    @given(st.lists(values(cls), max_size=3))
    def round_trip(messages: list[Any]) -> None:
        frame = m.pack(messages)
        for form in (frame, bytearray(frame), memoryview(frame)):
            unpacked = m.unpack(form)
            assert unpacked == messages
            assert [type(message) for message in unpacked] == [cls] * len(messages)

    round_trip()


def test_messages_of_many_classes_keep_their_order() -> None:
    messages = [m.Event(1, "hook", b""), m.Stop(0), m.Unbind(2, "h", "pre", "n"), m.Event(0, "hook", b"x")]
    assert m.unpack(m.pack(iter(messages))) == messages


def test_what_is_not_builtin_cannot_be_packed() -> None:
    with pytest.raises(ValueError, match="unmarshallable"):
        m.pack([m.Log(object())])  # type: ignore[arg-type]


def test_an_unknown_tag_is_an_error() -> None:
    with pytest.raises(KeyError):
        m.unpack(marshal.dumps([("Nonsense", ())]))


class Command:
    """What an attacker would put into a pickle."""

    def __reduce__(self) -> Any:
        return os.system, ("true",)


def test_the_dispatcher_opens_frames_of_bytes_and_runs_nothing() -> None:
    assert _BytesUnpickler(BytesIO(pickle.dumps(b"frame"))).load() == b"frame"
    with pytest.raises(pickle.UnpicklingError, match=r"must not carry builtins\.bytearray"):
        _BytesUnpickler(BytesIO(pickle.dumps(bytearray(b"frame")))).load()
    with pytest.raises(pickle.UnpicklingError, match=r"must not carry \w+\.system"):
        _BytesUnpickler(BytesIO(pickle.dumps(Command()))).load()
