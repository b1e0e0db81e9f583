"""Lines and replies as pure functions: whatever comes in, it is understood or refused, and in linear time."""

from __future__ import annotations

import json
import math
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rigger_mp import HookError
from rigger_mp.errors import Failure, LimitError, ProtocolError
from rigger_mp.net import protocol
from rigger_mp.net.calls import Call, RemoteFuture, error_of
from rigger_mp.net.lines import LineSplitter, LineTooLong
from rigger_mp.net.protocol import RefusedLine, parse_line
from rigger_mp.net.strict_json import JsonError, canonical, dump_any, dump_json, parse_json

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)

HOSTILE = {
    "truncated": (b'{"hook_name": "sum", "da', "not JSON"),
    "binary": (bytes(range(1, 256)).replace(b"\n", b""), "UTF-8"),
    "latin-1": ('{"hook_name": "caf\xe9"}'.encode("latin-1"), "UTF-8"),
    "deep array": (b"[" * 100_000, "nested"),
    "deep object": (b'{"a":' * 100_000, "nested"),
    "deep and closed": (b"[" * 65 + b"]" * 65, "nested"),
    "NaN": (b'{"hook_name": "sum", "data": {"a": NaN}}', "NaN"),
    "infinity": (b'{"hook_name": "sum", "data": {"a": -Infinity}}', "Infinity"),
    "1e999": (b'{"hook_name": "sum", "data": {"a": 1e999}}', "too large"),
    "long float": (b'{"hook_name": "sum", "data": {"a": 1.' + b"0" * 5000 + b"}}", "too large"),
    "5,000 digits": (b'{"hook_name": "sum", "data": {"a": ' + b"1" * 5000 + b"}}", "digits"),
    "duplicate key": (b'{"hook_name": "sum", "hook_name": "other"}', "duplicate key 'hook_name'"),
    "duplicate inside": (b'{"hook_name": "sum", "data": {"a": [{"b": 1, "b": 1}]}}', "duplicate key 'b'"),
    "lone surrogate": (b'{"hook_name": "\\ud800"}', "surrogate"),
    "lone low surrogate": (b'{"hook_name": "sum", "data": {"\\udfff": 1}}', "surrogate"),
    "unterminated escapes": (b'"' + b'\\"' * 500_000, "not JSON"),
    "brackets in a string": (b'{"hook_name": "' + b"[" * 100_000 + b'"}', "hook_name"),
    "byte order mark": (b'\xef\xbb\xbf{"hook_name": "sum"}', "not JSON"),
    "no object": (b'["hook_name"]', "not a JSON object"),
    "a number": (b"1", "not a JSON object"),
    "no hook": (b"{}", "hook_name is missing"),
    "two objects": (b'{"hook_name": "sum"} {}', "not JSON"),
    "control characters": (b'{"hook_name": "a\x00b"}', "not JSON"),
}

WRONG: Any = (None, True, 0, 1.5, "", "text", [], [1], {}, {"a": 1})


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_lines_are_refused_with_a_reason_and_quickly(name: str) -> None:
    line, reason = HOSTILE[name]
    start = time.perf_counter()
    with pytest.raises(RefusedLine) as refused:
        parse_line(line, 64)
    assert time.perf_counter() - start < 1.0
    assert reason in str(refused.value)
    reply = json.loads(protocol.reply_line(refused.value.reply_id, protocol.error_body(refused.value.error)))
    assert (reply["message"], reply["error"]["type"]) == ("ERROR", "ProtocolError")
    assert len(str(reply)) < 1000


@pytest.mark.parametrize("value", [b"NaN", b"1e999", b"1" * 5000, b'{"b": 1, "b": 1}', b'"\\ud800"'])
def test_a_refused_line_that_can_be_read_keeps_its_id(value: bytes) -> None:
    with pytest.raises(RefusedLine) as refused:
        parse_line(b'{"hook_name": "sum", "data": {"a": ' + value + b'}, "id": 7}', 64)
    assert refused.value.reply_id == b"7"


@given(st.binary(max_size=200))
def test_any_bytes_are_understood_or_refused(line: bytes) -> None:
    try:
        request = parse_line(line, 64)
    except RefusedLine as refused:
        assert isinstance(refused.error, ProtocolError)
    else:
        assert request.event in protocol._FIELDS


