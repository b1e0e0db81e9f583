"""What only one slot may run, in its order, around tasks that wait for their retry.

::

    ready:  X (waits for its retry) │ Y │ X │ X+Y │ Y         X, Y: stateful instances
    sent:                             ✓   ✗    ✗    ✗

A task that lost its process keeps its place until it is run again. What must not overtake it waits behind it, and
what must not overtake that, too; everything else goes on.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rigger_mp.engine.activity import Task


class ReadyQueue:
    """See the module."""

    def __init__(self) -> None:
        self._tasks: deque[Task] = deque()
        self._delayed: set[Task] = set()
        self._passed = 0
        self._held_up: set[str] = set()

    def __len__(self) -> int:
        return len(self._tasks)

    def __iter__(self) -> Iterator[Task]:
        return iter(self._tasks)

    def append(self, task: Task) -> None:
        """Queue a task behind all others."""
        self._tasks.append(task)

    def appendleft(self, task: Task) -> None:
        """Queue a task before all others."""
        self._tasks.appendleft(task)
        self._look_again()

    def remove(self, task: Task) -> None:
        """Take a task out, wherever it is."""
        self._tasks.remove(task)
        self._delayed.discard(task)
        self._look_again()

    def delay(self, task: Task) -> None:
        """Queue a task before all others, to be sent once it is released."""
        self._delayed.add(task)
        self.appendleft(task)

    def release(self, task: Task) -> None:
        """Let a delayed task be sent; do nothing if it is not delayed here."""
        self._delayed.discard(task)
        self._look_again()

    def peek(self) -> Task | None:
        """Return the task to be sent next, ``None`` if all have to wait."""
        if not self._delayed:
            return self._tasks[0] if self._tasks else None
        for task in islice(self._tasks, self._passed, None):
            if task not in self._delayed and self._held_up.isdisjoint(task.order_keys):
                return task
            # It is not looked at again before something changes: there may be thousands of them.
            self._held_up |= task.order_keys
            self._passed += 1
        return None

    def pop(self) -> Task:
        """Take out what :meth:`peek` has just returned."""
        task = self._tasks[self._passed]
        del self._tasks[self._passed]
        return task

    def _look_again(self) -> None:
        self._passed = 0
        self._held_up.clear()
