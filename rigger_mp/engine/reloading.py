"""A reload under way, as the user's process holds it."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from rigger_mp.encoding import Encoded
from rigger_mp.engine import messages as m
from rigger_mp.engine.blueprint import Boot


class Reloading:
    """Waits for the end of a reload.

    Args:
        boot: what the engine will consist of.
        config: its configuration, encoded, for results.
        adopt: called on the results thread when the new generation has taken over, before anything that it did.
    """

    def __init__(self, boot: Boot, config: Encoded, adopt: Callable[[], None]) -> None:
        self.boot = boot
        self.config = config
        self.adopt = adopt
        self._future: Future[Any] = Future()

    def end(self, ending: Any) -> None:
        """Take how it ended."""
        self._future.set_result(ending)

    def wait(self) -> m.Reloaded:
        """Wait for the end and return what the dispatcher said.

        Raises:
            EngineLost: the engine ended before.
        """
        message: m.Reloaded = self._future.result().open()
        return message
