"""The engine as the user's process holds it: its processes, what is pending, and the outcomes coming back.

::

    submit ──▶ pending[token] ──▶ Ingress ──▶ dispatcher
                   │                             │
    future ◀── results thread ◀──── socket ──────┘
"""

from __future__ import annotations

import contextlib
import itertools
import marshal
import os
import pickle
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from rigger_mp.encoding import Encoded
from rigger_mp.engine import messages as m
from rigger_mp.engine.assembly import Boot
from rigger_mp.engine.endings import Ended, Lost, exception_of
from rigger_mp.engine.frames import FrameReader, frame
from rigger_mp.engine.ingress import Ingress
from rigger_mp.engine.manager_client import GlobalsReader, ManagerProcess
from rigger_mp.engine.process import kill_tree, launch
from rigger_mp.engine.snapshots import Snapshots
from rigger_mp.errors import DeadlockError, EngineLost, NotRunningError, QueueFull, StartError
from rigger_mp.future import HookFuture

EXIT_TIME = 2.0
"""Seconds that the dispatcher and the Manager get to end by themselves."""


class Waiter(Protocol):
    """Who waits for an event; told on the results thread, so it must be quick and must not raise."""

    def end(self, ending: Ended | Lost) -> None:
        """Take how the event ended."""


class Pending(NamedTuple):
    """An event that has not ended: what replays it, and who waits."""

    hook: str
    arguments: bytes
    future: Waiter | None


@dataclass(frozen=True, slots=True)
class Listener:
    """Whom the results thread tells what no caller gets.

    Attributes:
        failed: gets the exception of a squashed failure, or of an event that nobody waits for.
        logged: gets messages.
    """

    failed: Callable[[BaseException], None]
    logged: Callable[[str], None]


