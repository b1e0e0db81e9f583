"""Servers and bare sockets for tests."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from net_plugins import PLUGINS
from quiet import QuietRigger

TIMEOUT = 20.0
"""Seconds: far beyond what even a slow machine needs."""


def server_config(**keys: Any) -> dict[str, Any]:
    instances = {name: {"plugin": name} for name in PLUGINS}
    return {"workers": 2, "server_enabled": True, "server_port": 0, "plugins": instances, **keys}


@contextmanager
def served(**keys: Any) -> Iterator[QuietRigger]:
    with QuietRigger(server_config(**keys), plugins=PLUGINS) as rigger:
        yield rigger


def port_of(rigger: Any) -> int:
    address = rigger.server_address
    assert address is not None
    return int(address[1])


class Wire:
    """A bare connection: lines out, replies in."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), TIMEOUT)
        self._file = self.socket.makefile("rb")

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *exc: object) -> None:
        self._file.close()
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def say(self, **fields: Any) -> None:
        self.send(json.dumps(fields).encode() + b"\n")

    def hear(self) -> Any:
        line = self._file.readline()
        return json.loads(line) if line else None

    def ask(self, **fields: Any) -> Any:
        self.say(**fields)
        return self.hear()

    def ask_raw(self, line: bytes) -> Any:
        self.send(line + b"\n")
        return self.hear()

    def is_ended(self) -> bool:
        """Whether the server has closed its side; waits for that."""
        try:
            return not self._file.readline()
        except ConnectionError:
            return True
