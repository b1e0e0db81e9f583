"""What a function returned, checked and encoded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rigger_mp.encoding import dump_updates
from rigger_mp.errors import HookResultError

PAIR = 2


def encode_returned(function: str, returned: Any) -> tuple[bytes, bytes]:
    """Encode ``(local_updates, global_updates)``; ``b""`` stands for no updates.

    Raises:
        HookResultError: it is anything else.
        EncodingError: an update cannot be pickled.
    """
    if returned is None:
        return b"", b""
    if not isinstance(returned, tuple | list) or len(returned) != PAIR:
        raise HookResultError(
            f"{function} returned {_describe(returned)}; "
            "expected None or a pair (local_updates, global_updates), each None or a mapping"
        )
    local, updates = returned
    return _encode(function, "local", local), _encode(function, "global", updates)


def _encode(function: str, which: str, updates: Any) -> bytes:
    if updates is None:
        return b""
    if not isinstance(updates, Mapping):
        raise HookResultError(
            f"{function} returned {_describe(updates)} as its {which} updates; expected None or a mapping"
        )
    for name in updates:
        if not isinstance(name, str):
            raise HookResultError(
                f"{function} returned {which} updates with the name {name!r}; expected only strings as names"
            )
    return dump_updates(updates) if updates else b""


def _describe(value: Any) -> str:
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of {len(value)}"
    return f"a value of type {type(value).__name__}"
