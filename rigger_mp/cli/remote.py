"""What the commands that talk to a server share: its address, token and certificate."""

from __future__ import annotations

import argparse
import math
import os

from rigger_mp.errors import ConfigError
from rigger_mp.net.client import RiggerClient
from rigger_mp.net.security import client_context, read_token_file

DEFAULT_SERVER = "127.0.0.1:21212"
TOKEN_VARIABLE = "RIGGER_TOKEN"


def add_server_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say which server."""
    parser.add_argument(
        "--server", metavar="HOST:PORT", default=DEFAULT_SERVER, help=f"where the server is ({DEFAULT_SERVER})"
    )
    parser.add_argument("--token-file", metavar="FILE", help=f"file with the server's token (or set {TOKEN_VARIABLE})")
    parser.add_argument("--tls-ca", metavar="FILE", help="encrypt; this certificate must have signed the server's")
    parser.add_argument("--timeout", type=parse_seconds, default=10.0, metavar="SECONDS", help="for a reply (10)")


def connect(options: argparse.Namespace) -> RiggerClient:
    """Return a client of the server that the options name.

    Raises:
        ConfigError: an option is wrong, or its file cannot be read.
    """
    host, port = parse_server(options.server)
    token = read_token_file(options.token_file) if options.token_file else os.environ.get(TOKEN_VARIABLE)
    tls = client_context(options.tls_ca) if options.tls_ca else None
    return RiggerClient(host, port, token=token, tls=tls, timeout=options.timeout)


def parse_seconds(text: str) -> float:
    """Return a time above zero.

    Raises:
        argparse.ArgumentTypeError: it is something else.
    """
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a number of seconds above 0")
    return seconds


def parse_server(text: str) -> tuple[str, int]:
    """Return host and port of ``HOST:PORT``; an IPv6 host may stand in brackets.

    Raises:
        ConfigError: it is something else.
    """
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdigit() or int(port) > 65535:
        raise ConfigError(f"--server is {text!r}, expected HOST:PORT, such as {DEFAULT_SERVER}")
    return host.strip("[]") or "127.0.0.1", int(port)
