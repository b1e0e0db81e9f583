"""The engine as the user's process holds it: its processes, what is pending, and the outcomes coming back.

::

    submit ──▶ PendingTable ──▶ Ingress ──▶ dispatcher
                   │                           │
    future ◀── Receiver ◀──────── socket ──────┘

If the dispatcher dies, another takes its place (:mod:`rigger_mp.engine.recovery`): what was pending and had not
started is sent again, in its order; what had started ends in ``EngineLost``.
"""

from __future__ import annotations

import contextlib
import marshal
import os
import pickle
import socket
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

from rigger_mp.encoding import Encoded
from rigger_mp.engine import messages as m
from rigger_mp.engine.blueprint import Boot
from rigger_mp.engine.changes import Changes
from rigger_mp.engine.dispatcher_client import DispatcherProcess
from rigger_mp.engine.endings import Ended, Lost
from rigger_mp.engine.gates import Gates
from rigger_mp.engine.listener import Listener, guard
from rigger_mp.engine.manager_client import GlobalsReader, ManagerProcess
from rigger_mp.engine.marks import Marks
from rigger_mp.engine.pending import Call, Pending, PendingTable, Waiter, reads
from rigger_mp.engine.receiver import Receiver
from rigger_mp.engine.recovery import Recovery
from rigger_mp.engine.reloading import Reloading
from rigger_mp.engine.segments import Arguments
from rigger_mp.engine.snapshots import Snapshots
from rigger_mp.errors import DeadlockError, EngineLost, NotRunningError, QueueFull, StartError
from rigger_mp.future import HookFuture

T = TypeVar("T")
_ENDINGS = frozenset({m.Outcome, m.Completed})
EXIT_TIME = 2.0
"""Seconds that the dispatcher and the Manager get to end by themselves."""


