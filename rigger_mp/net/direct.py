"""The short way of one event and its reply, where a client waits for each before it sends the next.

::

    usual   data ─▶ reader ─▶ task ─▶ fire ─▶ engine ─▶ results thread ─▶ loop ─▶ replies thread ─▶ loop ─▶ socket
    direct  data ─────────────────▶ fire ─▶ engine ─▶ results thread ─────────────────────────────────────▶ socket
    soon    data ─────────────────▶ fire ─▶ engine ───────────────────────────────────────────────────────▶ socket

A switch of threads takes as long as one of processes. So a line that comes alone to a connection where nothing is
under way is taken in the loop's callback, and its reply is sent by whichever thread has made it: the results
thread, where no user code can run in making it, or else the replies thread. What has been done so is accounted for
in the loop a little later. Where the last event ended soon, the loop itself looks for the outcome, for a moment and
until anything else comes; and then for the next line, before it sleeps.
"""

from __future__ import annotations

from asyncio import BaseTransport, StreamReaderProtocol
from collections.abc import Callable
from typing import Any

from rigger_mp.engine.endings import Ended
from rigger_mp.net import protocol
from rigger_mp.net.globals_replica import GlobalsReplica
from rigger_mp.net.results import Task
from rigger_mp.net.strict_json import JsonError, dump_json

MOST_READ = 65_536
"""Bytes read at once. For 256 KiB, which is asyncio's habit, the C library maps memory anew each time."""


class DirectProtocol(StreamReaderProtocol):
    """Offers what arrives to a connection before the reader gets it.

    Attributes:
        taker: takes data and returns true, or does not; ``None`` at first.
    """

    taker: Callable[[bytes], bool] | None = None

    def connection_made(self, transport: BaseTransport) -> None:
        """Take the transport."""
        if hasattr(transport, "max_size"):
            transport.max_size = MOST_READ
        super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        """Take data from the transport."""
        if self.taker is None or not self.taker(data):
            super().data_received(data)


def plain_body(task: Task, globals_: GlobalsReplica, max_bytes: int) -> bytes | None:
    """Return the reply to who waits for a task, ``None`` if making it may run user code, or wait."""
    ending, request = task.ending, task.request
    if not ending or not ending.succeeded:
        return None
    if not request.grab:
        return protocol.ended_body(task.tid, None)
    if type(ending) is not Ended:
        return None
    values = ending.plain_values(request.results)
    if values is not None and request.results is None:
        values = _with_globals(values, globals_.values_at_end(ending))
    if values is None:
        return None
    try:
        body = protocol.ended_body(task.tid, dump_json(values))
    except JsonError:
        return None
    return body if len(body) <= max_bytes else None


def _with_globals(local: dict[str, Any], globals_: dict[str, Any] | None) -> dict[str, Any] | None:
    return None if globals_ is None else {**globals_, **local}
