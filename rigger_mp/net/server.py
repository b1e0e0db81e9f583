"""The TCP server: a thread of the user's process with a loop of its own."""

from __future__ import annotations

import asyncio
import socket
import threading
from asyncio import StreamReader, StreamWriter
from collections.abc import Callable, Mapping
from typing import Any

from rigger_mp.errors import LimitError, StartError
from rigger_mp.net import protocol
from rigger_mp.net.connection import LINGER, Connection
from rigger_mp.net.direct import DirectProtocol
from rigger_mp.net.eager_selector import EagerSelector
from rigger_mp.net.limits import Limits
from rigger_mp.net.security import Security, check_bind
from rigger_mp.net.service import Backend, Service

BACKLOG = 1024
"""Connections that may wait to be accepted."""
MAX_EXCESS = 64
"""Connections beyond the limit that are told so politely; yet more are just closed."""
FINISH = 5.0
"""Seconds that connections get to take their last replies when the server stops."""


class Server:
    """A listening server; the process stays alive until it is closed.

    Args:
        address: host name or address to bind.
        port: TCP port, 0: any free one.
        backend: the engine.
        limits: see :class:`Limits`.
        security: see :class:`Security`; check it with :func:`check_bind` before.

    Raises:
        StartError: it cannot be bound.
    """

    def __init__(self, address: str, port: int, backend: Backend, limits: Limits, security: Security) -> None:
        self._backend = backend
        self._limits = limits
        self._security = security
        self._socket = _bind(address, port)
        host, bound_port = self._socket.getsockname()[:2]
        self.address: tuple[str, int] = (str(host), int(bound_port))
        self._connections: dict[Connection, asyncio.Task[Any]] = {}
        self._excess = 0
        self._failure: BaseException | None = None
        self._selector = EagerSelector()
        self._started = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._service: Service | None = None
        self._finish: asyncio.Event | None = None
        self._listener: asyncio.Server | None = None
        # Not a daemon: a program whose main thread has returned goes on serving.
        self._thread = threading.Thread(target=self._run, name="rigger_mp server")
        self._thread.start()
        self._started.wait()
        if self._failure is not None:
            raise StartError(f"the server cannot be started: {self._failure}") from self._failure

    def refuse(self) -> None:
        """Accept no more connections and no more events."""
        self._in_loop(self._start_refusing)

    def close(self) -> None:
        """Send the replies that are due and close every connection; returns when the thread has ended.

        Everything that was accepted must have ended.
        """
        self._in_loop(self._start_finishing)
        self._thread.join()

    def _in_loop(self, function: Callable[[], None]) -> None:
        if self._loop is not None and self._thread.is_alive():
            try:
                self._loop.call_soon_threadsafe(function)
            except RuntimeError:
                return  # it has ended by itself meanwhile

    # -- the thread --------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(self._selector)) as runner:
                runner.run(self._main())
        except BaseException as error:  # noqa: BLE001 - whoever starts the server raises it
            self._failure = error
            if self._started.is_set():
                self._backend.log(f"TCP server: {error!r}")
        finally:
            self._started.set()

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._loop.set_exception_handler(self._log_problem)
        self._finish = asyncio.Event()
        self._service = Service(self._backend, self._limits, self._security, self._loop, self._selector)
        timeouts: dict[str, Any] = {}
        if self._security.tls is not None:
            timeouts = {"ssl_handshake_timeout": self._limits.auth_timeout, "ssl_shutdown_timeout": LINGER}
        self._listener = await self._loop.create_server(
            self._make_protocol, sock=self._socket, backlog=BACKLOG, ssl=self._security.tls, **timeouts
        )
        self._started.set()
        recovering = asyncio.create_task(self._service.keep_running_recovered())
        await self._finish.wait()
        recovering.cancel()
        await self._end_connections()
        self._service.bodies.close(LINGER)

    def _make_protocol(self) -> DirectProtocol:
        return DirectProtocol(StreamReader(loop=self._loop), self._serve, loop=self._loop)

    async def _serve(self, reader: StreamReader, writer: StreamWriter) -> None:
        service = self._service
        assert service is not None  # it was made before the listener
        connection = Connection(service, reader, writer)
        if len(self._connections) >= self._limits.max_connections:
            await self._turn_away(connection)
            return
        task = asyncio.current_task()
        assert task is not None  # this runs in it
        self._connections[connection] = task
        accepted = writer.transport.get_protocol()
        assert type(accepted) is DirectProtocol  # _make_protocol made it
        accepted.taker = connection.take_directly
        try:
            await connection.serve()
        finally:
            del self._connections[connection]

    async def _turn_away(self, connection: Connection) -> None:
        error = LimitError(f"{len(self._connections)} connections are open (server_max_connections)")
        connection.reply(b"", protocol.error_body(error))
        connection.flush()
        self._excess += 1
        try:
            await connection.close(linger=self._excess <= MAX_EXCESS)
        finally:
            self._excess -= 1

    def _start_refusing(self) -> None:
        if self._service is not None:
            self._service.stopping = True
        if self._listener is not None:
            self._listener.close()

    def _start_finishing(self) -> None:
        self._start_refusing()
        if self._finish is not None:
            self._finish.set()

    async def _end_connections(self) -> None:
        if self._service is not None:
            self._service.tell_ended()
        serving = set(self._connections.values())
        finishing = [asyncio.create_task(connection.finish()) for connection in self._connections]
        if serving:
            await asyncio.wait(serving, timeout=FINISH)
        for task in (*finishing, *serving):
            task.cancel()

    def _log_problem(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if not isinstance(error, OSError):
            self._backend.log(f"TCP server: {context.get('message')}: {error!r}")


def listen(address: str, port: int, config: Mapping[str, Any], backend: Backend) -> Server:
    """Return a server as a configuration describes it, listening.

    Args:
        address: host name or address to bind.
        port: TCP port, 0: any free one.
        config: the configuration, checked.
        backend: the engine.

    Raises:
        ConfigError: other machines could reach it unprotected, or a file that it needs cannot be read.
        StartError: it cannot be bound.
    """
    security = Security.from_config(config)
    if warning := check_bind(address, security):
        backend.log(warning)
    return Server(address, port, backend, Limits.from_config(config), security)


def _bind(address: str, port: int) -> socket.socket:
    try:
        family, _, _, _, where = socket.getaddrinfo(
            address or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        return socket.create_server(where[:2], family=family, backlog=BACKLOG)
    except OSError as error:
        raise StartError(
            f"the server cannot listen on {address}:{port}: {error.strerror or error}"
        ) from error
