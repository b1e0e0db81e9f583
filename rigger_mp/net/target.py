"""Where a client connects to, and what may go wrong there."""

from __future__ import annotations

import socket
import ssl
from dataclasses import dataclass

from rigger_mp.errors import AuthenticationError, ConnectionLostError, RiggerError

KEEPALIVE = {"TCP_KEEPIDLE": 15, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}

LAST_PORT = 65_535


@dataclass(frozen=True)
class Target:
    """Where a client connects to, and how.

    Attributes:
        address: host name or address.
        port: TCP port.
        token: sent to the server, ``""``: none.
        tls: the context, ``None``: not encrypted.
        timeout: seconds to connect in, and seconds without any reply, where one is due, until the
            connection is taken for lost.
        retry_for: seconds to try again in, after the connection was lost or could not be made.

    Raises:
        ValueError: there is no such port.
    """

    address: str
    port: int
    token: str
    tls: ssl.SSLContext | None
    timeout: float
    retry_for: float

    def __post_init__(self) -> None:
        if not 0 < self.port <= LAST_PORT:
            raise ValueError(f"port is {self.port}, expected 1 to {LAST_PORT}")


def as_rigger_error(error: BaseException, target: Target) -> RiggerError:
    """Return the error of this package that tells of one met on the connection."""
    where = f"{target.address}:{target.port}"
    if isinstance(error, RiggerError):
        return error
    if isinstance(error, ssl.SSLCertVerificationError):
        return AuthenticationError(f"the certificate of {where} is not trusted: {error}")
    if isinstance(error, TimeoutError):
        return ConnectionLostError(f"{where} did not answer within {target.timeout:g} s")
    return ConnectionLostError(f"the connection to {where} failed: {error}")


def keep_alive(sock: socket.socket) -> None:
    """Have the operating system notice, within half a minute, that the other machine is gone."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in KEEPALIVE.items():
        if hasattr(socket, name):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
