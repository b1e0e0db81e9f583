"""Events over TCP, side by side with riggerlib 3.1.6: ``python -m bench.remote``.

Each server is a process of its own with the same plugin; each client is this process. Measured are, in the same
run: events on one connection with no results wanted (riggerlib's client waits for each reply, ours is pipelined),
round trips with ``grab_result``, one after another and with many in flight, and many connections at once.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import collections.abc
import json
import socket
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

MANY, EACH = 1000, 100
"""Connections at once, and events of each."""


def sum_up(a: int, b: int) -> Any:
    """Do the little that the benchmark's hook does."""
    return {"sum": a + b}, {"last": a + b}


def serve_ours() -> None:
    """Serve with rigger_mp; print the port."""
    from rigger_mp import Rigger, RiggerBasePlugin

    class Adder(RiggerBasePlugin):
        stateless = True

        def plugin_initialize(self) -> None:
            self.register_plugin_hook("add", sum_up)

    class Counter(RiggerBasePlugin):
        def plugin_initialize(self) -> None:
            self.seen: collections.Counter[str] = collections.Counter()
            self.register_plugin_hook("tick")
            self.register_plugin_hook("ticks")

        def tick(self, name: str) -> None:
            self.seen[name] += 1

        def ticks(self) -> Any:
            return {"different": len(self.seen), "all": sum(self.seen.values())}, None

    config = {
        "server_enabled": True,
        "server_port": 0,
        "plugins": {"adder": {"plugin": "adder"}, "counter": {"plugin": "counter"}},
    }
    rigger = Rigger(config, plugins={"adder": Adder, "counter": Counter}).start()
    assert rigger.server_address is not None
    print(rigger.server_address[1], flush=True)


def import_riggerlib() -> Any:
    """Import riggerlib on a Python that it was not written for."""
    warnings.simplefilter("ignore")
    collections.Mapping = collections.abc.Mapping  # type: ignore[attr-defined]  # Python 3.10 took it away
    import riggerlib

    return riggerlib


def serve_theirs() -> None:
    """Serve with riggerlib; print the port."""
    riggerlib = import_riggerlib()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

    class Adder(riggerlib.RiggerBasePlugin):  # type: ignore[misc, name-defined]  # untyped
        def plugin_initialize(self) -> None:
            self.register_plugin_hook("add", sum_up)

    class Server(riggerlib.Rigger):  # type: ignore[misc, name-defined]  # untyped
        def read_config(self, _file: Any) -> None:
            plugins = {"adder": {"enabled": True, "plugin": "adder"}}
            self.config = {"threaded": False, "server_enabled": True, "server_port": port, "plugins": plugins}

    server = Server(None)
    server.register_plugin(Adder, "adder")
    server.global_data = {}
    server.parse_config()
    server.initialized = True
    print(port, flush=True)


@contextmanager
def server(name: str) -> Iterator[int]:
    """Run one of the servers; give its port."""
    command = [sys.executable, "-m", "bench.remote", "--serve", name]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.kill()


def rate(count: int, run: Callable[[], object]) -> float:
    """Return how many a second."""
    start = time.perf_counter()
    run()
    return count / (time.perf_counter() - start)


def measure_theirs(events: int, trips: int) -> dict[str, float]:
    """Return riggerlib's figures."""
    riggerlib = import_riggerlib()
    with server("theirs") as port:
        client = riggerlib.RiggerClient("127.0.0.1", port)
        client.ready = True
        client.fire_hook("add", grab_result=True, a=1, b=2)
        trip_rate = rate(trips, lambda: [client.fire_hook("add", grab_result=True, a=n, b=1) for n in range(trips)])
        event_rate = rate(events, lambda: [client.fire_hook("add", a=n, b=1) for n in range(events)])
    return {"events": event_rate, "round trips": trip_rate}


def measure_ours(events: int, trips: int) -> dict[str, float]:
    """Return rigger_mp's figures."""
    from rigger_mp import RiggerClient

    def stream(client: RiggerClient) -> None:
        for future in [client.submit("add", a=n, b=1) for n in range(events)]:
            future.result()

    def fly(client: RiggerClient) -> None:
        futures = [client.submit("add", grab_result=True, a=n, b=1) for n in range(events // 2)]
        assert all(future.result()["sum"] == n + 1 for n, future in enumerate(futures))

    figures = {}
    with server("ours") as port:
        with RiggerClient("127.0.0.1", port) as client:
            for _ in range(100):
                client.fire_hook("add", grab_result=True, a=1, b=2)
            figures["round trips"] = rate(
                trips, lambda: [client.fire_hook("add", grab_result=True, a=n, b=1) for n in range(trips)]
            )
            figures["round trips, named result"] = rate(
                trips, lambda: [client.fire_hook("add", grab_result=["sum"], a=n, b=1) for n in range(trips)]
            )
            figures["round trips, in flight"] = rate(events // 2, lambda: fly(client))
            settle(client)
            figures["events, with keys"] = rate(events, lambda: stream(client))
            settle(client)
        with RiggerClient("127.0.0.1", port, retry_for=0) as client:
            figures["events"] = rate(events, lambda: stream(client))
    return figures


def settle(client: Any) -> None:
    """Wait until the server has nothing left to do: what is measured next must not wait for what was before."""
    while client.status()["events"]["pending"]:
        time.sleep(0.05)


async def one_of_many(port: int, name: int) -> int:
    """Fire over one of many connections; return how many outcomes came."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    lines = (
        {"hook_name": "tick", "data": {"name": f"{name}-{n}"}, "id": n, "wait_for_task": True} for n in range(EACH)
    )
    writer.write(b"".join(json.dumps(line).encode() + b"\n" for line in lines))
    seen = set()
    for _ in range(EACH):
        reply = json.loads(await reader.readline())
        assert reply["message"] == "OK", reply
        seen.add(reply["id"])
    writer.close()
    await writer.wait_closed()
    return len(seen)


def measure_many() -> str:
    """Fire over many connections at once; return what became of it."""
    from rigger_mp import RiggerClient

    async def all_of_them(port: int) -> int:
        return sum(await asyncio.gather(*(one_of_many(port, name) for name in range(MANY))))

    with server("ours") as port:
        start = time.perf_counter()
        outcomes = asyncio.run(all_of_them(port))
        seconds = time.perf_counter() - start
        with RiggerClient("127.0.0.1", port) as client:
            ran = client.fire_hook("ticks", grab_result=["different", "all"])
    assert outcomes == ran["different"] == ran["all"] == MANY * EACH, (outcomes, ran)
    return f"{outcomes:,} outcomes in {seconds:.1f} s ({outcomes / seconds:,.0f}/s), none lost, none twice"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--serve", choices=("ours", "theirs"), help=argparse.SUPPRESS)
    parser.add_argument("--events", type=int, default=10_000, help="events of each kind (default: %(default)s)")
    arguments = parser.parse_args()
    if arguments.serve:
        return serve_ours() if arguments.serve == "ours" else serve_theirs()
    theirs = measure_theirs(arguments.events, 20)
    ours = measure_ours(arguments.events, 2000)
    for name, figure in ours.items():
        base = theirs["round trips" if name.startswith("round") else "events"]
        print(f"{name:<26}{figure:>10,.0f}/s   riggerlib {base:>8,.1f}/s   {figure / base:>8,.1f} x")
    print(f"{MANY:,} connections x {EACH}: {measure_many()}")
    return None


if __name__ == "__main__":
    main()