@given(json_values)
def test_any_json_is_understood_or_refused(value: Any) -> None:
    try:
        parse_line(json.dumps(value).encode(), 64)
    except RefusedLine as refused:
        assert isinstance(refused.error, ProtocolError)


@given(
    st.sampled_from(sorted(protocol._FIELDS)),
    st.dictionaries(st.sampled_from(sorted(frozenset().union(*protocol._FIELDS.values()))), json_values, max_size=4),
)
def test_wrong_types_anywhere_are_refused_or_understood(event: str, fields: dict[str, Any]) -> None:
    line = json.dumps({"event_name": event, "id": 5, **fields}).encode()
    try:
        request = parse_line(line, 64)
    except RefusedLine as refused:
        assert refused.reply_id == b"5"
        assert isinstance(refused.error, ProtocolError)
    else:
        assert request.event == event
        assert fields.keys() <= protocol._FIELDS[event]
        assert isinstance(request.hook, str)
        assert request.data is None or isinstance(request.data, dict)


@pytest.mark.parametrize("field", ["hook_name", "data", "grab_result", "wait_for_task", "results", "key", "event_name"])
def test_every_wrong_type_of_every_field_names_the_field(field: str) -> None:
    right: dict[str, Any] = {
        "hook_name": ("text",),
        "data": (None, {}, {"a": 1}),
        "grab_result": (None, True),
        "wait_for_task": (None, True),
        "results": (None, []),
        "key": (None, "text"),
        "event_name": (),
    }
    for value in WRONG:
        line = json.dumps({"hook_name": "sum", field: value}).encode()
        if any(type(value) is type(good) and value == good for good in right[field]):
            parse_line(line, 64)
            continue
        with pytest.raises(RefusedLine, match=field):
            parse_line(line, 64)


@given(json_values)
def test_the_id_comes_back_as_it_was(value: Any) -> None:
    request = parse_line(json.dumps({"hook_name": "sum", "id": value}).encode(), 64)
    reply = json.loads(protocol.reply_line(request.reply_id, protocol.accepted_body("t-1")))
    assert reply == {"id": value, "message": "OK", "tid": "t-1"}


def test_unknown_fields_are_named() -> None:
    with pytest.raises(RefusedLine, match='unknown field "grab_results" of fire_hook'):
        parse_line(b'{"hook_name": "sum", "grab_results": true}', 64)


def test_the_pages_example() -> None:
    page = b'{"hook_name": "start_session", "data": {"arg1": "value1", "arg2": "value2"}}'
    request = parse_line(page, 64)
    assert (request.event, request.hook) == ("fire_hook", "start_session")
    assert request.data == {"arg1": "value1", "arg2": "value2"}
    assert (request.grab, request.wait, request.reply_id) == (False, False, b"")


def test_results_imply_grabbing_and_grabbing_implies_waiting() -> None:
    request = parse_line(b'{"hook_name": "sum", "results": ["a"]}', 64)
    assert (request.grab, request.wait, request.results) == (True, True, ("a",))


@given(json_values)
def test_strict_reading_agrees_with_pythons_where_it_accepts(value: Any) -> None:
    text = json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")
    try:
        assert parse_json(text, 64) == json.loads(text)
    except JsonError as error:
        assert "surrogate" in str(error) or "UTF-8" in str(error) or "digits" in str(error)


@given(st.integers(1, 80), st.sampled_from(["[", '{"k":']))
def test_nesting_is_counted_exactly(depth: int, opening: str) -> None:
    text = (opening * depth + "1" + ("]" if opening == "[" else "}") * depth).encode()
    if depth <= 64:
        parse_json(text, 64)
    else:
        with pytest.raises(JsonError, match="nested"):
            parse_json(text, 64)


@given(json_values, json_values)
def test_equal_values_are_written_alike_and_others_not(one: Any, other: Any) -> None:
    same = json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
    assert (canonical(one) == canonical(other)) == same


# -- writing --------------------------------------------------------------------------------------------------


class Rude:
    def __repr__(self) -> str:
        raise RuntimeError("no")


