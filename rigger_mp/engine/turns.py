"""Turns: events reach a stateful instance in the order in which they were admitted."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable

from rigger_mp.engine.activity import NO_ACTORS, Activity, Task


class Turns:
    """A queue of tickets for each stateful instance, and the tasks that wait for their turn.

    Args:
        make_ready: called with each task once it is its turn.
    """

    def __init__(self, make_ready: Callable[[Task], None]) -> None:
        self._make_ready = make_ready
        self._tickets: dict[str, deque[Activity]] = {}
        self._parked: dict[tuple[str, Activity], Task] = {}
        self._due: deque[Task] = deque()
        self._busy = False

    def draw(self, activity: Activity, actors: frozenset[str]) -> None:
        """Draw a ticket for each actor."""
        for actor in actors:
            self._tickets.setdefault(actor, deque()).append(activity)
        activity.tickets = actors

    def transfer(self, giver: Activity, taker: Activity, actors: Iterable[str]) -> None:
        """Hand tickets to another activity, which takes the giver's place."""
        for actor in actors:
            queue = self._tickets[actor]
            queue[queue.index(giver)] = taker
            giver.tickets -= {actor}
            taker.tickets |= {actor}

    def queue(self, task: Task) -> None:
        """Make a task ready now, or when it is its activity's turn with every actor of the task."""
        self._due.append(task)
        self._settle()

    def give_up(self, activity: Activity) -> None:
        """Take back the tickets of an activity that has ended."""
        if not activity.tickets:
            return
        actors, activity.tickets = activity.tickets, NO_ACTORS
        for actor in actors:
            self._tickets[actor].remove(activity)
            self._advance(actor)
        self._settle()

    def _settle(self) -> None:
        # A task that fails at once ends its event, which comes back here: recursion would know no bound.
        if self._busy:
            return
        self._busy = True
        try:
            while self._due:
                self._try(self._due.popleft())
        finally:
            self._busy = False

    def _try(self, task: Task) -> None:
        if not task.actors:
            self._make_ready(task)
            return
        activity = task.activity
        for actor in task.actors:
            if self._tickets[actor][0] is not activity:
                self._parked[actor, activity] = task
                return
        for actor in task.actors:
            self._tickets[actor].popleft()
            activity.tickets -= {actor}
            self._advance(actor)
        self._make_ready(task)

    def _advance(self, actor: str) -> None:
        queue = self._tickets[actor]
        if not queue:
            del self._tickets[actor]
            return
        task = self._parked.pop((actor, queue[0]), None)
        if task is not None:
            self._due.append(task)
