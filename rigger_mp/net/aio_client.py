"""The client for asyncio: :class:`AsyncRiggerClient`."""

from __future__ import annotations

import asyncio
import ssl
from types import TracebackType
from typing import Any, Self

from rigger_mp.errors import NotRunningError, RiggerError, TaskNotFoundError
from rigger_mp.net import protocol
from rigger_mp.net.calls import AsyncRemoteFuture, Call, Grab, Numbering
from rigger_mp.net.channel import Channel
from rigger_mp.net.client_thread import MAX_PENDING
from rigger_mp.net.target import Target


class AsyncRiggerClient:
    """As :class:`~rigger_mp.RiggerClient`, for coroutines of one loop. ::

        async with AsyncRiggerClient("127.0.0.1", 21212) as client:
            output = await client.fire_hook("add", grab_result=True, a=1, b=2)

    Args:
        address: host name or address of the server.
        port: its TCP port.
        token: what the server asks for.
        tls: encrypts; see :func:`rigger_mp.net.security.client_context`.
        timeout: seconds to connect in, and to wait for a reply that is due at once.
        retry_for: seconds to try again in when the connection is lost; 0: never.

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
        timeout: float = 10.0,
        retry_for: float = 5.0,
    ) -> None:
        self.address = address
        self.port = int(port)
        self._target = Target(address, self.port, token or "", tls, timeout, retry_for)
        self._numbering = Numbering(keyed=retry_for > 0)
        self._channel: Channel | None = None
        self._answered = asyncio.Event()
        self._closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def fire_hook(
        self, hook: str, /, grab_result: Grab = False, wait_for_task: bool = False, **kwargs: Any
    ) -> Any:
        """Fire a hook; takes, returns and raises what :meth:`rigger_mp.RiggerClient.fire_hook` does."""
        return await (await self.submit(hook, grab_result, wait_for_task, **kwargs))

    async def submit(
        self, hook: str, /, grab_result: Grab = False, wait_for_task: bool = False, **kwargs: Any
    ) -> AsyncRemoteFuture:
        """Fire a hook and return a future; many may be in flight. Waits only while 10,000 replies are due.

        Raises:
            EncodingError: JSON cannot express an argument.
            NotRunningError: the client was closed.
        """
        call: Call[AsyncRemoteFuture] = Call(AsyncRemoteFuture(), quiet=False)
        self._numbering.number(call, keyed=True)
        call.encode_event(hook, kwargs, grab_result, wait_for_task)
        await self._start(call)
        return call.future

    async def task_status(self, tid: str, grab_result: bool = False) -> Any:
        """Return the server's reply about an event; as :meth:`rigger_mp.RiggerClient.task_status`."""
        reply = await self._ask(protocol.TASK_CHECK, tid=tid, grab_result=bool(grab_result))
        if reply.get("message") == "NOT FOUND":
            raise TaskNotFoundError(f"the server does not know task {tid!r}, or has forgotten it")
        return reply

    async def task_delete(self, tid: str) -> Any:
        """Have the server forget an event's result."""
        return await self._ask(protocol.TASK_DELETE, tid=tid)

    async def status(self) -> Any:
        """Return the statistics of the server's engine, as :meth:`rigger_mp.Rigger.stats`."""
        return (await self._ask(protocol.STATUS))["stats"]

    async def terminate(self) -> None:
        """Stop the server and its engine; what was accepted runs."""
        await self._ask(protocol.SHUTDOWN)

    async def ready(self) -> bool:
        """Tell whether the server answers."""
        try:
            await self._ask(protocol.PING)
        except RiggerError:
            return False
        return True

    async def close(self) -> None:
        """Wait until all that was fired has been replied to, then close the connection."""
        self._closed = True
        if self._channel is not None:
            await self._until_due(0)
            await self._channel.close()

    async def _ask(self, event: str, **fields: Any) -> Any:
        call: Call[AsyncRemoteFuture] = Call(AsyncRemoteFuture(), quiet=False)
        self._numbering.number(call, keyed=False)
        call.encode(event, **fields)
        call.is_repeatable = event != protocol.PING
        await self._start(call)
        return await call.future

    async def _start(self, call: Call[Any]) -> None:
        if self._closed:
            raise NotRunningError("the client was closed")
        if self._channel is None:
            self._channel = Channel(
                self._target, self._numbering, blocking_resolver=False, changed=self._answered.set
            )
        await self._until_due(MAX_PENDING)
        self._channel.start(call)

    async def _until_due(self, most: int) -> None:
        assert self._channel is not None  # whoever calls this has made it
        while self._channel.pending > most:
            self._answered.clear()
            await self._answered.wait()
