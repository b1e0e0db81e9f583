"""What a dispatcher is told when it starts, or when it is to reload."""

# Not from __future__ import annotations: typing compiles each annotation of a named tuple that is a string.
import pickle
import socket
from functools import cache
from typing import Any, NamedTuple

from rigger_mp.engine.frames import read_frame


class InstancePlan(NamedTuple):
    """An instance as the dispatcher knows it; ``setup`` is its pickled ``InstanceSpec``."""

    ident: str
    setup: bytes
    stateless: bool
    background: bool
    dedicated: bool
    max_retries: int


class Limits(NamedTuple):
    """Limits on processes; see the configuration keys of the same names."""

    max_restarts: int = 5
    restart_period: float = 60.0
    max_tasks_per_child: int | None = None
    time_limited: bool = False


class Boot(NamedTuple):
    """Everything that a dispatcher is told.

    Attributes:
        settings: the pickled :class:`~rigger_mp.engine.host.HostSettings`.
        retry_delay: seconds that the first retry of a lost event waits at most.
        spool: the absolute path of the archive's spool, or ``""``.
        synchronous: of the spool.
        max_output: bytes of hooks' output that may wait for the user's process.
        globals: version and chains of the global namespace, where another dispatcher had been at work.
        republish: the Manager does not have these.
        generation: counts reloads, from 1.
    """

    workers: int
    instances: tuple[InstancePlan, ...]
    settings: bytes
    limits: Limits
    threaded: bool
    squash: bool
    list_merge: str
    queue_size: int
    max_nesting: int
    overrides: dict[str, bool]
    hook_retries: dict[str, int]
    default_retries: int = 0
    archive_retries: int = 0
    retry_delay: float = 0.1
    spool: str = ""
    synchronous: str = "normal"
    max_output: int = 8 << 20
    globals: tuple[int, Any] = (0, None)
    republish: bool = False
    generation: int = 1

    @staticmethod
    def receive(owner: socket.socket) -> "Boot":
        """Return what came over the socket to the user's process."""
        return receive_boot(owner.fileno())


@cache
def receive_boot(fd: int) -> Boot:
    """Read it off the socket to the user's process, where it is the first frame; later return the same again."""
    payload = read_frame(fd)  # what follows may come with descriptors
    if payload:
        boot: Boot = pickle.loads(payload)
        return boot
    raise SystemExit(0)
