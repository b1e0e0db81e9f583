"""The client for threads: :class:`RiggerClient`, a thread with a :class:`~rigger_mp.net.channel.Channel`.

::

    any thread: submit ─▶ inbox ─▶ client's thread: Channel ─▶ server
                future ◀──────────────────────────┘

Lines are gathered while the thread is busy, so that a burst travels in few writes.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import ssl
import threading
import time
import weakref
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self

from rigger_mp.errors import (
    NotRunningError,
    RiggerError,
    TaskNotFoundError,
)
from rigger_mp.net import protocol
from rigger_mp.net.calls import Call, Grab, OwnReply, RemoteFuture
from rigger_mp.net.client_thread import ClientThread
from rigger_mp.net.target import Target

TIMEOUT, QUIET_TIMEOUT = 10.0, 2.5
"""Default seconds for a reply: raising errors, or not."""
RETRY_FOR = 5.0
"""Default seconds to try again in, raising errors."""
EXIT_TIME = 1.0
"""Seconds that a server that is there gets, at the end of the program, to take what was fired."""


class RiggerClient:
    """Fires hooks at a :class:`~rigger_mp.Rigger` in another process or machine, over TCP.

    It connects when it is first used, and again whenever the connection was lost. It may be shared between
    threads, used in a ``logging.Handler``, and after a fork, where it makes a connection of its own. ::

        with RiggerClient("127.0.0.1", 21212) as client:
            client.fire_hook("start_test", test_name="test_login")
            client.fire_hook("add", grab_result=True, a=1, b=2)["sum"]

    Args:
        address: host name or address of the server.
        port: its TCP port.
        token: what the server asks for.
        tls: encrypts; see :func:`rigger_mp.net.security.client_context`.
        timeout: seconds to connect in, and to wait for a reply that is due at once. An event that is waited
            for may take as long as it does while the server answers. Default: 10, or 2.5 without
            ``raise_errors``.
        retry_for: seconds to try again in when the connection is lost; events carry keys, so that each runs
            once. 0: never try again. Default: 5, or 0 without ``raise_errors``.
        raise_errors: false: riggerlib's way: methods return ``None`` where they would raise.

    Raises:
        ValueError: there is no such port.
    """

    def __init__(
        self,
        address: str,
        port: int | str,
        *,
        token: str | None = None,
        tls: ssl.SSLContext | None = None,
        timeout: float | None = None,
        retry_for: float | None = None,
        raise_errors: bool = True,
    ) -> None:
        self.address = address
        self.port = int(port)
        self.raise_errors = raise_errors
        if timeout is None:
            timeout = TIMEOUT if raise_errors else QUIET_TIMEOUT
        if retry_for is None:
            retry_for = RETRY_FOR if raise_errors else 0.0
        self._target = Target(address, self.port, token or "", tls, timeout, retry_for)
        self._is_enabled = True
        self._closed = False
        self._lock = threading.RLock()
        self._thread: ClientThread | None = None
        _clients.add(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    # -- events ------------------------------------------------------------------------------------------

    def fire_hook(
        self, hook: str, /, grab_result: Grab = False, wait_for_task: bool = False, **kwargs: Any
    ) -> Any:
        """Fire a hook.

        Args:
            hook: the event's name.
            grab_result: wait until it has ended and return its output; names: only these.
            wait_for_task: wait until it has ended and return ``True``.
            kwargs: its local namespace; values that JSON can express.

        Returns:
            The output, ``True``, or ``None`` as soon as the server has accepted the event.

        Raises:
            HookError: functions of the event failed.
            EventLost: as one of its subclasses: the process that ran it was lost.
            EncodingError: JSON cannot express an argument.
            RemoteError: as one of its subclasses: the server could not be reached, or refused.
            NotRunningError: the server is stopping.
            DeadlockError: it would wait in a callback of a future, which runs in the client's thread.
        """
        try:
            return self._fire_and_wait(hook, kwargs, grab_result, wait_for_task)
        except Exception:
            if self.raise_errors:
                raise
        return None

    def submit(
        self, hook: str, /, grab_result: Grab = False, wait_for_task: bool = False, **kwargs: Any
    ) -> RemoteFuture:
        """Fire a hook and return a future of what :meth:`fire_hook` would return; many may be in flight.

        Waits only while 10,000 replies are due.

        Raises:
            EncodingError: JSON cannot express an argument.
            NotRunningError: the client was closed.
        """
        try:  # not _quietly(): a generator for each event is a tenth of the time that it takes
            return self._submit(hook, kwargs, grab_result, wait_for_task)
        except Exception:
            if self.raise_errors:
                raise
            nothing = RemoteFuture()
            nothing.set_result(None)
            return nothing

    def task_status(self, tid: str, grab_result: bool = False) -> Any:
        """Return the server's reply about an event: ``status`` 1 before, 2 after it ended, then ``output``.

        Args:
            tid: ``tid`` of the future of the event.
            grab_result: the output is wanted.

        Raises:
            TaskNotFoundError: the server does not know it (any more).
            RemoteError: as :meth:`fire_hook`.
        """
        reply = self._ask(protocol.TASK_CHECK, tid=tid, grab_result=bool(grab_result))
        if self.raise_errors and reply.get("message") == "NOT FOUND":
            raise TaskNotFoundError(f"the server does not know task {tid!r}, or has forgotten it")
        return reply

    def task_delete(self, tid: str) -> Any:
        """Have the server forget an event's result.

        Raises:
            RemoteError: as :meth:`fire_hook`.
        """
        return self._ask(protocol.TASK_DELETE, tid=tid)

    def status(self) -> Any:
        """Return the statistics of the server's engine, as :meth:`rigger_mp.Rigger.stats`.

        Raises:
            RemoteError: as :meth:`fire_hook`.
        """
        reply = self._ask(protocol.STATUS)
        return reply and reply.get("stats")

    def terminate(self) -> None:
        """Stop the server and its engine; what was accepted runs. Returns when the server has agreed.

        Raises:
            RemoteError: as :meth:`fire_hook`.
        """
        self._ask(protocol.SHUTDOWN)

    @property
    def ready(self) -> bool:
        """Whether the server answers. Set it to false to have every event refused, to true to undo that."""
        if not self._is_enabled:
            return False
        try:
            return bool(self._send_line(protocol.PING, {}).result())
        except RiggerError:
            return False

    @ready.setter
    def ready(self, value: bool) -> None:
        self._is_enabled = bool(value)

    def close(self, timeout: float | None = None) -> None:
        """Wait until all that was fired has been replied to, then close the connection.

        Args:
            timeout: seconds to wait, ``None``: as long as the server answers.
        """
        self._closed = True
        with self._lock:
            thread, self._thread = self._thread, None
        if thread is not None:
            thread.close(timeout)

    # -- inside ------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _quietly(self) -> Iterator[None]:
        try:
            yield
        except Exception:
            if self.raise_errors:
                raise

    def _fire_and_wait(self, hook: str, data: dict[str, Any], grab: Grab, wait: bool) -> Any:
        thread = self._running_thread()
        call: Call[OwnReply | RemoteFuture] = Call(OwnReply(), quiet=not self.raise_errors)
        thread.numbering.number(call, keyed=True)
        call.encode_event(hook, data, grab, wait)
        thread.call(call)
        if not call.waits and thread.is_current:
            return None  # a log message of the client's own thread, or a callback: it is on its way
        return call.future.result()

    def _submit(self, hook: str, data: dict[str, Any], grab: Grab, wait: bool) -> RemoteFuture:
        thread = self._running_thread()
        call = Call(thread.make_future(), quiet=not self.raise_errors)
        thread.numbering.number(call, keyed=True)
        call.encode_event(hook, data, grab, wait)
        thread.start_call(call)
        return call.future

    def _ask(self, event: str, **fields: Any) -> Any:
        with self._quietly():
            return self._send_line(event, fields).result()
        return None

    def _send_line(self, event: str, fields: dict[str, Any]) -> RemoteFuture:
        thread = self._running_thread()
        call = Call(thread.make_future(), quiet=not self.raise_errors)
        thread.numbering.number(call, keyed=False)
        call.encode(event, **fields)
        call.is_repeatable = event != protocol.PING
        thread.start_call(call)
        return call.future

    def _running_thread(self) -> ClientThread:
        if self._closed or not self._is_enabled:
            raise NotRunningError(
                "the client was closed" if self._closed else "the client is not ready: set ready = True"
            )
        thread = self._thread
        if thread is not None:
            return thread
        with self._lock:
            if self._thread is None:
                # Making a loop logs, which may come back to this client: it finds the thread set, and waits
                # for nothing.
                self._thread = ClientThread(self._target)
                self._thread.launch()
            return self._thread

    def _forget_parent(self) -> None:
        """In a forked process: the connection is the parent's."""
        self._lock = threading.RLock()
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.abandon()

    def _finish_at_exit(self, deadline: float) -> None:
        if self._thread is not None:
            self._thread.wait_until_taken(deadline)


_clients: weakref.WeakSet[RiggerClient] = weakref.WeakSet()


def _forget_parents() -> None:
    for client in list(_clients):
        client._forget_parent()


def _finish_all() -> None:
    deadline = time.monotonic() + EXIT_TIME
    for client in list(_clients):
        client._finish_at_exit(deadline)


os.register_at_fork(after_in_child=_forget_parents)
atexit.register(_finish_all)
