"""Waiting for an answer that comes soon: look for it for a moment before going to sleep.

Going to sleep costs little. But a core with nothing to do goes to sleep, too, and waking it for the next of the
processes that an event passes through takes longer than all that they do. While the caller keeps its core awake,
they share the others without that. Every look gives way to whoever else wants the core, so that on
a busy machine nothing is lost by it; and nobody looks whose last answers were long in coming.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable


class EagerWait:
    """The waits of one thread after another for the same kind of answer.

    Args:
        look_time: seconds to look for the answer; it comes soon while it takes less than twice that.
    """

    def __init__(self, look_time: float) -> None:
        self._look_time = look_time
        self._comes_soon = False

    def wait(self, look: Callable[[], bool], sleep: Callable[[], bool]) -> bool:
        """Wait for an answer; tell whether it has come.

        Args:
            look: tells at once whether it has come.
            sleep: waits until it has come, or does not come in time; tells which.
        """
        began = time.monotonic()
        come = (self._comes_soon and self._look(look, began + self._look_time)) or sleep()
        self._comes_soon = come and time.monotonic() - began < 2 * self._look_time
        return come

    def _look(self, look: Callable[[], bool], until: float) -> bool:
        while not look():
            os.sched_yield()
            if time.monotonic() > until:
                return False
        return True
