"""A plugin that does to its process whatever a plugin can, for the tests of survival."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from rigger_mp import RiggerBasePlugin

SPARE = 64 << 20
"""Bytes that a process may still allocate after it has limited itself."""


class Poison:
    """Pickles, and cannot be unpickled."""

    def __reduce__(self) -> tuple[Callable[[str], Any], tuple[str]]:
        return int, ("poison",)


class SpeechlessError(Exception):
    """Has no text."""

    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


class LeavingError(Exception):
    """Leaves whatever pickles it."""

    def __reduce__(self) -> Any:
        sys.exit(5)


class HomesickError(Exception):
    """Can be unpickled in the process where it was made, and nowhere else."""

    def __init__(self, pid: int) -> None:
        super().__init__(pid)
        if pid != os.getpid():
            raise RuntimeError("not at home")


class TornMapping(Mapping[str, Any]):
    """Fails while it is read."""

    def __getitem__(self, key: str) -> Any:
        raise RuntimeError("torn")

    def __iter__(self) -> Iterator[str]:
        return iter(("a", "b"))

    def __len__(self) -> int:
        return 2


class Rogue(RiggerBasePlugin):
    """Stateless. Each hook is one misdeed; ``fine`` and ``fine_later`` are what must work afterwards."""

    stateless = True

    def plugin_initialize(self) -> None:
        for name in dir(type(self)):
            if name not in dir(RiggerBasePlugin) and not name.startswith("_"):
                self.register_plugin_hook(name)

    def fine(self) -> Any:
        print("fine")
        return {"pid": os.getpid()}, {"counted": [1]}

    async def fine_later(self) -> Any:
        await asyncio.sleep(0)
        return {"pid": os.getpid()}, None

    # -- the process -------------------------------------------------------------------------------------

    def replace_streams(self) -> None:
        sys.stdout = None  # type: ignore[assignment]
        sys.stderr = object()  # type: ignore[assignment]

    def close_streams(self) -> None:
        sys.stdout.close()
        sys.stderr.close()
        sys.stdout = sys.__stdout__

    def close_first_descriptors(self) -> None:
        os.closerange(0, 21)

    def close_all_descriptors(self) -> None:
        os.closerange(0, 1024)

    def change_directory(self, folder: str) -> None:
        os.chdir(folder)
        Path(folder).rmdir()

    def install_handlers(self) -> None:
        for number in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}:
            signal.signal(number, lambda *_: sys.exit(4))

    def set_alarm(self) -> None:
        signal.signal(signal.SIGALRM, lambda *_: sys.exit(4))
        signal.setitimer(signal.ITIMER_REAL, 0.05)

    def start_threads(self) -> None:
        for daemon in (True, False):
            threading.Thread(target=time.sleep, args=(600,), daemon=daemon).start()

    def start_children(self) -> Any:
        children = [multiprocessing.get_context("fork").Process(target=time.sleep, args=(600,)) for _ in range(8)]
        for child in children:
            child.start()
        return {"children": [child.pid for child in children]}, None

    def kill_own_group(self) -> None:
        os.killpg(0, signal.SIGKILL)

    def stop_itself(self) -> None:
        os.kill(os.getpid(), signal.SIGSTOP)

    # -- limits ------------------------------------------------------------------------------------------

    def exhaust_memory(self) -> Any:
        size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (size + SPARE, hard))
        return {"block": bytes(1 << 30)}, None

    def exhaust_descriptors(self) -> None:
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
        with Path("/dev/null").open():
            pass

    def exhaust_time(self) -> None:
        resource.setrlimit(resource.RLIMIT_CPU, (1, 2))
        while True:
            pass

    def exhaust_stack(self) -> None:
        self.exhaust_stack()

    # -- values ------------------------------------------------------------------------------------------

    def raise_speechless(self) -> None:
        raise SpeechlessError

    def raise_leaving(self) -> None:
        raise LeavingError

    def raise_homesick(self) -> None:
        raise HomesickError(os.getpid())

    def raise_generator_exit(self) -> None:
        raise GeneratorExit

    def return_torn(self) -> Any:
        return TornMapping(), None

    def return_poison(self) -> Any:
        return {"poison": Poison()}, {"poison": Poison(), "nest": {str(time.monotonic_ns()): Poison()}}

    def take_poison(self, poison: Any) -> None:
        raise AssertionError(f"{poison} must never arrive")

    # -- the event loop ----------------------------------------------------------------------------------

    async def leave_the_loop(self) -> None:
        sys.exit(3)

    async def stop_the_loop(self) -> None:
        asyncio.get_running_loop().stop()
        await asyncio.sleep(600)

    async def forget_a_task(self) -> None:
        self.task = asyncio.get_running_loop().create_task(asyncio.sleep(600))
