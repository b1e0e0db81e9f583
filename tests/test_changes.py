"""What a new dispatcher is told again: no more than what still holds, in its order."""

from __future__ import annotations

from typing import Any

from rigger_mp.engine import messages as m
from rigger_mp.engine.changes import LEAST_KEPT, Changes


def bind(name: str, function: bytes = b"") -> m.Bind:
    return m.Bind(0, "hook", "pre", name, name, function, (), False)


def test_what_later_changes_undo_is_dropped_where_no_older_event_is_pending() -> None:
    changes = Changes()
    changes.add(1, m.Configure(0, "a", b"first"), None)
    changes.add(2, bind("kept", b"old"), None)
    changes.add(3, bind("removed"), None)
    changes.add(4, m.Unbind(0, "hook", "pre", "removed"), None)
    for turn in range(5, LEAST_KEPT):
        changes.add(turn, m.Option(0, bool(turn % 2)), None)
    assert len(changes.all()) == LEAST_KEPT - 1
    changes.add(LEAST_KEPT, bind("kept", b"new"), None)
    assert changes.all() == [
        (1, m.Configure(0, "a", b"first")),
        (2, bind("kept", b"new")),
        (5, m.Option(0, True)),
    ]


def test_what_a_pending_event_was_fired_after_is_kept() -> None:
    changes = Changes()
    options: list[tuple[int, Any]] = [(turn, m.Option(0, bool(turn % 2))) for turn in range(1, LEAST_KEPT + 1)]
    for turn, option in options:
        changes.add(turn, option, 10)
    assert changes.all() == [(1, options[8][1]), *options[9:]]
