"""What changed since the engine started and a new dispatcher must be told again: callbacks, options, configure.

Changes are kept with their place in the order of events, so that an event that is sent again meets the
callbacks that it was fired with.
"""

from __future__ import annotations

from typing import Any

from rigger_mp.engine import messages as m

LEAST_KEPT = 64


class Changes:
    """Changes in their order; those that later ones undo are dropped when no pending event is older."""

    def __init__(self) -> None:
        self._kept: list[tuple[int, Any]] = []
        self._compact_at = LEAST_KEPT

    def add(self, turn: int, message: Any, oldest_pending: int | None) -> None:
        """Keep a change; ``turn`` is its place in the order, ``oldest_pending`` that of the oldest event."""
        self._kept.append((turn, message))
        if len(self._kept) >= self._compact_at:
            self._compact(turn + 1 if oldest_pending is None else oldest_pending)
            self._compact_at = max(LEAST_KEPT, 2 * len(self._kept))

    def all(self) -> list[tuple[int, Any]]:
        """Return the changes with their places in the order."""
        return sorted(self._kept, key=lambda entry: entry[0])

    def _compact(self, before: int) -> None:
        latest: dict[Any, tuple[int, Any]] = {}
        kept: list[tuple[int, Any]] = []
        for turn, message in self._kept:
            key = _key(message)
            if turn >= before or key is None:
                kept.append((turn, message))
            elif type(message) is m.Unbind:
                latest.pop(key, None)
            else:  # what takes another's place has the other's rank
                latest[key] = (latest.get(key, (turn, None))[0], message)
        self._kept = sorted([*latest.values(), *kept], key=lambda entry: entry[0])


def _key(message: Any) -> Any:
    match message:
        case m.Bind() | m.Unbind():
            return message.hook, message.stage, message.name
        case m.Option():
            return m.Option
    return None
