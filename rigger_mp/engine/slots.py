"""The slots and what waits for them: which task goes to which process, and how much at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator

from rigger_mp.engine.activity import ANY, Slot, Task, group_by_home
from rigger_mp.engine.estimate import Estimates
from rigger_mp.engine.placement import is_archive
from rigger_mp.engine.registry import Plan, Stage

BUDGET = 0.016
"""Seconds of measured work that may be queued in one worker."""
LONGEST_PREFETCH = 0.05
"""Seconds of measured work up to which a worker may have a second task, while more wait than there are workers."""
MOST_JOBS = 256
FAN_OUT_GAIN = 0.0005
"""Seconds that running a stage in parallel must save, beside the messages that it takes."""
MESSAGE_TIME = 0.00005
"""Seconds that one more message of a job and its results takes."""


class SlotTable:
    """All slots, the tasks that any worker may run, and the measurements that decide.

    Attributes:
        slots: by number.
        estimates: how long functions take.
        superseded: those of former generations that have something left to do.
    """

    def __init__(self, slots: Iterable[Slot]) -> None:
        self.slots = {slot.number: slot for slot in slots}
        self.estimates = Estimates()
        self.superseded: list[Slot] = []
        self._shared: deque[Task] = deque()
        self._delayed: list[Task] = []

    def estimate(self, stages: tuple[Stage, ...]) -> float | None:
        """Return seconds that these functions will hardly exceed in sum, ``None`` if unmeasured."""
        return self.estimates.upper(stages)

    def has_room(self, slot: Slot, stages: tuple[Stage, ...], times: int = 1) -> bool:
        """Tell whether functions, to be called so many times, may be sent to a slot now, behind what is there."""
        estimate = self.estimate(stages)
        return not slot.ready and slot.has_room(estimate and estimate * times, BUDGET, MOST_JOBS)

    def put(self, task: Task) -> str:
        """Queue a task; return why it can never run, or ``""``."""
        if task.home == ANY:
            if self._shared or self._any_shared():
                self._shared.append(task)
                return ""
            return self.least_loaded().gone
        slot = self.slots[task.home]
        if not slot.gone:
            slot.ready.append(task)
        return slot.gone

    def swap(self, slots: Iterable[Slot], shared: frozenset[int], staged: Iterable[Slot] = ()) -> None:
        """Let only these slots, which are there already, get new tasks; no task of an event may wait for any other.

        An archive's new slot gets its first task when the old one has finished its last.

        Args:
            slots: those that take over.
            shared: the numbers of those that take tasks that any worker may run.
            staged: those that may take over later.
        """
        successors = list(slots)
        kept = {slot.number for slot in (*successors, *staged)}
        self.superseded = [slot for slot in self.slots.values() if slot.number not in kept]
        for slot in self.superseded:
            slot.shared = False
        for slot in successors:
            slot.shared = slot.number in shared
            if is_archive(slot.number):
                slot.behind = next((old for old in reversed(self.superseded) if is_archive(old.number)), None)
        self.estimates = Estimates()

    def take_drained(self) -> list[Slot]:
        """Take out the superseded slots that have nothing left to do."""
        drained = [slot for slot in self.superseded if slot.drained]
        for slot in drained:
            self.superseded.remove(slot)
            del self.slots[slot.number]
        return drained

    def put_back(self, slot: Slot, task: Task) -> None:
        """Queue a task again that was sent to a slot, before all others."""
        if task.home == ANY:
            self._shared.appendleft(task)
        else:
            slot.ready.appendleft(task)

    def delay(self, slot: Slot, task: Task) -> None:
        """Queue a task again that was lost in a slot, to be sent once it is released."""
        if task.home == ANY:
            self._delayed.append(task)
        else:
            slot.ready.delay(task)

    def release(self, task: Task) -> None:
        """Let a delayed task be sent; do nothing if it is not delayed any more."""
        if task in self._delayed:
            self._delayed.remove(task)
            self._shared.appendleft(task)
        elif task.home in self.slots:
            self.slots[task.home].ready.release(task)

    def sendable(self) -> Iterator[tuple[Slot, Task]]:
        """Take tasks out for which there is room; each must be added to its slot before the next is asked for."""
        for slot in self.slots.values():
            while (task := slot.ready.peek()) and slot.has_room(self._measured(task), BUDGET, MOST_JOBS):
                yield slot, slot.ready.pop()
        while self._shared:
            found = self._slot_with_room(self._measured(self._shared[0])) or self._slot_to_prefetch()
            if found is None:
                return
            yield found, self._shared.popleft()

    def strand(self) -> list[Task]:
        """Take out the tasks that any worker might have run, if there is none left."""
        if self._any_shared():
            return []
        stranded = [*self._delayed, *self._shared]
        self._delayed.clear()
        self._shared.clear()
        return stranded

    def least_loaded(self) -> Slot:
        """Return the shared slot with the least to do; one that can run something, if any can."""
        shared = [slot for slot in self.slots.values() if slot.shared]
        return min(shared, key=lambda slot: (bool(slot.gone), not slot.up, len(slot.outstanding)))

    def fan_out_pays(self, plan: Plan) -> bool:
        """Tell whether idle workers would make a stage of a plan faster by more than messages cost."""
        idle = sum(1 for slot in self.slots.values() if slot.shared and slot.up and not slot.outstanding)
        if idle < 2:
            return False
        for stage in plan.stages:
            each = [self.estimate((part,)) for _, part in group_by_home(stage, threaded=True)]
            known = [seconds for seconds in each if seconds is not None]
            if len(each) > 1 and (len(known) < len(each) or saved_by_fan_out(known, idle) > FAN_OUT_GAIN):
                return True
        return False

    def _any_shared(self) -> bool:
        return any(slot.shared and not slot.gone for slot in self.slots.values())

    def _measured(self, task: Task) -> float | None:
        if task.estimate is None:
            estimate = self.estimate(task.stages)
            task.estimate = estimate and estimate * task.activity.count
        return task.estimate

    def _slot_to_prefetch(self) -> Slot | None:
        """Return a slot that would be idle while its next task is on the way, if more wait than there are slots."""
        shared = [slot for slot in self.slots.values() if slot.shared and not slot.gone]
        estimate = self._measured(self._shared[0])
        if len(self._shared) <= len(shared) or estimate is None:
            return None
        for slot in shared:
            if len(slot.outstanding) == 1 and slot.has_room(estimate, LONGEST_PREFETCH, 2):
                return slot
        return None

    def _slot_with_room(self, estimate: float | None) -> Slot | None:
        best: Slot | None = None
        for slot in self.slots.values():
            if slot.shared and slot.has_room(estimate, BUDGET, MOST_JOBS):
                if not slot.outstanding:
                    return slot
                if best is None or slot.load < best.load:
                    best = slot
        return best


def saved_by_fan_out(seconds: list[float], workers: int) -> float:
    """Return the seconds that functions which take so long save if these workers share them."""
    total = sum(seconds)
    return total - max(*seconds, total / workers) - MESSAGE_TIME * len(seconds)
