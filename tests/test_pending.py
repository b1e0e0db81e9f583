"""The table of what has been accepted and has not ended."""

from __future__ import annotations

from typing import Any

from rigger_mp.engine import messages as m
from rigger_mp.engine.marks import Marks
from rigger_mp.engine.pending import PendingTable


def event(token: int) -> m.Event:
    return m.Event(token, "hook", b"")


def test_it_is_full_until_a_place_is_free_again() -> None:
    marks = Marks(2)
    table = PendingTable(2, marks)

    class Places(list[int]):
        def append(self, place: int) -> None:
            # What another thread would see now: nothing to take, though an entry less.
            seen.append((len(table), table.full))
            super().append(place)

    seen: list[Any] = []
    table._free = Places()
    first, _ = table.add(event, None), table.add(event, None)
    assert table.full
    assert table.pop(first.token) is not None
    assert seen == [(1, True)]
    assert not table.full
    third = table.add(event, None)
    assert third.token % 2 == first.token % 2
    assert third.token > first.token
    assert table.pop(first.token) is None
    marks.close()


def test_what_is_popped_at_once_gives_each_place_back_once() -> None:
    marks = Marks(3)
    table = PendingTable(3, marks)
    first, second, third = (table.add(event, None).token for _ in range(3))
    table.pop_all((third, first, third, first + 3))
    assert [message.token for message in table.messages()] == [second]
    fourth, fifth = (table.add(event, None).token for _ in range(2))
    assert {fourth % 3, fifth % 3} == {first % 3, third % 3}
    assert table.full
    marks.close()
