"""Where connections wait for room in the engine's queue."""

from __future__ import annotations

import asyncio
import contextlib
from asyncio import AbstractEventLoop
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rigger_mp.net.service import Backend


class Room:
    """See the module: one at a time tries, first come, first served.

    Args:
        backend: the engine.
        loop: the server's loop.
    """

    def __init__(self, backend: Backend, loop: AbstractEventLoop) -> None:
        self._backend = backend
        self._loop = loop
        self._turn = asyncio.Lock()

    async def retry(self, attempt: Callable[[], bool]) -> None:
        """Try until it succeeds, each time when there may be room."""
        async with self._turn:
            while not attempt():
                tried = asyncio.Event()
                self._backend.when_room(lambda event=tried: self._wake(event))  # type: ignore[misc]
                await tried.wait()

    def _wake(self, event: asyncio.Event) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: there is nobody left to wake
            self._loop.call_soon_threadsafe(event.set)
