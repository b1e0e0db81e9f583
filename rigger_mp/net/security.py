"""Who may connect, from where, and how it is encrypted: tokens, TLS, and what must not be bound without them."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import os
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rigger_mp.errors import ConfigError

TOKEN_VARIABLE = "RIGGER_MP_TOKEN"
"""The environment variable that holds the token, unless ``server_token_env`` names another one."""
MIN_TOKEN = 16
"""Fewest characters of a token."""


@dataclass(frozen=True)
class Security:
    """How a server protects itself.

    Attributes:
        token: what clients must send, ``""``: nothing.
        tls: the context for connections, ``None``: not encrypted.
        insecure: it may be reached from other machines without either.
    """

    token: str = ""
    tls: ssl.SSLContext | None = None
    insecure: bool = False

    @classmethod
    def from_config(cls, config: Mapping[str, Any], environment: Mapping[str, str] = os.environ) -> Security:
        """Return what a configuration says.

        Raises:
            ConfigError: the token's file, a certificate or a key cannot be read, or they do not fit together.
        """
        return cls(
            token=_read_token(config, environment),
            tls=_server_context(config),
            insecure=bool(config.get("server_insecure")),
        )

    def accepts(self, token: str) -> bool:
        """Tell whether a token is the right one, in a time that does not tell how much of it is."""
        return bool(self.token) and hmac.compare_digest(_hash(token), _hash(self.token))


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def _read_token(config: Mapping[str, Any], environment: Mapping[str, str]) -> str:
    path, variable = config.get("server_token_file"), config.get("server_token_env")
    if path:
        token, source = read_token_file(path), f"server_token_file {path}"
    else:
        token, source = environment.get(variable or TOKEN_VARIABLE, "").strip(), variable or TOKEN_VARIABLE
        if variable and not token:
            raise ConfigError(f"server_token_env: the environment variable {variable} is not set, or empty")
    if token and len(token) < MIN_TOKEN:
        raise ConfigError(f"{source}: the token has {len(token)} characters, expected at least {MIN_TOKEN}")
    return token


def read_token_file(path: str | os.PathLike[str]) -> str:
    """Return the token that a file holds, white space around it taken off.

    Raises:
        ConfigError: it cannot be read, or is empty.
    """
    try:
        token = Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the token file {os.fspath(path)} cannot be read: {error}") from error
    if not token:
        raise ConfigError(f"the token file {os.fspath(path)} is empty")
    return token


def _server_context(config: Mapping[str, Any]) -> ssl.SSLContext | None:
    certificate, key = config.get("server_tls_cert"), config.get("server_tls_key")
    client_ca = config.get("server_tls_client_ca")
    if not certificate:
        if key or client_ca:
            raise ConfigError(
                "server_tls_key and server_tls_client_ca need server_tls_cert, a certificate's file"
            )
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(certificate, key)
        if client_ca:
            context.load_verify_locations(client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
    except (OSError, ssl.SSLError) as error:
        files = ", ".join(str(name) for name in (certificate, key, client_ca) if name)
        raise ConfigError(f"TLS files {files}: {error}") from error
    return context


def client_context(
    ca: str | os.PathLike[str] | None = None,
    certificate: str | os.PathLike[str] | None = None,
    key: str | os.PathLike[str] | None = None,
) -> ssl.SSLContext:
    """Return a TLS context for clients, TLS 1.2 at least; the server's name is checked.

    Args:
        ca: file of the certificates that are trusted; ``None``: those of the system.
        certificate: the client's own, where the server asks for one.
        key: its private key, ``None``: it is in the same file.

    Raises:
        OSError: a file cannot be read (``ssl.SSLError``: it holds something else).
    """
    context = ssl.create_default_context(cafile=os.fspath(ca) if ca is not None else None)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if certificate is not None:
        context.load_cert_chain(certificate, key)
    return context


def check_bind(address: str, security: Security) -> str:
    """Check that what is bound to an address is protected as it must be.

    Returns:
        A warning for the user to see, ``""`` if there is none.

    Raises:
        ConfigError: other machines can reach it, and it has not both TLS and a token.
    """
    if is_loopback_address(address) or (security.token and security.tls is not None):
        return ""
    missing = []
    if security.tls is None:
        missing.append("TLS (server_tls_cert, server_tls_key)")
    if not security.token:
        missing.append(f"a token (server_token_file, or the environment variable {TOKEN_VARIABLE})")
    what = f"server_address {address!r} can be reached from other machines, without " + " and ".join(missing)
    if security.insecure:
        return f"INSECURE: {what}: whoever can connect can fire hooks (server_insecure: true)"
    raise ConfigError(
        f"{what}; set them, bind 127.0.0.1, or say server_insecure: true if the network keeps everybody else out"
    )


def is_loopback_address(address: str) -> bool:
    """Tell whether a host name or address is of this machine only, whatever it resolves to."""
    if not address:
        return False
    try:
        found = socket.getaddrinfo(address, None, type=socket.SOCK_STREAM)
    except OSError as error:
        raise ConfigError(f"server_address {address!r}: {error}") from error
    return all(is_loopback_peer(str(entry[4][0])) for entry in found)


def is_loopback_peer(host: str) -> bool:
    """Tell whether an IP address is of this machine only."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback
