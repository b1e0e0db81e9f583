"""The dispatcher as the user's process sees it: started, sent messages, told of another Manager, ended."""

from __future__ import annotations

import contextlib
import os
import pickle
import socket
import subprocess
from collections.abc import Callable

from rigger_mp.engine.frames import frame
from rigger_mp.engine.generation import Boot
from rigger_mp.engine.ingress import Ingress
from rigger_mp.engine.marks import Marks
from rigger_mp.engine.process import kill_tree, launch


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

    def adopt_manager(self, publishing: int) -> bool:
        """Have it publish to another Manager from now on; false if it is gone. Closes the descriptor here."""
        try:
            socket.send_fds(self.socket, [b"M"], [publishing])
        except OSError:
            return False
        finally:
            os.close(publishing)
        return True

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
