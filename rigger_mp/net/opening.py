"""How a client's connection is opened: to the first address that answers, and the two sides introduce themselves."""

from __future__ import annotations

import asyncio
import json
import socket
from asyncio import StreamReader, StreamWriter
from collections.abc import Mapping
from typing import Any, NamedTuple

from rigger_mp.errors import AuthenticationError, ConnectionLostError, ProtocolError, RiggerError
from rigger_mp.net import protocol
from rigger_mp.net.calls import error_of
from rigger_mp.net.lines import LineSplitter
from rigger_mp.net.target import Target, keep_alive

CHUNK = 262_144
"""Bytes read at once."""
MAX_NESTING = 64
"""How deep a line may be nested for a server that does not say."""
MAX_REPLY = 1 << 30
"""Bytes of a reply."""


class Opened(NamedTuple):
    """A connection over which both sides have introduced themselves.

    Attributes:
        splitter: holds what was read beyond that.
        max_line: bytes of a line that the server takes.
        max_nesting: how deep objects and arrays of a line may contain each other.
        instance: the server, ``""``: it does not say.
    """

    reader: StreamReader
    writer: StreamWriter
    splitter: LineSplitter
    max_line: int
    max_nesting: int
    instance: str


async def open_connection(target: Target, *, blocking_resolver: bool) -> Opened:
    """Connect and authenticate.

    Args:
        target: where.
        blocking_resolver: resolve names in this thread.

    Raises:
        OSError: there is no connection.
        TimeoutError: the server did not answer in time.
        RiggerError: it refused, or is none.
    """
    async with asyncio.timeout(target.timeout):
        reader, writer = await _open(target, blocking_resolver=blocking_resolver)
        try:
            return await _introduce(target, reader, writer)
        except BaseException:
            writer.transport.abort()
            raise


async def _open(target: Target, *, blocking_resolver: bool) -> tuple[StreamReader, StreamWriter]:
    tls, port = target.tls, target.port
    server_name = target.address if tls is not None else None
    for address in await _resolve(target, blocking_resolver=blocking_resolver):
        try:
            reader, writer = await asyncio.open_connection(address, port, ssl=tls, server_hostname=server_name)
        except OSError as error:
            failure = error
            continue
        keep_alive(writer.get_extra_info("socket"))
        return reader, writer
    raise failure


async def _resolve(target: Target, *, blocking_resolver: bool) -> list[str]:
    address, port = target.address, target.port
    if blocking_resolver:
        found = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM)
    else:
        found = await asyncio.get_running_loop().getaddrinfo(address, port, type=socket.SOCK_STREAM)
    return [str(entry[4][0]) for entry in found]


async def _introduce(target: Target, reader: StreamReader, writer: StreamWriter) -> Opened:
    splitter = LineSplitter()
    if target.token:
        writer.write(json.dumps({"event_name": protocol.AUTH, "token": target.token}).encode() + b"\n")
    writer.write(b'{"event_name":"hello"}\n')
    if target.token:
        _check_reply(await _next_reply(reader, splitter))
    hello = _check_reply(await _next_reply(reader, splitter))
    if hello.get("protocol") != protocol.PROTOCOL:
        raise ProtocolError(f"the server speaks another protocol: {dict(hello)!r:.200}")
    if hello.get("authenticate"):
        raise AuthenticationError("the server asks for a token, and this client was given none")
    limits = hello["limits"]
    longest, deepest = int(limits["max_line"]), int(limits.get("max_nesting", MAX_NESTING))
    return Opened(reader, writer, splitter, longest, deepest, str(hello.get("instance", "")))


async def _next_reply(reader: StreamReader, splitter: LineSplitter) -> Mapping[str, Any]:
    while (line := splitter.next(MAX_REPLY)) is None:
        data = await reader.read(CHUNK)
        if not data:
            raise ConnectionLostError("the server closed the connection before it said hello")
        splitter.append(data)
    try:
        reply = json.loads(line)
    except ValueError:
        reply = None
    if not isinstance(reply, dict):
        raise ProtocolError(f"this is no rigger_mp server; it says {line[:100]!r}")
    return reply


def _check_reply(reply: Mapping[str, Any]) -> Mapping[str, Any]:
    if reply.get("message") != "OK":
        raise connection_error(error_of(reply, ""))
    return reply


def connection_error(error: RiggerError) -> RiggerError:
    """Return what is raised where a server refused a connection as a whole."""
    if isinstance(error, AuthenticationError | ProtocolError):
        return error
    return ConnectionLostError(f"the server closed the connection: {error}")
