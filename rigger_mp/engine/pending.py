"""What has been accepted and has not ended, in the order in which it was accepted."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, Protocol

from rigger_mp.engine import messages as m
from rigger_mp.engine.endings import Ended, Lost
from rigger_mp.engine.marks import Marks
from rigger_mp.engine.segments import Arguments


class Waiter(Protocol):
    """Who waits for an event; told on the results thread, so it must be quick and must not raise.

    A waiter may have an attribute ``reads``: whether its thread itself looks for the outcome, by
    :class:`~rigger_mp.engine.receiver.Receiver`.
    """

    def end(self, ending: Ended | Lost) -> None:
        """Take how the event ended."""


def reads(waiter: Waiter | None) -> bool:
    """Tell whether a waiter's thread looks for the outcome itself."""
    return bool(getattr(waiter, "reads", False))


class Pending(NamedTuple):
    """A message that ends in an outcome, and who waits for that."""

    message: Any
    waiter: Waiter | None

    @property
    def label(self) -> str:
        """What people call it by."""
        if type(self.message) is m.Reload:
            return "reload"
        return getattr(self.message, "hook", None) or getattr(self.message, "ident", None) or "global_data"

    @property
    def arguments(self) -> Arguments:
        """The encoded arguments of an event."""
        return (self.message.arguments, self.message.segments) if type(self.message) is m.Event else (b"", ())


class Call:
    """The waiter of one thread that does nothing else meanwhile."""

    __slots__ = ("_ended", "_ending")

    reads = True

    def __init__(self) -> None:
        self._ending: Ended | Lost | None = None
        self._ended = threading.Lock()
        self._ended.acquire()

    def end(self, ending: Ended | Lost) -> None:
        """Take how the event ended."""
        self._ending = ending
        self._ended.release()

    @property
    def has_ended(self) -> bool:
        """Whether it has ended."""
        return self._ending is not None

    def wait(self) -> Ended | Lost:
        """Wait until it has ended; return how it did."""
        self._ended.acquire()
        assert self._ending is not None
        return self._ending


class PendingTable:
    """Messages by token. Not locked: the engine is.

    A token says which of the ``size`` places a message has; while it is pending, no other has that. The
    whole part of token / size counts up, so that tokens are in the order of their messages.

    Args:
        size: how many messages may be pending.
        marks: where the events of places are marked as started.
    """

    def __init__(self, size: int, marks: Marks) -> None:
        self.size = size
        self._marks = marks
        self._entries: dict[int, Pending] = {}
        self._free: list[int] = []
        self._given = 0
        self._turns = itertools.count(1)

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def full(self) -> bool:
        """Whether there is no place left."""
        # Not by the entries: what is popped gives its place back a moment later, in another thread.
        return not self._free and self._given >= self.size

    def add(self, make: Callable[[int], Any], waiter: Waiter | None) -> Any:
        """Make a message, given its token, note it as pending, and return it; the table must not be full."""
        token = self.next_turn() * self.size + self._take_place()
        message = make(token)
        self._entries[token] = Pending(message, waiter)
        return message

    def _take_place(self) -> int:
        if self._free:
            return self._free.pop()
        self._given += 1
        return self._given - 1

    def next_turn(self) -> int:
        """Return the place in the order of whatever is sent next."""
        return next(self._turns)

    def turn(self, token: int) -> int:
        """Return the place in that order of a message."""
        return token // self.size

    def pop(self, token: int) -> Pending | None:
        """Take a message out, ``None`` if it is not pending."""
        pending = self._entries.pop(token, None)
        if pending is not None:
            self._free.append(token % self.size)
        return pending

    def pop_all(self, tokens: Iterable[int]) -> None:
        """Take messages out, those of them that are pending."""
        size, pop, free = self.size, self._entries.pop, self._free
        free += [token % size for token in tokens if pop(token, None) is not None]

    def take_all(self) -> list[Pending]:
        """Take everything out."""
        return [pending for token in list(self._entries) if (pending := self.pop(token)) is not None]

    def take_started(self) -> list[Pending]:
        """Take out what has started."""
        started = [token for token in self._entries if self._marks.has_started(token)]
        return [pending for token in started if (pending := self.pop(token)) is not None]

    def messages(self) -> list[Any]:
        """Return what is pending, in its order."""
        return [pending.message for pending in self._entries.values()]

    @property
    def oldest_turn(self) -> int | None:
        """The place in the order of the oldest message that is pending, ``None`` if none is."""
        for token in self._entries:
            return self.turn(token)
        return None