class Engine:
    """A started engine.

    Args:
        boot: what it consists of.
        config: the configuration, encoded, for results.
        listener: see :class:`Listener`.
        marks_fd: the file for the :class:`~rigger_mp.engine.marks.Marks` where it is to outlive the engine;
            closed with it. ``None``: it is not.

    Attributes:
        reader: reads the global namespace, also after the engine has stopped.
        problems: the instances that could not be initialised.

    Raises:
        StartError: a process ended before the engine was ready.
    """

    def __init__(self, boot: Boot, config: Encoded, listener: Listener, marks_fd: int | None = None) -> None:
        self._owner_pid = os.getpid()
        self._boot = boot
        self._config = config
        self._listener = listener
        self._marks = Marks(boot.queue_size, marks_fd)
        self._pending = PendingTable(boot.queue_size, self._marks)
        self._changes = Changes()
        self._lock = threading.Lock()
        self._gates = Gates()
        self._accepting = False
        self._snapshots = Snapshots()
        self._answers: dict[int, HookFuture] = {}
        self.problems: tuple[str, ...] = ()
        self.hooks: dict[str, tuple[str, ...]] = {}
        self._refusal = ""
        self._ready = threading.Event()
        self._ended = False
        self._finished = False
        self._stop_by: float | None = None
        self._stopping = threading.Condition()
        self._releasing = threading.Lock()
        self._released = False
        self._replacing = threading.RLock()
        self._closing = False
        self._recovery = Recovery(boot.limits, self._marks)
        self.reader = GlobalsReader(boot.list_merge, self._replace_manager)
        self._launch()

    # -- starting ----------------------------------------------------------------------------------------

    def _launch(self) -> None:
        publisher, publishing = os.pipe()
        # The dispatcher first: it takes longer, and nothing works without it.
        self._dispatcher = DispatcherProcess(self._boot, publishing, self._marks, self._snapshots.floor)
        self._manager = ManagerProcess(self.reader.list_merge, publisher)
        self.reader.attach(self._manager)
        self._receiver = Receiver(
            self._dispatcher.socket, self._deliver, self._is_idle, self._on_dispatcher_gone
        )
        self._receiver.start()

    def wait_until_ready(self) -> None:
        """Wait until every instance has been tried once.

        Raises:
            StartError: the dispatcher ended before, or could not open the spool.
        """
        try:
            self._ready.wait()
        except BaseException:
            self.stop(0.0)
            raise
        if self._ended:
            status = self._dispatcher.process.wait()
            self.stop(0.0)
            detail = f"the dispatcher process ended with status {status} before the engine was ready"
            raise StartError(self._refusal or detail)
        self._accepting = True

    def _is_idle(self) -> bool:
        return not len(self._pending) and not self._answers

    # -- replacing processes -----------------------------------------------------------------------------

    def _replace_manager(self, gone: ManagerProcess) -> bool:
        """Put another Manager in the place of one that is gone; the dispatcher publishes everything to it.

        Returns:
            Whether there is another one: not if the engine has ended, for then nobody has the globals, nor if
            this process was forked by the engine's.
        """
        if os.getpid() != self._owner_pid:
            return False
        with self._replacing:
            if self._manager is not gone:
                return True
            if self._ended:
                return False
            publisher, publishing = os.pipe()
            self._manager = ManagerProcess(self.reader.list_merge, publisher)
            self.reader.attach(self._manager)
            self._dispatcher.adopt_manager(publishing)
            gone.end(0.0)
            return True

    def _on_dispatcher_gone(self) -> socket.socket | None:
        """Start another dispatcher; return the socket to it, ``None`` if the engine has ended."""
        self._dispatcher.reap(EXIT_TIME)
        if not self._finished:
            self._recovery.end_workers()
        why_not = self._refusal or self._recovery.refuse(self._finished, self._ready.is_set())
        if not why_not and self._replace_dispatcher():
            return self._dispatcher.socket
        with self._stopping:
            self._ended = True
            self._stopping.notify_all()
        self._ready.set()
        detail = why_not if self._accepting and why_not else "the engine was stopped"
        self._accepting = False
        self._lose_pending(detail)
        return None

    def _replace_dispatcher(self) -> bool:
        with self._replacing:
            if self._closing:
                return False
            globals_, problem = self._recovery.take_globals(self.reader, self._snapshots.latest)
            publishing = self._manager.follow_another()
            boot = self._recovery.next_boot(self._boot, globals_, problem)
            dispatcher = DispatcherProcess(boot, publishing, self._marks, self._snapshots.floor)
            with self._lock:
                gone, self._dispatcher = self._dispatcher, dispatcher
                gone.close()
                started = self._pending.take_started()
                self._send_again()
                self._gates.open()
        for error in self._recovery.losses(problem):
            guard(self._listener.failed, error)
        for pending in started:
            self._conclude(pending, Lost(pending.label, self._recovery.detail), succeeded=False)
        return True

    def _send_again(self) -> None:
        pending = [(self._pending.turn(message.token), message) for message in self._pending.messages()]
        for _, message in sorted([*self._changes.all(), *pending], key=lambda entry: entry[0]):
            self._dispatcher.send(message)
        for token in self._answers:
            self._dispatcher.ingress.put(m.Inquire(token))
        if self._stop_by is not None:
            self._dispatcher.ingress.put(m.Stop(0))

    # -- sending -----------------------------------------------------------------------------------------

    def submit(self, hook: str, arguments: Arguments, waiter: Waiter | None) -> None:
        """Fire a hook; its outcome goes to ``waiter``, if there is one.

        Waits while ``queue_size`` events are pending.

        Raises:
            NotRunningError: the engine is stopping, stopped, or belongs to another process.
            QueueFull: there is no room, and this is the thread that makes room.
        """
        since = m.NOBODY_WAITS if waiter is None else -1
        self._send(lambda token: m.Event(token, hook, *arguments, since), waiter)

    def call(self, hook: str, arguments: Arguments) -> Ended | Lost:
        """Fire a hook, wait for its end, and return that.

        Raises:
            NotRunningError: the engine is stopping, stopped, or belongs to another process.
        """
        call = Call()
        # What follows at once can be gathered; what comes to an idle engine, or is waited for, had better start.
        token = self._with_room(
            lambda: self._add_and_send(lambda token: m.Event(token, hook, *arguments), call, now=True)
        )
        return self._receiver.wait_for(call, token)

    def try_submit(
        self,
        hook: str,
        arguments: Arguments,
        waiter: Waiter,
        note: Callable[[int], None] | None = None,
        since: int = -1,
    ) -> bool:
        """Fire a hook if there is room, without waiting; returns whether there was.

        ``note`` gets the event's token before it can start; it must not raise. ``since`` is as in
        :class:`~rigger_mp.engine.messages.Event`.

        Raises:
            NotRunningError: the engine is stopping, stopped, or belongs to another process.
        """
        with self._lock:
            self._check_running()
            if self._pending.full:
                return False

            def make(token: int) -> m.Event:
                if note is not None:
                    note(token)
                return m.Event(token, hook, *arguments, since)

            self._put(make, waiter)
        return True

    def look_for(self, token: int, has_ended: Callable[[], bool], is_wanted: Callable[[], bool]) -> None:
        """Look for the end of an event in this thread; see :meth:`~rigger_mp.engine.receiver.Receiver.look_for`."""
        self._receiver.look_for(token, has_ended, is_wanted)

    def when_room(self, callback: Callable[[], None]) -> None:
        """Call a function once, when there is room or never will be; it must be quick, and not call the engine."""
        with self._lock:
            self._gates.add_callback(callback)
            if not self._accepting or not self._pending.full:
                self._gates.open()

    def make_future(self) -> HookFuture:
        """Return the future of something that is to be sent."""
        return HookFuture(self._receiver.thread)

    def request(self, make: Callable[[int], Any]) -> HookFuture:
        """Send another message that ends in an outcome, and return its future."""
        future = self.make_future()
        self._send(make, future)
        return future

    def reload(self, reloading: Reloading, tolerated: tuple[str, ...], strict: bool) -> None:
        """Send another configuration's processes into the place of the present ones; see :class:`Reloading`."""
        boot = pickle.dumps(reloading.boot)
        self._send(lambda token: m.Reload(token, boot, tolerated, strict), reloading)

    def _send(self, make: Callable[[int], Any], waiter: Waiter | None) -> None:
        self._with_room(lambda: self._put(make, waiter))

    def _put(self, make: Callable[[int], Any], waiter: Waiter | None) -> None:
        alone = not len(self._pending)
        self._add_and_send(make, waiter, now=alone)
        if not (alone and reads(waiter)):
            self._receiver.resume()

    def _add_and_send(self, make: Callable[[int], Any], waiter: Waiter | None, *, now: bool) -> int:
        message = self._pending.add(make, waiter)
        token: int = message.token
        try:
            self._dispatcher.send(message, now=now)
        except BaseException:  # Ctrl-C: nobody has its future, and nobody shall wait for its end
            self._pending.pop(token)
            raise
        return token

    def _check_running(self) -> None:
        if not self._accepting:
            raise NotRunningError("the engine is not running: it was stopped, or is being stopped")
        if os.getpid() != self._owner_pid:
            raise NotRunningError(
                "this engine belongs to the process that forked this one; start another Rigger here, "
                "or use RiggerClient"
            )

    def _with_room(self, act: Callable[[], T]) -> T:
        """Do something, locked, that takes a place among what is pending, once there is one; return its result."""
        while True:
            with self._lock:
                self._check_running()
                if not self._pending.full:
                    return act()
            self._await_room()

    def _await_room(self) -> None:
        if threading.current_thread() is self._receiver.thread:
            raise QueueFull(
                f"{self._pending.size} events are pending (queue_size), "
                "and this thread, which delivers their outcomes, must not wait"
            )
        with self._lock:
            gate = self._gates.add()  # before looking: who makes room looks here after having made it
        if self._pending.full and self._accepting:
            gate.acquire()

    def tell(self, message: Any) -> None:
        """Send a change that has no outcome, in its place among the events."""
        with self._lock:
            self._check_running()
            self._changes.add(self._pending.next_turn(), message, self._pending.oldest_turn)
            self._dispatcher.ingress.put(message)

    def ask_stats(self) -> dict[str, Any]:
        """Return the dispatcher's statistics."""
        self.refuse_on_results_thread("stats()")
        answer: Any = self.make_future()
        with self._lock:
            self._check_running()
            token = self._pending.next_turn()
            self._answers[token] = answer
            self._dispatcher.ingress.put(m.Inquire(token))
            self._receiver.resume()
        raw: Any = answer.result()
        stats: dict[str, Any] = raw
        return stats

    @property
    def generation(self) -> int:
        """How many generations there have been, that which serves included."""
        return self._boot.generation

    @property
    def latest_version(self) -> int:
        """The latest version of the globals that this process has heard of."""
        return self._snapshots.latest

    @property
    def stopped(self) -> bool:
        """Whether it has been stopped."""
        return self._released

    @property
    def is_own_process(self) -> bool:
        """Whether this is the process that started it, not one forked from that."""
        return os.getpid() == self._owner_pid

    @property
    def pids(self) -> dict[str, int]:
        """The process ids of dispatcher and Manager."""
        return {"dispatcher": self._dispatcher.process.pid, "manager": self._manager.process.pid}

    @property
    def dispatcher_restarts(self) -> int:
        """How often the dispatcher was replaced."""
        return self._recovery.restarts

    @property
    def accepting(self) -> bool:
        """Whether events may be fired."""
        return self._accepting

    def refuse_on_results_thread(self, what: str) -> None:
        """Raise where waiting would wait for ever.

        Raises:
            DeadlockError: this is the thread that delivers outcomes.
        """
        if threading.current_thread() is self._receiver.thread:
            raise DeadlockError(
                f"{what} would wait for ever: this thread (handle_failure, log_message, and callbacks of "
                "futures run in it) delivers the outcomes; use submit(...) or fire_hook(..., wait=False)"
            )

    # -- receiving ---------------------------------------------------------------------------------------

    def _deliver(self, batch: list[Any]) -> bool:
        """Take a batch of messages; tell whether it was one outcome, whose waiter reads, and nothing else."""
        versions = [message.version for message in batch if type(message) in _ENDINGS]
        snapshot = self._snapshots.take(min(versions), max(versions)) if versions else None
        waiter: Waiter | None = None
        for message in batch:
            if type(message) is m.Outcome:
                waiter = self._end(message, snapshot)
            elif type(message) is m.Completed:
                self._pending.pop_all(message.tokens)
            else:
                self._hear(message)
        if versions and self._gates:
            with self._lock:
                self._gates.open()
        return len(batch) == 1 and reads(waiter)

    def _hear(self, message: Any) -> None:
        match message:
            case m.Squashed() | m.Log() | m.Output() | m.Record():
                self._listener.hear(message)
            case m.Answer():
                answer: Any = self._answers.pop(message.token)
                answer.end(_Opened(marshal.loads(message.stats)))
            case m.ManagerLost():
                self._replace_manager(self._manager)
            case m.Stopped():
                self._snapshots.latest = max(self._snapshots.latest, message.version)
                with self._stopping:
                    self._finished = True
                    self._stopping.notify_all()
            case m.Ready() | m.Refused():
                self._take_start(message)
            case m.Reloaded():
                self._take_reloaded(message)

    def _take_start(self, message: m.Ready | m.Refused) -> None:
        if isinstance(message, m.Refused):
            self._refusal = message.detail
            return
        known, self.problems = self.problems, message.problems
        self.hooks = dict(message.hooks)
        if self._ready.is_set():
            for problem in message.problems:
                if problem not in known:
                    guard(self._listener.logged, problem)
        self._ready.set()

    def _take_reloaded(self, message: m.Reloaded) -> None:
        pending = self._pending.pop(message.token)
        if pending is None:
            return
        reloading: Any = pending.waiter
        if not message.kind:
            self._boot, self._config = reloading.boot, reloading.config
            self._recovery.limits = reloading.boot.limits
            self.problems, self.hooks = message.problems, dict(message.hooks)
            reloading.adopt()
        reloading.end(_Opened(message))
        with self._lock:
            self._gates.open()

    def _end(self, outcome: m.Outcome, snapshot: Any) -> Waiter | None:
        pending = self._pending.pop(outcome.token)
        if pending is None:
            return None
        if type(pending.message) is m.Configure:
            with self._lock:
                turn = self._pending.turn(outcome.token)
                self._changes.add(turn, pending.message._replace(token=0), self._pending.oldest_turn)
        ending = Ended(outcome, pending.arguments, self._config, self.reader, snapshot)
        self._conclude(pending, ending, outcome.status == m.OK)
        return pending.waiter

    def _conclude(self, pending: Pending, ending: Ended | Lost, succeeded: bool) -> None:
        if pending.waiter is not None:
            guard(pending.waiter.end, ending)  # a future calls back, and may have been set by somebody else
        elif not succeeded:
            for error in ending.exceptions():
                guard(self._listener.failed, error)

    def _lose_pending(self, detail: str) -> None:
        with self._lock:
            pending = self._pending.take_all()
            self._gates.open()
        for lost in pending:
            self._conclude(lost, Lost(lost.label, detail), succeeded=False)
        for error in self._recovery.losses(""):
            guard(self._listener.failed, error)
        for answer in self._answers.values():
            answer.end(Lost("stats", detail))

    # -- stopping ----------------------------------------------------------------------------------------

    def stop(self, graceful_timeout: float) -> None:
        """Accept no more, drain up to ``graceful_timeout`` seconds, then kill; returns when all is gone.

        What was not finished ends in ``EngineLost``. Another call, from another thread, may shorten the time.
        """
        self.refuse_on_results_thread("stop()")
        with contextlib.suppress(EngineLost):
            self.reader.names(0, exact=False)  # a Manager that is gone is replaced while that is possible
        self._announce_stop(time.monotonic() + graceful_timeout)
        try:
            self._await_end()
        finally:
            with self._releasing:
                if not self._released:
                    self._release()

    def wait_until_stopped(self, timeout: float | None) -> bool:
        """Wait until it has been stopped, by whomever; tell whether it has."""
        self.refuse_on_results_thread("waiting for the engine's stop")
        with self._stopping:
            return self._stopping.wait_for(lambda: self._released, timeout)

    def _announce_stop(self, stop_by: float) -> None:
        with self._lock:
            self._accepting = False
            if self._stop_by is None:
                self._dispatcher.ingress.put(m.Stop(0))
            self._receiver.resume()
            self._gates.open()
        with self._stopping:
            self._stop_by = stop_by if self._stop_by is None else min(stop_by, self._stop_by)
            self._stopping.notify_all()

    def _await_end(self) -> None:
        with self._stopping:
            while not (self._ended or self._finished) and self._stop_by is not None:
                remaining = self._stop_by - time.monotonic()
                if remaining <= 0:
                    return
                self._stopping.wait(remaining)

    def _release(self) -> None:
        with self._replacing:
            self._closing = True
            if not (self._ended or self._finished):
                self._dispatcher.kill()
        with contextlib.suppress(OSError, EOFError, EngineLost):  # the Manager may have been killed
            self.reader.detach(self._snapshots.latest)
        self._dispatcher.let_go()
        self._dispatcher.reap(EXIT_TIME)  # the results thread ends with it
        self._receiver.thread.join()
        self._dispatcher.close()
        self._manager.end(EXIT_TIME)
        self._marks.close()
        with self._stopping:
            self._released = True
            self._stopping.notify_all()


class _Opened:
    """An ending that is no event's: a value as it is."""

    def __init__(self, value: Any) -> None:
        self._value = value

    def open(self) -> Any:
        """Return the value."""
        return self._value
