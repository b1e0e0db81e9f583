"""JSON, read strictly within bounds and written whatever the value.

Reading refuses what Python's parser lets through and others would not, or would read otherwise: ``NaN``,
``1e999``, duplicate keys, lone surrogates. Depth is measured before parsing, so that no input can exhaust the
parser's stack, and every step takes time linear in the length of the text.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

MAX_DIGITS = 1000
"""Most digits of a number that is read: converting takes time that grows with their square."""
MAX_DEPTH_WRITTEN = 64
"""Containers nested deeper than this are written as their ``repr``."""

# A string that is not terminated reaches to the end: so no character is looked at twice.
_STRING_OR_BRACKET = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|[\[{]|[\]}]', re.DOTALL)
_OPENING, _CLOSING = b"[{", b"]}"


class JsonError(ValueError):
    """Raised when a text is not JSON, or is beyond the bounds; the message says which."""


def parse_json(data: bytes, max_nesting: int) -> Any:
    """Return the value of a JSON text.

    Args:
        data: the text, UTF-8.
        max_nesting: how deep objects and arrays may contain each other.

    Raises:
        JsonError: see the class.
    """
    check_nesting(data, max_nesting)
    try:
        text = data.decode()
        value = _parse_simple(text) if len(data) <= MAX_DIGITS else None
        if value is None:
            value = _decode(text)
    except UnicodeDecodeError as error:
        raise JsonError(f"not UTF-8 (byte {error.start})") from None
    except JsonError:
        raise
    except ValueError as error:
        raise JsonError(f"not JSON: {error}") from None
    if b"\\u" in data:
        _refuse_lone_surrogates(value)
    return value


def read_field(data: bytes, name: str, max_nesting: int, default: Any) -> Any:
    """Return a field of an object that :func:`parse_json` may have refused, if it can be read all the same."""
    try:
        check_nesting(data, max_nesting)
        value = _decode_leniently(data.decode())
    except ValueError:
        return default
    return value.get(name, default) if type(value) is dict else default


def check_nesting(data: bytes, max_nesting: int) -> None:
    """Check how deep brackets outside strings are nested.

    Raises:
        JsonError: deeper than ``max_nesting``.
    """
    if data.count(b"{") + data.count(b"[") <= max_nesting:
        return
    depth = 0
    for match in _STRING_OR_BRACKET.finditer(data):
        character = data[match.start()]
        if character in _OPENING:
            depth += 1
            if depth > max_nesting:
                raise JsonError(f"nested more than {max_nesting} levels deep")
        elif character in _CLOSING:
            depth -= 1


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    mapping = dict(pairs)
    if len(mapping) != len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise JsonError(f"duplicate key {name[:100]!r}")
            seen.add(name)
    return mapping


def _integer(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise JsonError(f"a number of more than {MAX_DIGITS} digits")
    return int(text)


def _float(text: str) -> float:
    value = float(text) if len(text) <= MAX_DIGITS else math.inf
    if math.isinf(value):
        raise JsonError(f"the number {text[:40]} is too large")
    return value


def _constant(text: str) -> Any:
    raise JsonError(f"{text} is not JSON")


def _parse_simple(text: str) -> dict[str, Any] | None:
    """Return the object that a short text is, several times as fast as usual; ``None``: look closer."""
    try:
        value, end = _scan(text, 0)
    except StopIteration:
        return None
    # As many colons as keys: none of them is a duplicate. Otherwise some may be, or a string has colons.
    if type(value) is not dict or text.count(":") != _count_keys(value) or text[end:].strip(_SPACE):
        return None
    return value


def _count_keys(value: Any) -> int:
    number = len(value) if type(value) is dict else 0
    for item in value.values() if type(value) is dict else value:
        if type(item) in _CONTAINERS:
            number += _count_keys(item)
    return number


_CONTAINERS = frozenset({dict, list})
_SPACE = " \t\r\n"
_scan = json.JSONDecoder(parse_float=_float, parse_constant=_constant).scan_once  # type: ignore[attr-defined]  # typeshed leaves it out
_decode = json.JSONDecoder(
    object_pairs_hook=_unique, parse_int=_integer, parse_float=_float, parse_constant=_constant
).decode


_decode_leniently = json.JSONDecoder(parse_int=lambda text: int(text) if len(text) <= MAX_DIGITS else None).decode


def _refuse_lone_surrogates(value: Any) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise JsonError("a lone surrogate (\\ud800 to \\udfff without its other half)") from None


def dump_json(value: Any) -> bytes:
    """Return the JSON text of a value that is JSON already; UTF-8, one line.

    Raises:
        JsonError: it is not: the message says what JSON cannot express.
    """
    try:
        return "".join(_encode_parts(value, 0)).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise JsonError(f"JSON cannot express it: {error}") from None


def dump_any(value: Any) -> bytes:
    """Return a JSON text of any value; never fails.

    What JSON cannot express becomes its ``repr``, at its place: NaN and infinities, strings with lone
    surrogates, keys that are no strings, numbers, booleans or null, containers nested too deep, and every
    object that is no builtin. Tuples become arrays; integers that Python refuses to write, hexadecimal text.
    """
    try:
        return _encode_lenient(value).encode()
    except Exception:  # noqa: BLE001 - reprs run user code
        return _encode_strict(_expressible(value, 0)).encode()


def _represent(value: object) -> str:
    """Return a ``repr`` that UTF-8 can express."""
    try:
        return repr(value).encode("utf-8", "backslashreplace").decode()
    except BaseException:  # noqa: BLE001 - a repr is user code
        return f"<{type(value).__name__} without a repr>"


def _expressible(value: Any, depth: int) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return _expressible_scalar(value)
    if depth < MAX_DEPTH_WRITTEN:
        if isinstance(value, dict):
            return {_expressible_key(key): _expressible(item, depth + 1) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [_expressible(item, depth + 1) for item in value]
    return _represent(value)


def _expressible_scalar(value: Any) -> Any:
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            return _represent(value)
    elif isinstance(value, float) and not math.isfinite(value):
        return _represent(value)
    elif isinstance(value, int) and value.bit_length() > 3 * MAX_DIGITS:
        return hex(value)
    return value


def _expressible_key(key: Any) -> Any:
    if key is None or isinstance(key, bool | int | float | str):
        return _expressible_scalar(key)
    return _represent(key)


def _refuse(value: object) -> Any:
    raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable")


def _make_encoder() -> Any:
    """Return what ``JSONEncoder.encode`` makes anew for each value, which takes longer than using it."""
    make = json.encoder.c_make_encoder  # type: ignore[attr-defined]  # typeshed leaves it out
    if make is None:
        return lambda value, _level: (_encode_strict(value),)
    return make(None, _refuse, json.encoder.encode_basestring, None, ":", ",", False, False, False)


_encode_strict = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode
_encode_canonical = json.JSONEncoder(sort_keys=True, separators=(",", ":")).encode
_encode_lenient = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_represent
).encode
_encode_parts = _make_encoder()


def canonical(parts: Any) -> bytes:
    """Return a text that is equal for equal JSON values, whatever the order of their keys."""
    return _encode_canonical(parts).encode()
