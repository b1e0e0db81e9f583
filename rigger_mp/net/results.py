"""What the server remembers of clients' events: what became of them, and under which keys they were sent.

Everything here is used in the server's loop only, but for :meth:`Task.end`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from rigger_mp.engine.endings import Ended, Lost
from rigger_mp.errors import KeyReuseError, LimitError
from rigger_mp.net.limits import Limits
from rigger_mp.net.protocol import Request
from rigger_mp.net.strict_json import canonical


class Recipient(Protocol):
    """Who is told that a task has ended."""

    def task_ended(self, task: Task, reply_id: bytes, replies: bool) -> None:
        """Take an ended task; with ``replies``, its reply is to be sent."""

    def flush(self) -> None:
        """Send what is to be sent; called after some tasks."""


class Task:
    """An accepted event.

    Attributes:
        tid: its name for clients.
        request: the line that fired it.
        recipients: who waits, the ``id`` of its line, and whether it wants a reply.
        ending: how it ended, ``None`` before, and once ``body`` says it.
        body: the reply to who waited, once made, where it may be asked for again.
        direct: sends the reply to who waits at once, from any thread, or returns false; ``None``: it must not.
        sent: the reply that was sent so.
        reads: the loop looks for its end itself; see :mod:`rigger_mp.net.direct`.
        token: the engine's name for it, 0: the engine has not taken it.
        fired_at: when the engine was to take it, where ``direct`` is set.
    """

    __slots__ = (
        "_put", "body", "direct", "ended_at", "ending", "entry", "fired_at", "reads", "recipients", "request",
        "sent", "size", "tid", "token",
    )  # fmt: skip

    def __init__(self, tid: str, request: Request, put: Callable[[Task], None]) -> None:
        self.tid = tid
        self.request = request
        self.recipients: list[tuple[Recipient, bytes, bool]] = []
        self.ending: Ended | Lost | None = None
        self.body: bytes | None = None
        self.direct: Callable[[bytes], bool] | None = None
        self.sent: bytes | None = None
        self.reads = False
        self.token = 0
        self.fired_at = 0.0
        self.entry: KeyEntry | None = None
        self.ended_at = 0.0
        self.size = 0
        self._put = put

    @property
    def ended(self) -> bool:
        """Whether it has ended."""
        return self.ending is not None or self.body is not None

    def take_token(self, token: int) -> None:
        """Take the engine's name for it."""
        self.token = token

    def end(self, ending: Ended | Lost) -> None:
        """Take how the event ended; called on the engine's results thread."""
        self.ending = ending
        self._put(self)


class TaskStore:
    """Tasks by name: all that have not ended, and the latest of those that have.

    Args:
        limits: how many, how long, how large.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._running: dict[str, Task] = {}
        self._ended: OrderedDict[str, Task] = OrderedDict()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._running) + len(self._ended)

    def add(self, task: Task) -> None:
        """Remember a task that runs."""
        self._running[task.tid] = task

    def find(self, tid: str) -> Task | None:
        """Return a task, ``None`` if there is none of that name."""
        return self._running.get(tid) or self._ended.get(tid)

    def end(self, task: Task, now: float) -> None:
        """Move a task to those that have ended."""
        if self._running.pop(task.tid, None) is None:
            return  # its client has forgotten it
        task.ended_at = now
        task.size = task.ending.size if task.ending is not None else 0
        self._bytes += task.size
        self._ended[task.tid] = task
        while len(self._ended) > self._limits.results or self._bytes > self._limits.kept_bytes:
            self.forget(next(iter(self._ended)))

    def forget(self, tid: str) -> None:
        """Forget a task; if it runs, it goes on."""
        self._running.pop(tid, None)
        task = self._ended.pop(tid, None)
        if task is not None:
            self._bytes -= task.size

    def expire(self, now: float) -> float | None:
        """Forget what is too old; returns when the next will be, ``None`` if there is none."""
        while self._ended:
            oldest = next(iter(self._ended.values()))
            if oldest.ended_at + self._limits.results_time > now:
                return oldest.ended_at + self._limits.results_time
            self.forget(oldest.tid)
        return None


@dataclass(slots=True)
class KeyEntry:
    """An event that was accepted under a key.

    Attributes:
        digest: of the event; the same for the same event.
        task: the task, ``None`` where nobody waited for it.
        kept: bytes of its reply.
    """

    digest: int
    tid: str
    task: Task | None
    accepted_at: float
    kept: int = 0


class KeyWindow:
    """Idempotency keys used within the last while, oldest first.

    Args:
        limits: how many, how long, how many bytes of replies.
        forgotten: called with the name of a task whose key is remembered no more.
    """

    def __init__(self, limits: Limits, forgotten: Callable[[str], None]) -> None:
        self._limits = limits
        self._forgotten = forgotten
        self._entries: OrderedDict[str, KeyEntry] = OrderedDict()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    def find(self, request: Request, now: float) -> KeyEntry | None:
        """Return the entry of the same event sent before, ``None`` if the key is new.

        Raises:
            KeyReuseError: the key was used for another event.
            LimitError: it is new, and no further key can be remembered.
        """
        self.expire(now)
        entry = self._entries.get(request.key)
        if entry is None:
            if len(self._entries) >= self._limits.idempotency_keys:
                raise LimitError(
                    f"{len(self._entries)} keys are remembered (server_idempotency_keys); "
                    "send the event later, or without key"
                )
            return None
        if entry.digest != digest(request):
            raise KeyReuseError(f"key {request.key!r} was used for another event")
        return entry

    def add(self, request: Request, task: Task, now: float) -> None:
        """Remember the key of an event that was accepted."""
        entry = KeyEntry(digest(request), task.tid, task if request.wait else None, now)
        task.entry = entry
        self._entries[request.key] = entry

    def keep(self, task: Task, body: bytes) -> bool:
        """Keep the reply to an event while its key is remembered, and let go of its namespaces.

        Returns:
            Whether it is kept, and was not before.
        """
        entry = task.entry
        if entry is None or entry.kept or self._entries.get(task.request.key) is not entry:
            return False
        task.body, task.ending = body, None
        entry.task, entry.kept = task, len(body)
        self._bytes += len(body)
        if self._bytes > self._limits.kept_bytes:
            self._drop_replies()
        return True

    def _drop_replies(self) -> None:
        for entry in self._entries.values():
            if entry.kept:
                self._bytes -= entry.kept
                entry.task, entry.kept = None, 0
            if self._bytes <= self._limits.kept_bytes:
                return

    def forget(self, key: str) -> None:
        """Forget a key."""
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._bytes -= entry.kept
            self._forgotten(entry.tid)

    def expire(self, now: float) -> float | None:
        """Forget what is too old; returns when the next will be, ``None`` if there is none."""
        while self._entries:
            key, entry = next(iter(self._entries.items()))
            if entry.accepted_at + self._limits.idempotency_time > now:
                return entry.accepted_at + self._limits.idempotency_time
            self.forget(key)
        return None


def digest(request: Request) -> int:
    """Return what is equal for equal events, whatever the order of their arguments; in this process only."""
    data = request.data or {}
    arguments: object
    try:
        arguments = frozenset(zip(data, data.values(), map(type, data.values()), strict=True))
    except TypeError:  # a container among them
        arguments = canonical(data)
    return hash((request.hook, request.grab, request.wait, request.results, arguments))
