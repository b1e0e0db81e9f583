"""A proxy between clients and the server that cuts connections: clients must try again, and nothing run twice."""

from __future__ import annotations

import contextlib
import random
import socket
import threading

CHUNK = 1 << 16


class CuttingProxy:
    """Forwards connections of the loopback, each until a random number of bytes has passed.

    Args:
        port: the server's.
        rng: decides when to cut.
        shortest, longest: bytes that pass until then.
    """

    def __init__(self, port: int, rng: random.Random, shortest: int = 500, longest: int = 8_000) -> None:
        self._target = ("127.0.0.1", port)
        self._rng = rng
        self._range = (shortest, longest)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self.cuts = 0
        self.steady = False
        self._start(self._accept)

    @property
    def port(self) -> int:
        """Where clients connect to."""
        return int(self._listener.getsockname()[1])

    def close(self) -> None:
        """Stop listening and end every connection."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            open_now = list(self._open)
        for one in open_now:
            _shut(one)
        for thread in self._threads:
            thread.join()

    def _start(self, target: object, *args: object) -> None:
        thread = threading.Thread(target=target, args=args, name="proxy", daemon=True)  # type: ignore[arg-type]
        self._threads = [other for other in self._threads if other.is_alive()]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return  # closed
            try:
                far = socket.create_connection(self._target)
            except OSError:
                near.close()  # the server has stopped
                continue
            allowance = [self._rng.randint(*self._range)]
            with self._lock:
                self._open |= {near, far}
            pumps = [
                threading.Thread(target=self._pump, args=(source, sink, allowance), name="proxy", daemon=True)
                for source, sink in ((near, far), (far, near))
            ]
            for pump in pumps:
                pump.start()
            self._start(self._release, pumps, near, far)

    def _release(self, pumps: list[threading.Thread], near: socket.socket, far: socket.socket) -> None:
        for pump in pumps:
            pump.join()
        with self._lock:
            self._open -= {near, far}
        near.close()
        far.close()

    def _pump(self, source: socket.socket, sink: socket.socket, allowance: list[int]) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(CHUNK):
                allowance[0] -= len(data)
                if allowance[0] < 0 and not self.steady:
                    self.cuts += 1
                    sink.sendall(data[: len(data) // 2])
                    break
                sink.sendall(data)
        _shut(source)
        _shut(sink)


def _shut(one: socket.socket) -> None:
    with contextlib.suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
