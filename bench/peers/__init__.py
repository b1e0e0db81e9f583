"""One module a peer: what a user would pick instead of rigger_mp, used as its documentation says is fastest."""

from __future__ import annotations

import importlib
import importlib.util
from contextlib import AbstractContextManager
from dataclasses import dataclass

from bench.peers.pool import Pool

OURS = "rigger_mp"


@dataclass(frozen=True)
class Peer:
    """One thing to compare with.

    Attributes:
        title: what tables call it.
        module: the module of ``bench.peers`` that knows how to use it, if it is used as a pool.
        needs: the module that must be installed for it.
        slow: ``--quick`` leaves it out: it takes seconds, or is one more pool of many.
        options: what the module's ``open_pool`` is told.
    """

    title: str
    module: str = ""
    needs: str = "sys"
    slow: bool = False
    options: tuple[tuple[str, str], ...] = ()

    @property
    def installed(self) -> bool:
        """Whether it can be measured here."""
        return importlib.util.find_spec(self.needs) is not None


PEERS = {
    OURS: Peer("rigger_mp", "ours"),
    "rigger_mp-sequential": Peer("rigger_mp, threaded: false"),
    "relay": Peer("raw relay, no engine", "relay"),
    "serial": Peer("serial loop, one process"),
    "bare": Peer("bare processes, no engine"),
    "ppe": Peer("ProcessPoolExecutor (fork)", "executor", options=(("method", "fork"),)),
    "ppe-forkserver": Peer("ProcessPoolExecutor (forkserver)", "executor", options=(("method", "forkserver"),)),
    "ppe-spawn": Peer("ProcessPoolExecutor (spawn)", "executor", options=(("method", "spawn"),)),
    "pool": Peer("multiprocessing.Pool (fork)", "mp_pool"),
    "loky": Peer("loky", "loky_pool", "loky", slow=True),
    "pebble": Peer("pebble (fork)", "pebble_pool", "pebble", slow=True),
    "mpire": Peer("mpire (fork)", "mpire_pool", "mpire", slow=True),
    "ray": Peer("Ray", "ray_pool", "ray", slow=True),
    "dask": Peer("Dask distributed", "dask_pool", "distributed", slow=True),
    "riggerlib": Peer("riggerlib 3.1.6", needs="riggerlib"),
    "riggerlib-threaded": Peer("riggerlib 3.1.6, threaded", needs="riggerlib"),
    "riggerlib-client": Peer("riggerlib 3.1.6, its client", needs="riggerlib"),
}


def open_pool(name: str, workers: int) -> AbstractContextManager[Pool]:
    """Start a peer that runs functions on worker processes; it is stopped when the context ends."""
    peer = PEERS[name]
    module = importlib.import_module(f"bench.peers.{peer.module}")
    opened: AbstractContextManager[Pool] = module.open_pool(workers, **dict(peer.options))
    return opened