class Engine:
    """A started engine.

    Args:
        boot: what it consists of.
        config: the configuration, encoded, for results.
        listener: see :class:`Listener`.

    Attributes:
        reader: reads the global namespace, also after the engine has stopped.
        problems: the instances that could not be initialised.

    Raises:
        StartError: a process ended before the engine was ready.
    """

    def __init__(self, boot: Boot, config: Encoded, listener: Listener) -> None:
        self._owner_pid = os.getpid()
        self._config = config
        self._listener = listener
        self._queue_size = boot.queue_size
        self._tokens = itertools.count(1)
        self._pending: dict[int, Pending] = {}
        self._lock = threading.Lock()
        self._room = threading.Condition(self._lock)
        self._room_callbacks: list[Callable[[], None]] = []
        self._accepting = False
        self._snapshots = Snapshots()
        self._answers: dict[int, HookFuture] = {}
        self.reader = GlobalsReader(boot.list_merge, self._replace_manager)
        self._replacing = threading.Lock()
        self.problems: tuple[str, ...] = ()
        self.hooks: dict[str, tuple[str, ...]] = {}
        self._refusal = ""
        self._ready = threading.Event()
        self._ended = False
        self._stop_by: float | None = None
        self._stopping = threading.Condition()
        self._releasing = threading.Lock()
        self._released = False
        self._launch(boot)

    # -- starting ----------------------------------------------------------------------------------------

    def _launch(self, boot: Boot) -> None:
        publisher, publishing = os.pipe()
        self._manager = ManagerProcess(boot.list_merge, publisher)
        self.reader.attach(self._manager)
        self._ingress = Ingress(self._snapshots.floor)
        self._socket, theirs = socket.socketpair()
        fds = {"ingress": self._ingress.reading_fd, "owner": theirs.fileno(), "manager": publishing}
        self._dispatcher: subprocess.Popen[bytes] = launch("dispatcher", fds, "rigger-mp dispatcher")
        theirs.close()
        os.close(publishing)
        self._ingress.close_reader()
        self._socket.sendall(frame(pickle.dumps(boot)))
        self._thread = threading.Thread(target=self._receive, name="rigger_mp results", daemon=True)
        self._thread.start()

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
            status = self._dispatcher.wait()
            self.stop(0.0)
            detail = f"the dispatcher process ended with status {status} before the engine was ready"
            raise StartError(self._refusal or detail)
        self._accepting = True

    def _replace_manager(self, gone: ManagerProcess) -> bool:
        """Put another Manager in the place of one that is gone; the dispatcher publishes everything to it.

        Returns:
            Whether there is another one: not if the engine has ended, for then nobody has the globals.
        """
        with self._replacing:
            if self._manager is not gone:
                return True
            if self._ended:
                return False
            publisher, publishing = os.pipe()
            self._manager = ManagerProcess(self.reader.list_merge, publisher)
            self.reader.attach(self._manager)
            with contextlib.suppress(OSError):  # the dispatcher is gone, too: the results thread will see it
                socket.send_fds(self._socket, [b"M"], [publishing])
            os.close(publishing)
            gone.end(0.0)
            return True

    # -- sending -----------------------------------------------------------------------------------------

    def submit(self, hook: str, arguments: bytes, future: HookFuture | None) -> None:
        """Fire a hook; its outcome goes to ``future``, if there is one.

        Waits while ``queue_size`` events are pending.

        Raises:
            NotRunningError: the engine is stopping, stopped, or belongs to another process.
            QueueFull: there is no room, and this is the thread that makes room.
        """
        self._send(lambda token: m.Event(token, hook, arguments), Pending(hook, arguments, future))

    def try_submit(self, hook: str, arguments: bytes, waiter: Waiter) -> bool:
        """Fire a hook if there is room, without waiting; returns whether there was.

        Raises:
            NotRunningError: the engine is stopping, stopped, or belongs to another process.
        """
        with self._lock:
            self._check_running()
            if len(self._pending) >= self._queue_size:
                return False
            self._put(m.Event(next(self._tokens), hook, arguments), Pending(hook, arguments, waiter))
        return True

    def when_room(self, callback: Callable[[], None]) -> None:
        """Call a function once, when there is room or never will be; it must be quick, and not call the engine."""
        with self._lock:
            if self._accepting and len(self._pending) >= self._queue_size:
                self._room_callbacks.append(callback)
                return
        callback()

    def request(self, make: Callable[[int], Any], label: str) -> HookFuture:
        """Send another message that ends in an outcome, and return its future."""
        future = HookFuture()
        self._send(make, Pending(label, b"", future))
        return future

    def _send(self, make: Callable[[int], Any], pending: Pending) -> None:
        with self._lock:
            self._check_running()
            if len(self._pending) >= self._queue_size:
                self._wait_for_room()
            self._put(make(next(self._tokens)), pending)

    def _put(self, message: Any, pending: Pending) -> None:
        self._pending[message.token] = pending
        self._ingress.put(message)

    def _check_running(self) -> None:
        if not self._accepting:
            raise NotRunningError("the engine is not running: it was stopped, or is being stopped")
        if os.getpid() != self._owner_pid:
            raise NotRunningError(
                "this engine belongs to the process that forked this one; start another Rigger here, "
                "or use RiggerClient"
            )

    def _wait_for_room(self) -> None:
        if threading.current_thread() is self._thread:
            raise QueueFull(
                f"{self._queue_size} events are pending (queue_size), "
                "and this thread, which delivers their outcomes, must not wait"
            )
        while len(self._pending) >= self._queue_size:
            self._room.wait()
            self._check_running()

    def tell(self, message: Any) -> None:
        """Send a message that has no outcome, in its place among the events."""
        with self._lock:
            self._check_running()
            self._ingress.put(message)

    def ask_stats(self) -> dict[str, Any]:
        """Return the dispatcher's statistics."""
        self.refuse_on_results_thread("stats()")
        token = next(self._tokens)
        answer: Any = HookFuture()
        self._answers[token] = answer
        self.tell(m.Inquire(token))
        raw: Any = answer.result()
        stats: dict[str, Any] = raw
        return stats

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
        return {"dispatcher": self._dispatcher.pid, "manager": self._manager.process.pid}

    @property
    def accepting(self) -> bool:
        """Whether events may be fired."""
        return self._accepting

    def refuse_on_results_thread(self, what: str) -> None:
        """Raise where waiting would wait for ever.

        Raises:
            DeadlockError: this is the thread that delivers outcomes.
        """
        if threading.current_thread() is self._thread:
            raise DeadlockError(
                f"{what} would wait for ever: this thread (handle_failure, log_message, and callbacks of "
                "futures run in it) delivers the outcomes; use submit(...) or fire_hook(..., wait=False)"
            )

    # -- receiving ---------------------------------------------------------------------------------------

    def _receive(self) -> None:
        reader = FrameReader(self._socket.fileno())
        while not reader.eof:
            for payload in reader.read():
                self._deliver(m.unpack(payload))
        with self._stopping:
            self._ended = True
            self._stopping.notify_all()
        self._ready.set()
        detail = "the engine's dispatcher process ended" if self._accepting else "the engine was stopped"
        self._accepting = False
        self._lose_pending(detail)

    def _deliver(self, batch: list[Any]) -> None:
        versions = [message.version for message in batch if type(message) is m.Outcome]
        snapshot = self._snapshots.take(min(versions), max(versions)) if versions else None
        for message in batch:
            if type(message) is m.Outcome:
                self._end(message, snapshot)
            else:
                self._hear(message)
        if versions:
            with self._lock:
                self._tell_room()

    def _tell_room(self) -> None:
        self._room.notify_all()
        callbacks, self._room_callbacks = self._room_callbacks, []
        for callback in callbacks:
            callback()

    def _hear(self, message: Any) -> None:
        match message:
            case m.Squashed():
                for fields in message.failures:
                    self._tell_failed(exception_of(message.hook, fields))
            case m.Log():
                self._guard(self._listener.logged, message.text)
            case m.Answer():
                answer: Any = self._answers.pop(message.token)
                answer.end(_Opened(marshal.loads(message.stats)))
            case m.ManagerLost():
                self._replace_manager(self._manager)
            case m.Refused():
                self._refusal = message.detail
            case m.Stopped():
                self._snapshots.latest = max(self._snapshots.latest, message.version)
            case m.Ready():
                self.problems, self.hooks = message.problems, dict(message.hooks)
                self._ready.set()

    def _end(self, outcome: m.Outcome, snapshot: Any) -> None:
        pending = self._pending.pop(outcome.token, None)
        if pending is None:
            return
        ending = Ended(outcome, pending.arguments, self._config, self.reader, snapshot)
        self._conclude(pending, ending, outcome.status == m.OK)

    def _conclude(self, pending: Pending, ending: Ended | Lost, succeeded: bool) -> None:
        if pending.future is not None:
            pending.future.end(ending)
        elif not succeeded:
            for error in ending.exceptions():
                self._tell_failed(error)

    def _lose_pending(self, detail: str) -> None:
        with self._lock:
            pending, self._pending = self._pending, {}
            self._tell_room()
        for lost in pending.values():
            self._conclude(lost, Lost(lost.hook, detail), succeeded=False)
        for answer in self._answers.values():
            answer.end(Lost("stats", detail))

    def _tell_failed(self, error: BaseException) -> None:
        self._guard(self._listener.failed, error)

    def _guard(self, call: Callable[[Any], None], argument: Any) -> None:
        """Call user code that must not stop the results thread."""
        try:
            call(argument)
        except BaseException as error:  # noqa: BLE001 - it is reported, as an exception of a thread is
            threading.excepthook(threading.ExceptHookArgs((type(error), error, error.__traceback__, self._thread)))

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
                self._ingress.put(m.Stop(0))
            self._tell_room()
        with self._stopping:
            self._stop_by = stop_by if self._stop_by is None else min(stop_by, self._stop_by)
            self._stopping.notify_all()

    def _await_end(self) -> None:
        with self._stopping:
            while not self._ended and self._stop_by is not None:
                remaining = self._stop_by - time.monotonic()
                if remaining <= 0:
                    return
                self._stopping.wait(remaining)

    def _release(self) -> None:
        self._end_dispatcher()
        self._thread.join()
        self._socket.close()
        self._ingress.close()
        with contextlib.suppress(OSError, EOFError, EngineLost):  # the Manager may have been killed
            self.reader.detach(self._snapshots.latest)
        self._manager.end(EXIT_TIME)
        with self._stopping:
            self._released = True
            self._stopping.notify_all()

    def _end_dispatcher(self) -> None:
        if not self._ended:
            kill_tree(self._dispatcher.pid)
        try:
            self._dispatcher.wait(EXIT_TIME)
        except subprocess.TimeoutExpired:
            kill_tree(self._dispatcher.pid)
            self._dispatcher.wait()


class _Opened:
    """An ending that is no event's: a value as it is."""

    def __init__(self, value: Any) -> None:
        self._value = value

    def open(self) -> Any:
        """Return the value."""
        return self._value
