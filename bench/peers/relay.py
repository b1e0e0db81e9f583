"""The floor: a bare relay through the same hops, with no engine at all.

    this process ─mp.Queue─▶ relay process ─pipe─▶ one worker process
    this process ◀──pipe──── relay process ◀─pipe─ one worker process

It orders nothing, keeps no namespaces, survives nothing: what is left is what Python and the kernel ask for the hops.
"""

from __future__ import annotations

import multiprocessing
import selectors
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from typing import Any

from bench.peers.pool import Pool
from bench.tasks import BY_NAME


def relay(inbox: Any, out: Connection, workers: list[Connection]) -> None:
    """Pass each message on to the worker whose turn it is, and its reply back, until ``None`` comes."""
    turns = deque(workers)
    with selectors.DefaultSelector() as selector:
        for readable in (inbox._reader, *workers):
            selector.register(readable, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj is not inbox._reader:
                    out.send_bytes(key.fileobj.recv_bytes())  # type: ignore[union-attr]
                elif (message := inbox.get()) is None:
                    return
                else:
                    turns[0].send(message)
                    turns.rotate(1)


def middle_process(count: int, inbox: Any, out: Connection) -> None:
    """Start the workers, relay, and wait for the workers' end."""
    context = multiprocessing.get_context("fork")
    near_ends: list[Connection] = []
    processes = []
    for _ in range(count):
        near, far = context.Pipe()
        processes.append(context.Process(target=work, args=(far, [near, *near_ends])))
        processes[-1].start()
        far.close()
        near_ends.append(near)
    relay(inbox, out, near_ends)
    for near in near_ends:
        near.close()
    for process in processes:
        process.join()


def work(end: Connection, inherited: list[Connection]) -> None:
    """Run what comes, until nobody is there to send it."""
    for other in inherited:
        other.close()
    with suppress(EOFError):
        while True:
            task, value = end.recv()
            BY_NAME[task](value)
            end.send(None)


class Relay(Pool):
    """The near end of the relay. Replies are counted, not told apart."""

    def __init__(self, outbox: Any, back: Connection) -> None:
        self.outbox = outbox
        self.back = back

    def submit(self, task: str, value: Any) -> Any:
        """Put one message."""
        self.outbox.put((task, value))

    def result(self, handle: Any) -> None:
        """Take one reply."""
        self.back.recv()


@contextmanager
def open_pool(workers: int) -> Iterator[Pool]:
    """Start the relay and its workers."""
    context = multiprocessing.get_context("fork")
    outbox: Any = context.Queue()
    back, out = context.Pipe(duplex=False)
    middle = context.Process(target=middle_process, args=(workers, outbox, out))
    middle.start()
    yield Relay(outbox, back)
    outbox.put(None)
    middle.join()
