"""What the connections of a server share: firing events, hearing of their ends, and what is remembered of them."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import secrets
import time
from asyncio import AbstractEventLoop
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from rigger_mp.encoding import dump_arguments
from rigger_mp.engine.endings import Ended
from rigger_mp.engine.pending import Waiter
from rigger_mp.engine.segments import Arguments, dump_with_segment
from rigger_mp.errors import EngineLost, LimitError, NotRunningError, RiggerError
from rigger_mp.net import protocol
from rigger_mp.net.bodies import BodyMaker, body_of
from rigger_mp.net.direct import plain_body
from rigger_mp.net.eager_selector import LOOK_TIME, EagerSelector
from rigger_mp.net.event_store import LOST, UNKNOWN, EventStore, Recovered, State
from rigger_mp.net.globals_replica import GlobalsReplica
from rigger_mp.net.limits import Limits
from rigger_mp.net.outbox import EndedReply
from rigger_mp.net.results import KeyWindow, Recipient, Task, TaskStore
from rigger_mp.net.room import Room
from rigger_mp.net.security import Security
from rigger_mp.net.strict_json import dump_any

if TYPE_CHECKING:
    from rigger_mp.net.connection import Connection

SWEEP = 0.02
"""Seconds until what was sent directly is accounted for, if no other event does it before."""
NOT_YET = 0.05
"""Seconds until events of an earlier server are tried again, where the engine does not take any yet."""
MOST_NESTING = 500
"""Of lines that an earlier server had accepted, whatever its limit was."""


@dataclass(frozen=True)
class Backend:
    """The engine, as the server needs it.

    Attributes:
        try_submit: fires a hook if there is room; returns whether there was.
        look_for: looks for the end of an event for a moment, and tells its waiter in this thread if it finds it.
        when_room: calls a function when there may be room.
        stats: the statistics; may wait.
        terminate: ends the program's server and engine; must return at once.
        log: takes a message for the user.
        store: where accepted events are written down, ``None``: nowhere.
    """

    try_submit: Callable[[str, Arguments, Waiter, Callable[[int], None] | None, int], bool]
    look_for: Callable[[int, Callable[[], bool], Callable[[], bool]], None]
    when_room: Callable[[Callable[[], None]], None]
    stats: Callable[[], dict[str, Any]]
    terminate: Callable[[], None]
    log: Callable[[str], None]
    store: EventStore | None = None


class Service:
    """See the module; used in the server's loop.

    Args:
        backend: the engine.
        limits: of the server.
        security: of the server.
        loop: the server's loop.
        selector: of the loop.
    """

    def __init__(
        self,
        backend: Backend,
        limits: Limits,
        security: Security,
        loop: AbstractEventLoop,
        selector: EagerSelector,
    ) -> None:
        self.backend = backend
        self.limits = limits
        self.security = security
        self.bodies = BodyMaker(loop)
        self.room = Room(backend, loop)
        self.stopping = False
        self._loop = loop
        self._selector = selector
        self._ends_soon = False
        self._looked_for: Task | None = None
        self._run = secrets.token_hex(4)
        self._numbers = itertools.count(1)
        self._tasks = TaskStore(limits)
        self._store = backend.store
        self._globals = GlobalsReplica()
        self._keys = KeyWindow(limits, self._store.forget if self._store is not None else lambda _tid: None)
        self._inbox: deque[Task] = deque()
        self._woken = False
        self._sweeping = False
        self._expiry: asyncio.TimerHandle | None = None
        self._stats_askers: list[tuple[Connection, bytes]] = []
        self._instance = self._store.instance if self._store is not None else secrets.token_hex(8)
        self._to_run: deque[tuple[Task, bytes]] = deque()
        if self._store is not None:
            self._recover(self._store)

    # -- firing ------------------------------------------------------------------------------------------

    def fire(
        self, request: protocol.Request, connection: Connection, line: bytes, *, direct: bool = False
    ) -> bool:
        """Fire an event and reply, now or when it has ended; returns false if there is no room for it.

        Args:
            request: the event.
            connection: whom to reply to.
            line: what ``request`` was read from.
            direct: nothing else is under way on the connection: see :mod:`rigger_mp.net.direct`.

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
        if direct and request.wait:
            task.direct = partial(connection.send_now, request.reply_id)
            task.fired_at = time.monotonic()
            task.reads = self._ends_soon
        if self._to_run and not self.run_recovered():
            return False
        if not self._submit(task, line):
            return False
        self._tasks.add(task)
        if request.key:
            self._keys.add(request, task, self._loop.time())
        elif self._store is not None:
            self._store.forget(task.tid)
        request.data = None  # the engine has it
        self._looked_for = task if task.reads else None
        connection.under_way += 1
        if not request.wait:
            connection.reply(request.reply_id, protocol.accepted_body(task.tid))
        return True

    def _submit(self, task: Task, line: bytes) -> bool:
        request, store = task.request, self._store
        wants_globals = task.direct is not None and request.grab and request.results is None
        since = self._globals.version if wants_globals else -1
        arguments = dump_with_segment(dump_arguments, request.data or {})
        if store is None:
            return self.backend.try_submit(request.hook, arguments, task, task.take_token, since)
        store.reserve(len(line))

        def accept(token: int) -> None:
            task.take_token(token)
            store.accept(task.tid, token, line)

        return self.backend.try_submit(request.hook, arguments, task, accept, since)

    def look_for_end(self) -> None:
        """Look for the end of the event fired last, if it is likely to come soon, and reply."""
        task, self._looked_for = self._looked_for, None
        if task is None:
            return
        sweeping, self._sweeping = self._sweeping, True
        self.backend.look_for(task.token, lambda: task.ended, self._selector.has_events)
        self._sweeping = sweeping
        if self._inbox:
            self.tell_ended()
        self._selector.expects = True

    def _repeat(self, request: protocol.Request, connection: Connection) -> bool:
        """Reply to an event that was sent before under the same key; returns whether it was."""
        entry = self._keys.find(request, self._loop.time())
        if entry is None:
            return False
        task = entry.task
        if task is None and not request.wait:
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
        if self._store is not None and task.ending is not None:
            self._store.end(task.tid, succeeded=task.ending.succeeded)
        if task.direct is None:
            self._put_ended(task)
            return
        self._ends_soon = time.monotonic() - task.fired_at < 2 * LOOK_TIME
        if (body := plain_body(task, self._globals, self.limits.max_reply_bytes)) is not None:
            self._send_directly(task, body)
        else:
            self.bodies.run(partial(self._make_and_send, task))

    def _make_and_send(self, task: Task) -> None:
        self._send_directly(task, body_of(task, task.request.grab, self.limits.max_reply_bytes))
        ending = task.ending
        if type(ending) is Ended and ending.succeeded and task.request.results is None:
            with contextlib.suppress(RiggerError):  # the Manager is gone
                self._globals.begin_at_end(ending)

    def _send_directly(self, task: Task, body: bytes) -> None:
        """Send a reply from this thread, or leave it to the loop."""
        if self._store is not None and task.request.key:
            self._store.keep_body(task.tid, body)
        if task.direct is None or not task.direct(body):
            self._put_ended(task)
            return
        task.sent = body
        self._inbox.append(task)
        if not self._woken and not self._sweeping:
            self._sweeping = True
            self._in_loop(self._sweep_later)

    def _put_ended(self, task: Task) -> None:
        self._inbox.append(task)
        if not self._woken:
            self._woken = True
            self._in_loop(self.tell_ended)

    def _in_loop(self, function: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: there is nobody left to tell
            self._loop.call_soon_threadsafe(function)

    def _sweep_later(self) -> None:
        self._loop.call_later(SWEEP, self._sweep)

    def _sweep(self) -> None:
        self._sweeping = False
        self.tell_ended()

    @property
    def has_ended_some(self) -> bool:
        """Whether :meth:`tell_ended` has something to tell."""
        return bool(self._inbox)

    def tell_ended(self) -> None:
        """Tell the connections which of their tasks have ended."""
        self._woken = False
        told: set[Recipient] = set()
        now = self._loop.time()
        while self._inbox:
            task = self._inbox.popleft()
            self._tasks.end(task, now)
            unsent = 0 if task.sent is None else 1
            for number, (connection, reply_id, replies) in enumerate(task.recipients):
                connection.task_ended(task, reply_id, replies and number >= unsent)
                told.add(connection)
            task.recipients.clear()
            if task.sent is not None:
                self.sent(task, task.sent)
                task.sent = None
        for connection in told:
            connection.flush()
        if self._expiry is None:
            self._expire()

    def sent(self, task: Task, body: bytes) -> None:
        """Forget a task whose reply has been sent; keep the reply where it may be asked for again."""
        if self._keys.keep(task, body) and self._store is not None and task.sent is None:
            self._store.keep_body(task.tid, body)
        self._tasks.forget(task.tid)

    def _expire(self) -> None:
        now = self._loop.time()
        times = [time for time in (self._tasks.expire(now), self._keys.expire(now)) if time is not None]
        self._expiry = self._loop.call_at(min(times), self._expire) if times else None

    # -- events of an earlier server ---------------------------------------------------------------------

    def _recover(self, store: EventStore) -> None:
        """Take over what an earlier server had accepted."""
        lost: Counter[str] = Counter()
        for event in store.recovered:
            task = Task(event.tid, protocol.parse_line(event.line, MOST_NESTING), self._hear)
            if task.request.key:
                self._keys.add(task.request, task, self._loop.time())
            else:
                store.forget(task.tid)
            if event.state is State.NOT_STARTED:
                self._tasks.add(task)
                self._to_run.append((task, event.line))
            else:
                lost[task.request.hook] += event.state is State.MAY_HAVE_RUN
                self._keys.keep(task, _body_of_recovered(event, task.request))
        store.recovered.clear()
        if lost.total():
            hooks = ", ".join(f"{hook}: {number}" for hook, number in lost.items() if number)
            self.backend.log(f"server_store: {LOST} ({hooks})")

    def run_recovered(self) -> bool:
        """Give the engine the events that an earlier server had accepted; false if there is no room for all.

        Raises:
            NotRunningError: the engine does not run yet, or not any more.
        """
        while self._to_run:
            task, line = self._to_run[0]
            if not self._submit(task, line):
                return False
            task.request.data = None
            self._to_run.popleft()
        return True

    async def keep_running_recovered(self) -> None:
        """Do that as soon as possible."""
        while not self.stopping:
            try:
                await self.room.retry(self.run_recovered)
            except NotRunningError:  # a program may start its server before it sets initialized
                await asyncio.sleep(NOT_YET)
            else:
                return

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
                "instance": self._instance,
                "authenticate": authenticate,
                "limits": asdict(self.limits),
            }
        )


def _body_of_recovered(event: Recovered, request: protocol.Request) -> bytes:
    """Return the reply to an event that an earlier server had accepted, and that is not run by this one."""
    if event.body is not None:
        return event.body
    if event.state is State.MAY_HAVE_RUN:
        return protocol.error_body(EngineLost(LOST), event.tid)
    if not request.wait:
        return protocol.accepted_body(event.tid)
    if event.state is State.SUCCEEDED and not request.grab:
        return protocol.ended_body(event.tid, None)
    return protocol.error_body(EngineLost(UNKNOWN), event.tid)


def _version() -> str:
    try:
        return version("rigger_mp")
    except PackageNotFoundError:
        return "(not installed)"
