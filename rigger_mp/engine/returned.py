"""What a function returned, checked and encoded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rigger_mp.encoding import Encoded, dump_local_updates, encode_updates, is_plain
from rigger_mp.engine.segments import Arguments, dump_with_segment
from rigger_mp.errors import HookResultError

PAIR = 2
_PAIRS = (tuple, list)
_NOTHING: Arguments = (b"", ())


def encode_returned(function: str, returned: Any) -> tuple[Arguments, dict[str, Encoded]]:
    """Encode ``(local_updates, global_updates)``, the former whole, ``b""`` if there are none; the latter by name.

    Large local updates go into a segment. Updates of globals do not: they outlive every event.

    Raises:
        HookResultError: it is anything else.
        EncodingError: an update cannot be pickled.
    """
    if (type(returned) is not tuple and not isinstance(returned, _PAIRS)) or len(returned) != PAIR:
        raise HookResultError(
            f"{function} returned {_describe(returned)}; "
            "expected None or a pair (local_updates, global_updates), each None or a mapping"
        )
    local, updates = returned
    if local is None and type(updates) is dict and is_plain(updates):
        return _NOTHING, updates.copy()
    encoded = _NOTHING
    if local is not None and _has_names(function, "local", local):
        encoded = dump_with_segment(dump_local_updates, local)
    if updates is None or not _has_names(function, "global", updates):
        return encoded, {}
    return encoded, encode_updates(updates)


def _has_names(function: str, which: str, updates: Any) -> bool:
    """Check updates, and tell whether there are any.

    Raises:
        HookResultError: they are no updates.
    """
    if type(updates) is not dict and not isinstance(updates, Mapping):
        raise HookResultError(
            f"{function} returned {_describe(updates)} as its {which} updates; expected None or a mapping"
        )
    for name in updates:
        if type(name) is not str and not isinstance(name, str):
            raise HookResultError(
                f"{function} returned {which} updates with the name {name!r}; expected only strings as names"
            )
    return bool(updates)


def _describe(value: Any) -> str:
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of {len(value)}"
    return f"a value of type {type(value).__name__}"
