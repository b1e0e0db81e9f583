"""Servers in processes of their own, rigger_mp's and riggerlib's, and clients of both behind one face.

``python -m bench.servers NAME`` serves until its standard input closes, and prints the port that it listens at.
"""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from bench import tally
from bench.peers.engine import Program, import_riggerlib, load_riggerlib
from bench.tasks import noop


def add(a: int, b: int) -> Any:
    """Do the little that the remote hooks do."""
    tally.add(a)
    return {"sum": a + b}, {"last": a + b}


PROGRAM = Program({"adder": {"add": add, "noop": noop}}, stateless=True)


def serve_ours() -> None:
    """Serve with rigger_mp."""
    from rigger_mp import Rigger, RiggerBasePlugin

    class Adder(RiggerBasePlugin):
        stateless = True

        def plugin_initialize(self) -> None:
            for hook, function in PROGRAM.plugins["adder"].items():
                self.register_plugin_hook(hook, function)

    config = {"server_enabled": True, "server_port": 0, "plugins": {"adder": {"plugin": "adder"}}}
    with Rigger(config, plugins={"adder": Adder}) as rigger:
        assert rigger.server_address is not None
        announce(rigger.server_address[1])


def serve_theirs() -> None:
    """Serve with riggerlib."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    load_riggerlib(PROGRAM, {"threaded": False, "server_enabled": True, "server_port": port})
    announce(port)


def announce(port: int) -> None:
    """Print the port; return when nobody is interested any more."""
    print(port, flush=True)
    sys.stdin.read()


@contextmanager
def serving(peer: str) -> Iterator[int]:
    """Run the server of a peer; give its port."""
    command = [sys.executable, "-m", "bench.servers", peer]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.stdin.close()
            if peer != "rigger_mp":
                process.kill()  # riggerlib's threads do not end by themselves
            process.wait()


class OurClient:
    """rigger_mp's client."""

    def __init__(self, port: int) -> None:
        from rigger_mp import RiggerClient

        self.client = RiggerClient("127.0.0.1", port, retry_for=0)

    def __enter__(self) -> OurClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()

    def round_trip(self, a: int, b: int) -> int:
        """Fire one event; return its sum."""
        return int(self.client.fire_hook("add", grab_result=True, a=a, b=b)["sum"])

    def fire_all(self, count: int) -> None:
        """Fire events without asking for results, until all are accepted."""
        for future in [self.client.submit("add", a=number, b=1) for number in range(count)]:
            future.result()

    def fly(self, count: int) -> int:
        """Fire events that ask for results, all at once; return the sum of the results."""
        futures = [self.client.submit("add", grab_result=True, a=number, b=1) for number in range(count)]
        return sum(future.result()["sum"] for future in futures)


class TheirClient:
    """riggerlib's client: one request at a time."""

    def __init__(self, port: int) -> None:
        self.client = import_riggerlib().RiggerClient("127.0.0.1", port)
        self.client.ready = True

    def __enter__(self) -> TheirClient:
        return self

    def __exit__(self, *_: object) -> None:
        import zmq

        zmq.Context.instance().destroy(linger=0)

    def round_trip(self, a: int, b: int) -> int:
        """Fire one event; return its sum."""
        return int(self.client.fire_hook("add", grab_result=True, a=a, b=b)["sum"])

    def fire_all(self, count: int) -> None:
        """Fire events without asking for results; each returns when it is accepted."""
        for number in range(count):
            self.client.fire_hook("add", a=number, b=1)


def import_client(peer: str) -> Callable[[int], Any]:
    """Return the class of a peer's client."""
    return OurClient if peer == "rigger_mp" else TheirClient


if __name__ == "__main__":
    {"rigger_mp": serve_ours, "riggerlib-client": serve_theirs}[sys.argv[1]]()
