"""The Manager process: publishes the global namespace for ``Rigger.global_data`` and for results to read.

::

    dispatcher ──pipe: Publish, Republish──▶ a thread ─▶ VersionedNamespace
    user's process ◀──BaseManager proxy: read, names, export──── (a Manager object)

Reads name the version they want and wait until it is published, so that whoever has seen an event end also
sees its updates. What is kept are encoded chains: no user code runs here.

The thread lets commits gather in the pipe: to wake for each would take a core from those who wait for the event. A
read that misses something takes it in by itself; as long as reads do, the thread wakes for each.
"""

from __future__ import annotations

import contextlib
import marshal
import os
import select
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterable
from multiprocessing.managers import BaseManager
from pathlib import Path
from typing import Any

from rigger_mp.engine import messages as m
from rigger_mp.engine.commit_log import merged_updates
from rigger_mp.engine.frames import FrameReader
from rigger_mp.engine.process import open_sentinel
from rigger_mp.namespace import Chain, VersionedNamespace

GATHER_TIME = 0.005
"""Seconds that commits may gather before they are taken in."""
WATCHED_TIME = 0.1
"""Seconds after a read that missed something in which commits are taken in at once."""
GATHER_BYTES = 1 << 14
"""Bytes of commits from which on more is expected at once: what fills the pipe keeps the dispatcher waiting."""
READ_TIME = 30.0
"""Seconds that a read waits for its version before it answers with what there is."""


class PublishedNamespace:
    """The global namespace, as far as it has been published; safe to use from several threads."""

    def __init__(self, list_merge: str) -> None:
        self._namespace = VersionedNamespace(list_merge)
        self._changed = threading.Condition()
        self._sources: list[FrameReader] = []
        self._watched_until = 0.0
        self._following: threading.Thread | None = None

    def read(self, names: Iterable[str] | None, version: int, exact: bool = True) -> dict[str, Chain]:
        """Return the chains of those names (``None``: of all) that had a value at ``version``.

        Not ``exact``: that have one now, ``version`` being the least that now must be.
        """
        with self._changed:
            self._await(version)
            return self._namespace.read_many(names, version if exact else self._namespace.version)

    def names(self, version: int, exact: bool = True) -> list[str]:
        """Return the names that had a value at ``version``, or not ``exact``, have one now."""
        with self._changed:
            self._await(version)
            return self._namespace.names(version if exact else self._namespace.version)

    def dump(self, version: int) -> tuple[int, int, dict[str, Any]]:
        """Return the latest version, at least ``version``, the floor, and every name's history."""
        with self._changed:
            self._await(version)
            return self._namespace.dump()

    def settle(self) -> tuple[int, dict[str, Chain]]:
        """Return the latest version and all chains, once all that was published before has been read."""
        following = self._following
        if following is not None:
            following.join(READ_TIME)
        with self._changed:
            version = self._namespace.version
            return version, self._namespace.read_many(None, version)

    def _await(self, version: int) -> None:
        if self._namespace.version < version:
            self._watched_until = time.monotonic() + WATCHED_TIME
            for source in self._sources:
                self._take_in(source.read_to_end())
        self._changed.wait_for(lambda: self._namespace.version >= version, READ_TIME)

    def follow(self, fd: int) -> None:
        """Take in what the dispatcher publishes, in a thread, until it closes its end."""
        os.set_blocking(fd, False)
        source = FrameReader(fd)
        with self._changed:
            self._sources.append(source)
        self._following = threading.Thread(target=self._follow, args=(source,), daemon=True)
        self._following.start()

    def _follow(self, source: FrameReader) -> None:
        arrival = select.poll()
        arrival.register(source.fd, select.POLLIN)
        while not source.eof:
            arrival.poll()
            with self._changed:
                payloads = source.read()
                self._take_in(payloads)
            more_to_come = source.buffered or sum(map(len, payloads)) > GATHER_BYTES
            if not more_to_come and time.monotonic() > self._watched_until:
                time.sleep(GATHER_TIME)
        with self._changed:
            self._sources.remove(source)
            os.close(source.fd)

    def _take_in(self, payloads: Iterable[bytes]) -> None:
        for payload in payloads:
            for message in m.unpack(payload):
                self._take(message)
        self._changed.notify_all()

    def _take(self, message: Any) -> None:
        if isinstance(message, m.Republish):
            self._namespace.restore(message.version, message.chains)
        else:
            self._namespace.raise_floor(message.floor)
            for versions, entry in message.entries:
                self._namespace.commit(merged_updates(entry), versions)


class NamespaceManager(BaseManager):
    """Serves the :class:`PublishedNamespace`."""


def new_address() -> str:
    """Return an address for a Manager: on Linux one that leaves no file behind, whatever happens."""
    name = f"rigger-mp-{os.getpid()}-{os.urandom(8).hex()}"
    if sys.platform.startswith("linux"):
        return "\0" + name
    return str(Path(tempfile.gettempdir()) / name)


def manager_main(parent: int, fds: dict[str, int]) -> None:
    """Run the Manager in this process; ends with the user's process, or when that closes its socket."""
    control = socket.socket(fileno=fds["control"])
    address, authkey, list_merge = _receive_setup(control)
    published = PublishedNamespace(list_merge)
    NamespaceManager.register(
        "published", callable=lambda: published, exposed=("read", "names", "dump", "settle")
    )
    server = NamespaceManager(address, authkey).get_server()
    published.follow(fds["publisher"])
    with contextlib.suppress(ConnectionError):  # nobody wants it any more: what serves that socket finds out
        control.sendall(b"R")
    threading.Thread(target=_serve_control, args=(control, address, published), daemon=True).start()
    sentinel = open_sentinel(parent)
    if sentinel is not None:
        threading.Thread(target=_end_with, args=(sentinel,), daemon=True).start()
    server.serve_forever()


def _receive_setup(control: socket.socket) -> tuple[str, bytes, str]:
    reader = FrameReader(control.fileno())
    while not reader.eof:
        for payload in reader.read():
            setup: tuple[str, bytes, str] = marshal.loads(payload)
            return setup
    raise SystemExit(0)


def _serve_control(control: socket.socket, address: str, published: PublishedNamespace) -> None:
    """Follow the dispatchers that the user's process names; end the process when that closes the socket."""
    with contextlib.suppress(ConnectionError):
        while True:
            data, fds, _, _ = socket.recv_fds(control, 1, 1)
            if not data:
                break
            for fd in fds:
                published.follow(fd)
    if not address.startswith("\0"):
        Path(address).unlink(missing_ok=True)
    os._exit(0)


def _end_with(sentinel: int) -> None:
    poller = select.poll()
    poller.register(sentinel, select.POLLIN)
    poller.poll()
    os._exit(0)
