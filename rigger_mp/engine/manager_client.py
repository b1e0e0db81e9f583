"""The Manager as the user's process sees it: started, read through proxies, asked for a last copy."""

from __future__ import annotations

import contextlib
import marshal
import os
import socket
import subprocess
import threading
from collections.abc import Callable, Iterable
from multiprocessing.connection import Client, Connection, answer_challenge, deliver_challenge
from multiprocessing.managers import dispatch  # type: ignore[attr-defined]  # typeshed leaves it out
from typing import Any

from rigger_mp.engine.frames import frame
from rigger_mp.engine.launch import launch
from rigger_mp.engine.manager import READ_TIME, new_address
from rigger_mp.errors import EngineLost, NotRunningError
from rigger_mp.namespace import Chain, VersionedNamespace

CALL_TIME = READ_TIME + 5.0
"""Seconds that the Manager may take to answer before it counts as gone."""
MOST_MANAGERS = 20
"""How many of them, each in the place of one that is gone, a read tries."""

_LOST = "the global namespace is lost: the Manager process was gone when the engine ended"


class GlobalsReader:
    """Reads the global namespace: from the Manager while the engine runs, from a copy afterwards.

    Args:
        list_merge: ``"extend"`` or ``"replace"``.
        replace: called with a Manager that is gone; attaches another and returns true, or returns false.
    """

    def __init__(self, list_merge: str, replace: Callable[[ManagerProcess], bool]) -> None:
        self.list_merge = list_merge
        self._replace = replace
        self._copy: VersionedNamespace | None = None
        self._manager: ManagerProcess | None = None

    def attach(self, manager: ManagerProcess) -> None:
        """Read from a Manager from now on."""
        self._manager = manager

    def detach(self, version: int) -> None:
        """Take a copy of what the Manager has, at least ``version``, and read that from now on.

        If the Manager is gone, and nobody else has the globals, reading raises :class:`EngineLost` from now on.
        """
        try:
            if self._manager is not None:
                copy = VersionedNamespace(self.list_merge)
                copy.load_dump(*self._call(self._manager, "dump", version))
                self._copy = copy
        finally:
            self._manager = None

    def read(self, names: Iterable[str] | None, version: int, exact: bool = True) -> dict[str, Chain]:
        """Return the chains of those names (``None``: of all) that had a value at ``version``.

        Not ``exact``: that have one now, ``version`` being the least that now must be.
        """
        manager, copy = self._manager, self._copy
        # Plain strings: the Manager could not import the class of a user's enumeration.
        wanted = None if names is None else tuple([str.__str__(name) for name in names if isinstance(name, str)])
        if manager is not None:
            found: dict[str, Chain] = self._call(manager, "read", wanted, version, exact)
            return found
        if copy is None:
            raise EngineLost(_LOST)
        return copy.read_many(wanted, version if exact else copy.version)

    def names(self, version: int, exact: bool = True) -> list[str]:
        """Return the names that had a value at ``version``, or not ``exact``, have one now."""
        manager, copy = self._manager, self._copy
        if manager is not None:
            found: list[str] = self._call(manager, "names", version, exact)
            return found
        if copy is None:
            raise EngineLost(_LOST)
        return copy.names(version if exact else copy.version)

    def settle(self) -> tuple[int, dict[str, Chain]]:
        """Return the latest version and all chains, once the Manager has all that a dead dispatcher published.

        Raises:
            EngineLost: the Manager is gone, and with it the globals.
        """
        manager = self._manager
        if manager is None:
            return 0, {}
        latest: tuple[int, dict[str, Chain]] = self._call(manager, "settle")
        return latest

    def _call(self, manager: ManagerProcess, method: str, *args: Any) -> Any:
        for _ in range(MOST_MANAGERS):
            try:
                return manager.call(method, *args)
            except EngineLost:
                if not self._replace(manager) or self._manager is None:
                    raise
                manager = self._manager
        raise EngineLost(f"{MOST_MANAGERS} Manager processes ended, one after another, before they could answer")


