"""What the connections of a server share: firing events, hearing of their ends, and what is remembered of them."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import secrets
from asyncio import AbstractEventLoop
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from rigger_mp.encoding import dump_arguments
from rigger_mp.engine.pending import Waiter
from rigger_mp.errors import LimitError, NotRunningError
from rigger_mp.net import protocol
from rigger_mp.net.bodies import BodyMaker
from rigger_mp.net.limits import Limits
from rigger_mp.net.outbox import EndedReply
from rigger_mp.net.results import KeyWindow, Recipient, Task, TaskStore
from rigger_mp.net.security import Security
from rigger_mp.net.strict_json import dump_any

if TYPE_CHECKING:
    from rigger_mp.net.connection import Connection


@dataclass(frozen=True)
class Backend:
    """The engine, as the server needs it.

    Attributes:
        try_submit: fires a hook if there is room; returns whether there was.
        when_room: calls a function when there may be room.
        stats: the statistics; may wait.
        terminate: ends the program's server and engine; must return at once.
        log: takes a message for the user.
    """

    try_submit: Callable[[str, bytes, Waiter], bool]
    when_room: Callable[[Callable[[], None]], None]
    stats: Callable[[], dict[str, Any]]
    terminate: Callable[[], None]
    log: Callable[[str], None]


class Service:
    """See the module; used in the server's loop.

    Args:
        backend: the engine.
        limits: of the server.
        security: of the server.
        loop: the server's loop.
    """

    def __init__(self, backend: Backend, limits: Limits, security: Security, loop: AbstractEventLoop) -> None:
        self.backend = backend
        self.limits = limits
        self.security = security
        self.bodies = BodyMaker(loop)
        self.room = Room(backend, loop)
        self.stopping = False
        self._loop = loop
        self._run = secrets.token_hex(4)
        self._numbers = itertools.count(1)
        self._tasks = TaskStore(limits)
        self._keys = KeyWindow(limits)
        self._inbox: deque[Task] = deque()
        self._woken = False
        self._expiry: asyncio.TimerHandle | None = None
        self._stats_askers: list[tuple[Connection, bytes]] = []

    # -- firing ------------------------------------------------------------------------------------------

    def fire(self, request: protocol.Request, connection: Connection) -> bool:
        """Fire an event and reply, now or when it has ended; returns false if there is no room for it.

        Raises:
            RiggerError: it is refused.
        """
        if self.stopping:
            raise NotRunningError(
                "the server is stopping: the event was not accepted, send it to another one, or later"
            )
        if request.key and self._repeat(request, connection):
            return True
        task = Task(f"{self._run}-{next(self._numbers)}", request, self._hear)
        task.recipients.append((connection, request.reply_id, request.wait))
        if not self.backend.try_submit(request.hook, dump_arguments(request.data or {}), task):
            return False
        self._tasks.add(task)
        if request.key:
            self._keys.add(request, task, self._loop.time())
        request.data = None  # the engine has it
        connection.under_way += 1
        if not request.wait:
            connection.reply(request.reply_id, protocol.accepted_body(task.tid))
        return True

    def _repeat(self, request: protocol.Request, connection: Connection) -> bool:
        """Reply to an event that was sent before under the same key; returns whether it was."""
        entry = self._keys.find(request, self._loop.time())
        if entry is None:
            return False
        task = entry.task
        if not request.wait:
            connection.reply(request.reply_id, protocol.accepted_body(entry.tid))
        elif task is None:
            error = LimitError("the event has ended, but its reply is not kept any more")
            connection.reply(request.reply_id, protocol.error_body(error, entry.tid))
        elif task.ended:
            connection.outbox.add_ended(EndedReply(task, request.reply_id, task.request.grab, final=True))
        else:
            task.recipients.append((connection, request.reply_id, True))
            connection.under_way += 1
        return True

    def _hear(self, task: Task) -> None:
        """Take a task that has ended; on the engine's results thread."""
        self._inbox.append(task)
        if not self._woken:
            self._woken = True
            with contextlib.suppress(RuntimeError):  # the loop is closed: there is nobody left to tell
                self._loop.call_soon_threadsafe(self.tell_ended)

    def tell_ended(self) -> None:
        """Tell the connections which of their tasks have ended."""
        self._woken = False
        told: set[Recipient] = set()
        now = self._loop.time()
        while self._inbox:
            task = self._inbox.popleft()
            self._tasks.end(task, now)
            for connection, reply_id, replies in task.recipients:
                connection.task_ended(task, reply_id, replies)
                told.add(connection)
            task.recipients.clear()
        for connection in told:
            connection.flush()
        if self._expiry is None:
            self._expire()

    def sent(self, task: Task, body: bytes) -> None:
        """Forget a task whose reply has been sent; keep the reply where it may be asked for again."""
        self._keys.keep(task, body)
        self._tasks.forget(task.tid)

    def _expire(self) -> None:
        now = self._loop.time()
        times = [time for time in (self._tasks.expire(now), self._keys.expire(now)) if time is not None]
        self._expiry = self._loop.call_at(min(times), self._expire) if times else None

    # -- looking in --------------------------------------------------------------------------------------

    def find_task(self, tid: str) -> Task | None:
        """Return a task, ``None`` if it is not known, or not any more."""
        return self._tasks.find(tid)

    def forget(self, request: protocol.Request) -> None:
        """Forget a task, and keys, as a client asks."""
        if request.tid:
            self._tasks.forget(request.tid)
        for key in request.keys:
            self._keys.forget(key)

    def ask_stats(self, connection: Connection, reply_id: bytes) -> None:
        """Reply with the statistics; all who ask while they are made get the same."""
        self._stats_askers.append((connection, reply_id))
        if len(self._stats_askers) == 1:
            self.bodies.put(self._make_stats, self._tell_stats)

    def _make_stats(self) -> list[bytes]:
        return [dump_any({"message": "OK", "stats": self.backend.stats()})]

    def _tell_stats(self, bodies: list[bytes]) -> None:
        askers, self._stats_askers = self._stats_askers, []
        for connection, reply_id in askers:
            connection.under_way -= 1
            connection.reply(reply_id, bodies[0])
            connection.flush()

    def hello_body(self, *, authenticate: bool) -> bytes:
        """Return the reply to ``hello``."""
        return dump_any(
            {
                "message": "OK",
                "protocol": protocol.PROTOCOL,
                "server": f"rigger_mp {_version()}",
                "authenticate": authenticate,
                "limits": asdict(self.limits),
            }
        )


def _version() -> str:
    try:
        return version("rigger_mp")
    except PackageNotFoundError:
        return "(not installed)"


class Room:
    """Where connections wait for room in the engine's queue: one at a time tries, first come, first served.

    Args:
        backend: the engine.
        loop: the server's loop.
    """

    def __init__(self, backend: Backend, loop: AbstractEventLoop) -> None:
        self._backend = backend
        self._loop = loop
        self._turn = asyncio.Lock()

    async def retry(self, attempt: Callable[[], bool]) -> None:
        """Try until it succeeds, each time when there may be room."""
        async with self._turn:
            while not attempt():
                tried = asyncio.Event()
                self._backend.when_room(lambda event=tried: self._wake(event))  # type: ignore[misc]
                await tried.wait()

    def _wake(self, event: asyncio.Event) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: there is nobody left to wake
            self._loop.call_soon_threadsafe(event.set)