anything = st.recursive(
    json_values
    | st.floats()
    | st.binary()
    | st.complex_numbers()
    | st.text(st.characters())
    | st.builds(Rude)
    | st.integers(10**4999, 10**5000),
    lambda inner: st.lists(inner, max_size=3)
    | st.tuples(inner, inner)
    | st.dictionaries(st.none() | st.integers() | st.text() | st.tuples(st.integers()), inner, max_size=3),
    max_leaves=10,
)


@given(anything)
def test_every_value_can_be_written(value: Any) -> None:
    text = dump_any(value)
    assert b"\n" not in text
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} was written"))


def test_what_json_cannot_express_becomes_its_repr_at_its_place() -> None:
    cyclic: list[Any] = [1]
    cyclic.append(cyclic)
    written = json.loads(dump_any({"nan": math.nan, "set": {1}, "ok": [1, (2,)], ("a",): 1, "rude": Rude()}))
    assert written["nan"] == "nan"
    assert written["set"] == "{1}"
    assert written["ok"] == [1, [2]]
    assert written["('a',)"] == 1
    assert "Rude" in written["rude"]
    assert json.loads(dump_any(cyclic))[0] == 1


def test_clients_do_not_send_what_json_cannot_express() -> None:
    for value in (math.nan, {1}, "\ud800", 10**5000):
        with pytest.raises(JsonError):
            dump_json({"value": value})


# -- lines ----------------------------------------------------------------------------------------------------


def split(chunks: list[bytes], limit: int) -> list[bytes | None]:
    splitter = LineSplitter()
    lines: list[bytes | None] = []
    for chunk in [*chunks, None]:
        if chunk is None:
            splitter.finish()
        else:
            splitter.append(chunk)
        while True:
            try:
                line = splitter.next(limit)
            except LineTooLong:
                lines.append(None)
                continue
            if line is None:
                break
            lines.append(line)
    return lines


@given(st.lists(st.binary(max_size=30)), st.integers(1, 20))
def test_lines_do_not_depend_on_how_they_arrive(chunks: list[bytes], limit: int) -> None:
    whole = b"".join(chunks).split(b"\n")
    expected = [line if len(line) <= limit else None for line in whole if len(line) > limit or line.strip()]
    assert split(chunks, limit) == expected


def test_a_line_without_end_is_not_gathered() -> None:
    splitter = LineSplitter()
    refused = 0
    for _ in range(1000):
        splitter.append(b"x" * 10_000)
        try:
            assert splitter.next(1_000_000) is None
        except LineTooLong:
            refused += 1
        assert len(splitter._buffer) <= 1_010_000
    assert refused == 1


def test_a_dribbled_line_is_searched_once() -> None:
    splitter = LineSplitter()
    start = time.perf_counter()
    for _ in range(300_000):
        splitter.append(b"x")
        assert splitter.next(1_048_576) is None
    assert time.perf_counter() - start < 10


# -- errors there and back ------------------------------------------------------------------------------------


def test_errors_arrive_as_what_they_were() -> None:
    failure = Failure("adder.add", "hook", "ValueError", "no", "Traceback: no", ValueError("no"))
    error = error_of(json.loads(protocol.error_body(HookError("add", [failure]), "t-1")), "add")
    assert isinstance(error, HookError)
    assert error.hook == "add"
    assert error.failures[0][:5] == failure[:5]
    assert "Traceback: no" in str(error)
    assert isinstance(error_of(json.loads(protocol.error_body(LimitError("full"))), ""), LimitError)
    unknown = error_of({"message": "ERROR", "error": {"type": "Exotic", "message": "m"}}, "")
    assert str(unknown) == "Exotic: m"


@pytest.mark.parametrize("reply", [{}, {"message": "ERROR"}, {"message": "ERROR", "error": 1}, {"message": 3}])
def test_a_client_survives_replies_that_make_no_sense(reply: dict[str, Any]) -> None:
    call: Call[RemoteFuture] = Call(RemoteFuture(), quiet=False)
    call.encode_event("sum", {}, grab=True, wait=False)
    call.take(reply)
    assert isinstance(call.future.exception(), ProtocolError)


def test_other_protocols_are_told_apart() -> None:
    assert "HTTP" in protocol.greeting(b"GET / HTTP/1.1\r\n")
    assert "TLS" in protocol.greeting(b"\x16\x03\x01\x02\x00")
    assert protocol.greeting(b'{"hook_name": "GET "}') == ""
