"""The dispatcher as the user's process sees it: started, sent messages, told of another Manager, ended."""

from __future__ import annotations

import contextlib
import os
import pickle
import socket
import subprocess
from collections.abc import Callable
from typing import Any

from rigger_mp.engine import messages as m
from rigger_mp.engine.blueprint import Boot
from rigger_mp.engine.descriptors import name_segments, send_at_once
from rigger_mp.engine.frames import frame
from rigger_mp.engine.ingress import Ingress
from rigger_mp.engine.launch import launch
from rigger_mp.engine.marks import Marks
from rigger_mp.engine.process import kill_tree


class DispatcherProcess:
    """A running dispatcher.

    Args:
        boot: what the engine consists of.
        publishing: the writing end of a pipe to the Manager; closed here once it is passed on.
        marks: the memory that outlives it.
        floor: see :class:`~rigger_mp.engine.ingress.Ingress`.

    Attributes:
        ingress: the way to it.
        socket: where its messages come from.
        process: the process.
    """

    def __init__(self, boot: Boot, publishing: int, marks: Marks, floor: Callable[[], int]) -> None:
        self.ingress = Ingress(floor)
        self.socket, theirs = socket.socketpair()
        fds = {
            "ingress": self.ingress.reading_fd, "owner": theirs.fileno(), "manager": publishing, "marks": marks.fd,
        }  # fmt: skip
        self.process: subprocess.Popen[bytes] = launch("dispatcher", fds, "rigger-mp dispatcher")
        theirs.close()
        os.close(publishing)
        self.ingress.close_reader()
        with contextlib.suppress(OSError):  # it is gone: whoever reads the socket will see it
            self.socket.sendall(frame(pickle.dumps(boot)))

    def send(self, message: Any, *, now: bool = False) -> None:
        """Send a message after those sent before, and before it the segments of an event.

        Args:
            message: may be sent to another dispatcher again: nothing of it is used up.
            now: at once, if nothing is on its way; else together with what follows soon.
        """
        if type(message) is m.Event and message.segments:
            message = self._send_segments(message)
        (self.ingress.put_now if now else self.ingress.put)(message)

    def _send_segments(self, event: m.Event) -> m.Event:
        named: m.Event
        named, fds = name_segments(event)
        if fds and not send_at_once(self.socket, b"S", fds):
            named, _ = name_segments(event, may_send=False)
        return named

    def adopt_manager(self, publishing: int) -> bool:
        """Have it publish to another Manager from now on; false if it is gone. Closes the descriptor here."""
        try:
            socket.send_fds(self.socket, [b"M"], [publishing])
        except OSError:
            return False
        finally:
            os.close(publishing)
        return True

    def let_go(self) -> None:
        """Let it end, once it has said that everything accepted has ended: nobody needs its globals any more."""
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_WR)

    def reap(self, timeout: float) -> None:
        """Wait some seconds for its end, kill it if that does not come, and reap it."""
        try:
            self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            self.process.wait()

    def close(self) -> None:
        """Release everything, once it has ended."""
        self.socket.close()
        self.ingress.close()

    def kill(self) -> None:
        """Kill it and everything that it started."""
        kill_tree(self.process.pid)