class ManagerProcess:
    """A running Manager, and connections to it.

    The standard library's proxies keep a connection for each thread until that thread ends, and an entry for
    each Manager for ever. Here connections are pooled, and closed with the Manager.

    Args:
        list_merge: ``"extend"`` or ``"replace"``.
        publisher: the reading end of the dispatcher's pipe; closed here once it is passed on.
    """

    def __init__(self, list_merge: str, publisher: int) -> None:
        self._address = new_address()
        self._authkey = os.urandom(32)
        self._control, theirs = socket.socketpair()
        fds = {"control": theirs.fileno(), "publisher": publisher}
        self.process: subprocess.Popen[bytes] = launch("manager", fds, "rigger-mp manager")
        theirs.close()
        os.close(publisher)
        self._control.sendall(frame(marshal.dumps((self._address, self._authkey, list_merge))))
        self._object = ""
        self._owner_pid = os.getpid()
        self._begin_pool()

    def _begin_pool(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._idle: list[_Connection] = []

    def follow_another(self) -> int:
        """Have it follow another dispatcher; return the end of the pipe that is for that."""
        publisher, publishing = os.pipe()
        with contextlib.suppress(OSError):  # it is gone: whoever reads from it will see that
            socket.send_fds(self._control, [b"P"], [publisher])
        os.close(publisher)
        return publishing

    def call(self, method: str, *args: Any) -> Any:
        """Call a method of the :class:`~rigger_mp.engine.manager.PublishedNamespace`.

        Raises:
            EngineLost: the Manager is gone.
            NotRunningError: this process was forked by the engine's, too early to know how to ask.
        """
        try:
            connection = self._take_connection()
            connection.send((self._object, method, args, {}))
            kind, result = connection.recv()
        except (OSError, EOFError) as error:
            raise EngineLost(f"the Manager process is gone: {error}") from error
        with self._lock:
            self._idle.append(connection)
        if kind != "#RETURN":
            raise EngineLost(f"the Manager process failed to answer: {result}")
        return result

    def _take_connection(self) -> _Connection:
        if os.getpid() != self._pid:
            self._begin_pool()  # this process was forked: those connections are its parent's, and so may the lock be
        with self._lock:
            if self._idle:
                return self._idle.pop()
            if not self._object:
                self._connect_first()
        connection = self._connect()
        dispatch(connection, None, "accept_connection", ("rigger_mp",))
        return connection

    def _connect_first(self) -> None:
        if self._pid != self._owner_pid:
            raise NotRunningError(
                "this engine belongs to the process that forked this one, which had not read any globals before: "
                "read rigger.global_data once before the fork"
            )
        with _Connection(os.dup(self._control.fileno())) as control:
            control.await_something()
        if self._control.recv(1, socket.MSG_PEEK) != b"R":  # left there: whoever is interrupted here will look again
            raise EOFError("it ended before it could be asked")
        with self._connect() as connection:
            self._object, _ = dispatch(connection, None, "create", ("published",))

    def _connect(self) -> _Connection:
        with Client(self._address) as opened:
            connection = _Connection(os.dup(opened.fileno()))
        try:
            answer_challenge(connection, self._authkey)
            deliver_challenge(connection, self._authkey)
        except BaseException:
            connection.close()
            raise
        return connection

    def end(self, timeout: float) -> None:
        """Have it end, kill it if it does not within some seconds, and reap it."""
        with self._lock:
            while self._idle:
                self._idle.pop().close()
        self._control.close()
        try:
            self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class _Connection(Connection):
    """A connection to a Manager, which may stand still: nothing is waited for longer than ``CALL_TIME``.

    Raises:
        EOFError: from reading, after that time.
    """

    def recv(self) -> Any:
        """Return the next object."""
        self.await_something()
        return super().recv()

    def recv_bytes(self, maxlength: int | None = None) -> bytes:
        """Return the next message."""
        self.await_something()
        return super().recv_bytes(maxlength)

    def await_something(self) -> None:
        """Return when there is something to read."""
        if not self.poll(CALL_TIME):
            raise EOFError(f"no answer within {CALL_TIME} s")
