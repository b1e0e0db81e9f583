"""A started engine and what lives and ends with it.

::

    Running: configuration, plugins ──▶ Engine ◀── Reloader ◀── another Running
                                          ▲
    clients ──▶ Server ──▶ EventStore ────┘

They end in this order: the server refuses, the engine finishes, the server sends the last replies, the store closes.
"""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rigger_mp.candidate import Candidate
from rigger_mp.engine.build import build_boot
from rigger_mp.engine.engine import Engine
from rigger_mp.engine.launch import require_descriptors
from rigger_mp.engine.listener import Listener
from rigger_mp.errors import SpoolError
from rigger_mp.reloader import Reloader, Running

if TYPE_CHECKING:
    from rigger_mp.engine.pending import Waiter
    from rigger_mp.engine.segments import Arguments
    from rigger_mp.net.event_store import EventStore
    from rigger_mp.net.server import Server


OWN_DESCRIPTORS, DESCRIPTORS_A_WORKER = 20, 2
"""Files that the user's process or the dispatcher opens for an engine, and more for each worker; rounded up."""


@dataclass(frozen=True, slots=True)
class Owner:
    """What a server asks of whoever owns the deployment.

    Attributes:
        try_submit: fires a client's event; see :class:`~rigger_mp.net.service.Backend`.
        stats: returns the statistics.
        stop: stops everything, the server included.
        log: takes a message for the user.
    """

    try_submit: Callable[[str, Arguments, Waiter, Callable[[int], None] | None, int], bool]
    stats: Callable[[], dict[str, Any]]
    stop: Callable[[], None]
    log: Callable[[str], None]

    def stop_soon(self) -> None:
        """Stop everything, in another thread."""
        threading.Thread(target=self.stop, name="rigger_mp stop").start()


class Deployment:
    """See the module; its processes are started, :meth:`wait_until_ready` comes next.

    Args:
        running: what it serves.
        squash: whether failures are squashed.
        listener: whom the engine tells.
        adopt: called on the results thread with what is served from then on, after a reload.

    Raises:
        StartError: it could not be started.

    Attributes:
        engine: the engine.
        reloader: carries out reloads.
    """

    def __init__(
        self, running: Running, squash: bool, listener: Listener, adopt: Callable[[Running], None]
    ) -> None:
        candidate = running.candidate
        require_descriptors(OWN_DESCRIPTORS + DESCRIPTORS_A_WORKER * candidate.settings.workers)
        boot = build_boot(candidate.settings, running.found.instances, running.config, squash, candidate.base)
        self._spool = boot.spool
        self._store = _open_store(candidate)
        self._server: Server | None = None
        self._stop_at_exit: Callable[[], None] = lambda: None
        marks_fd = os.dup(self._store.marks_fd) if self._store is not None else None
        self.engine = Engine(boot, ("M", (running.config,)), listener, marks_fd)
        self.reloader = Reloader(self.engine, running, adopt)

    def wait_until_ready(self, stop: Callable[[], None]) -> None:
        """Wait until every instance has been tried once; from then on call ``stop`` when this process exits.

        Raises:
            StartError: the engine could not start.
        """
        self.engine.wait_until_ready()
        self._stop_at_exit = lambda: stop() if self.engine.is_own_process else None
        atexit.register(self._stop_at_exit)

    def serve(self, candidate: Candidate, owner: Owner) -> None:
        """Start the TCP server that a configuration describes.

        Raises:
            ConfigError: other machines could reach it unprotected, or a file that it needs cannot be read.
            StartError: it cannot listen there.
        """
        from rigger_mp.net.server import listen  # noqa: PLC0415 - only where it is enabled
        from rigger_mp.net.service import Backend  # noqa: PLC0415

        engine, settings = self.engine, candidate.settings
        backend = Backend(
            owner.try_submit, engine.look_for, engine.when_room, owner.stats, owner.stop_soon, owner.log, self._store
        )
        self._server = listen(settings.server_address, settings.server_port, candidate.config, backend)

    @property
    def server_address(self) -> tuple[str, int] | None:
        """The host and port of the server, ``None`` if it was not started."""
        return self._server.address if self._server is not None else None

    @property
    def can_stop(self) -> bool:
        """Whether it is there to be stopped: a forked copy of this process must not stop that of the original."""
        return not self.engine.stopped and self.engine.is_own_process

    def stop(self, graceful_timeout: float) -> tuple[str, ...]:
        """Finish what was accepted, within some seconds, and end everything; returns what the user should hear.

        Raises:
            DeadlockError: called on the thread that delivers outcomes.
        """
        self.engine.refuse_on_results_thread("stop()")
        if self._server is not None:
            self._server.refuse()
        self.reloader.stop()
        try:
            self.engine.stop(graceful_timeout)
        finally:
            if self._server is not None:
                self._server.close()
            if self._store is not None:
                self._store.close()
        atexit.unregister(self._stop_at_exit)
        return tuple(_kept_jobs(self._spool))


def _open_store(candidate: Candidate) -> EventStore | None:
    path = candidate.config.get("server_store")
    if not (candidate.settings.server_enabled and path):
        return None
    from rigger_mp.net.event_store import EventStore  # noqa: PLC0415 - only where it is enabled

    return EventStore(Path(path), candidate.settings.queue_size)


def _kept_jobs(spool: str) -> Iterator[str]:
    """Tell how many background jobs were not finished and stay in the spool."""
    if not spool:
        return
    from rigger_mp.engine.spool_file import read_jobs  # noqa: PLC0415 - SQLite only where it is needed

    try:
        kept = len(read_jobs(Path(spool)))
    except SpoolError as error:
        yield str(error)
        return
    if kept:
        yield f"{kept} background jobs stay in {spool} for the next start"
