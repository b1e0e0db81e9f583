"""Keeps every slot filled with a process: starts, replaces, limits, and says who is to blame.

::

    slot 0 ── worker-0 (pid 11)          a slot outlives its processes; its instances are made again
    slot 1 ── worker-1 (pid 12)          in the next one, and their configure calls replayed
    archive ─ archive  (pid 13)
    slot 2 ── worker-0 (pid 14)          of another generation, while it takes over
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from rigger_mp.engine import messages as m
from rigger_mp.engine.blueprint import Limits
from rigger_mp.engine.descriptors import SocketReader, SocketWriter
from rigger_mp.engine.marks import ROWS, Marks
from rigger_mp.engine.process import WorkerProcess
from rigger_mp.engine.segments import most_open
from rigger_mp.engine.starting import Started, start_worker, take_first_workers

if TYPE_CHECKING:
    from rigger_mp.engine.activity import Slot
    from rigger_mp.engine.job_marks import JobMarks

LIMIT_CHECK = 0.1
"""Seconds between looks at the time limits of running functions."""
EXIT_TIME = 1.0
"""Seconds that workers get to end by themselves when the engine stops."""


class SeatKind(NamedTuple):
    """What all processes of one generation have in common.

    Attributes:
        settings: the pickled :class:`~rigger_mp.engine.host.HostSettings`.
        limits: limits on processes.
    """

    settings: bytes
    limits: Limits


@dataclass(slots=True, eq=False)
class Seat:
    """A slot, the process that fills it, and what a new process has to be told.

    Attributes:
        kind: what all processes of its generation are told.
        instances: ``(ident, setup)`` of the instances that live here.
        making: the instances that the present process was told to make, in their order.
        left_out: problems by ident of the instances that are not made here any more.
        functions: callbacks loaded here, to be loaded again.
        hosted: whether the present process has made its instances.
        worn: the present process has used enough memory.
        retiring: the present process is being ended, because it has run enough jobs.
        jobs: how many jobs the present process has done; ``past_jobs``: those before it.
        restarts: how often a process of this seat was replaced.
        row: of the present process, in the marks; ``nested``: how many nested events it has fired.
        starts_failed: when processes died, one after another, before they had made their instances, by
            ``time.monotonic``.
        end_by: until when, by ``time.monotonic``, its process may end by itself: there will be no other;
            0: it is needed.
        job_marks: of the archive, if there is a spool: where it notes which jobs it starts and ends.
    """

    slot: Slot
    name: str
    kind: SeatKind
    instances: list[tuple[str, bytes]] = field(default_factory=list)
    making: tuple[str, ...] = ()
    left_out: dict[str, str] = field(default_factory=dict)
    functions: dict[str, m.Load] = field(default_factory=dict)
    process: WorkerProcess | None = None
    reader: SocketReader | None = None
    writer: SocketWriter | None = None
    hosted: bool = False
    worn: bool = False
    retiring: bool = False
    jobs: int = 0
    restarts: int = 0
    starts_failed: deque[float] = field(default_factory=deque)
    past_jobs: int = 0
    job_marks: JobMarks | None = None
    row: int = ROWS
    nested: int = 0
    end_by: float = 0.0


class Supervisor:
    """Owns the worker processes.

    Args:
        marks: the memory that outlives this process.
        watch: called with a seat once it has a new process, for its descriptors to be watched.
        unwatch: called with a seat before the descriptors of its process are closed.

    Attributes:
        seats: by the number of their slot.
        dismissed: those whose processes are to end by themselves.
        time_limited: whether a function may have a time limit.
        may_retire: whether a process may have to be ended between two jobs.
        nested_received: how many nested events have come from processes that have a row in the marks.
    """

    def __init__(
        self,
        marks: Marks,
        watch: Callable[[Seat], None],
        unwatch: Callable[[Seat], None],
    ) -> None:
        self.seats: dict[int, Seat] = {}
        self._marks = marks
        self._first = take_first_workers()
        self._rows = list(range(len(self._first), ROWS))
        self._received = [0] * ROWS
        self._watch = watch
        self._unwatch = unwatch
        self._configured: dict[str, list[bytes]] = {}
        self.nested_received = 0
        self.dismissed: set[Seat] = set()
        self.time_limited = False
        self.may_retire = False

    def add(
        self,
        slot: Slot,
        name: str,
        kind: SeatKind,
        instances: Iterable[tuple[str, bytes]],
        job_marks: JobMarks | None = None,
    ) -> Seat:
        """Add a slot and start its first process."""
        seat = Seat(slot, name, kind, list(instances), job_marks=job_marks)
        self.seats[slot.number] = seat
        self.time_limited |= kind.limits.time_limited
        self.may_retire |= kind.limits.max_tasks_per_child is not None
        self.start(seat)
        return seat

    def start(self, seat: Seat) -> None:
        """Fill a seat with a new process and have it make its instances."""
        started = self._first.pop(seat.slot.number, None) or self._start_worker(seat)
        seat.process, seat.reader, seat.writer, seat.row = started
        seat.hosted = seat.worn = seat.retiring = False
        seat.jobs = 0
        seat.making = tuple(ident for ident, _ in seat.instances)
        seat.slot.refill(seat.kind.limits.max_tasks_per_child)
        self._watch(seat)

    def _start_worker(self, seat: Seat) -> Started:
        row = self._rows.pop() if self._rows else ROWS
        instances = tuple(
            (ident, setup, tuple(self._configured.get(ident, ()))) for ident, setup in seat.instances
        )
        host = m.Host(seat.kind.settings, instances, tuple(seat.left_out.items()))
        return start_worker(seat.name, self._marks, row, [host, *seat.functions.values()], seat.job_marks)

    def send(self, seat: Seat, batch: list[Any]) -> None:
        """Send messages to the process of a seat."""
        if seat.writer is not None:
            seat.writer.write_batch(batch, self._may_send_descriptors)

    def _may_send_descriptors(self) -> bool:
        # The system bounds how many are on their way, and a worker that is busy receives none.
        tasks = (task for seat in self.seats.values() for task in seat.slot.outstanding.values())
        return sum(len(t.activity.segments) + len(t.activity.update_segments) for t in tasks) <= most_open()

    def load(self, function: m.Load, seats: Iterable[Seat]) -> None:
        """Give a callback to the processes of some seats, present and future."""
        for seat in seats:
            seat.functions[function.function_id] = function
            self.send(seat, [function])

    def forget(self, function_id: str) -> None:
        """Take a callback away from every process."""
        for seat in self.seats.values():
            seat.functions.pop(function_id, None)
            self.send(seat, [m.Forget(function_id)])

    def remember_configure(self, ident: str, call: bytes) -> None:
        """Replay a ``configure`` call whenever the instance is made again."""
        self._configured.setdefault(ident, []).append(call)

    # -- the end of processes ----------------------------------------------------------------------------

    def collect_remains(self, seat: Seat) -> tuple[list[bytes], int]:
        """Return the frames that a dead process left, and the job that it died in (0: none)."""
        assert seat.process is not None
        assert seat.reader is not None
        frames = seat.reader.read_to_end() + seat.process.journal.unsent()
        return frames, seat.process.journal.job

    def bury(self, seat: Seat) -> str:
        """Release the dead process of a seat; return a description of its end."""
        process = seat.process
        assert process is not None
        self._unwatch(seat)
        process.kill()  # what its hooks started, and itself where only its socket is closed
        process.reap()
        self._free_row(seat)
        seat.process = seat.reader = seat.writer = None
        seat.past_jobs += seat.jobs
        seat.restarts += 1
        return f"{seat.name} (pid {process.pid}) {process.describe_end()}"

    def count_nested(self, seat: Seat) -> None:
        """Note that a nested event has come from the process of a seat."""
        if seat.row < ROWS:
            seat.nested += 1
            self.nested_received += 1

    def _free_row(self, seat: Seat) -> None:
        if seat.row < ROWS:
            self._received[seat.row] += seat.nested
            self._marks.remove_process(seat.row, self._received[seat.row])
            self._rows.append(seat.row)
        seat.nested = 0

    def may_restart(self, seat: Seat, ended_while_starting: bool) -> bool:
        """Tell whether a seat gets another process: not if too many could not even make their instances."""
        if not ended_while_starting:
            return True
        now = time.monotonic()
        seat.starts_failed.append(now)
        limits = seat.kind.limits
        while seat.starts_failed and seat.starts_failed[0] < now - limits.restart_period:
            seat.starts_failed.popleft()
        return len(seat.starts_failed) <= limits.max_restarts

    def overdue(self) -> list[Seat]:
        """Return the seats whose running function has exceeded its time limit; their processes are halted."""
        now = time.monotonic()
        return [seat for seat in self.seats.values() if _is_late(seat, now) and self._catch(seat, now)]

    def _catch(self, seat: Seat, now: float) -> bool:
        """Halt the process of a seat if it still runs what is late: the next job must not be blamed."""
        assert seat.process is not None
        if not seat.process.halt():
            return False
        if _is_late(seat, now):
            return True
        seat.process.resume()
        return False

    def next_check(self) -> float | None:
        """Return in how many seconds to look at the time limits again, ``None``: nothing is limited."""
        if self.dismissed:
            return LIMIT_CHECK
        if not self.time_limited:
            return None
        busy = any(seat.slot.outstanding for seat in self.seats.values())
        return LIMIT_CHECK if busy else None

    def wear_out(self, seat: Seat) -> None:
        """Note that the process of a seat has used enough memory."""
        seat.worn = True
        self.may_retire = True

    def retire_worn(self) -> None:
        """End, between two jobs, processes that have run ``max_tasks_per_child`` of them, or are worn."""
        for seat in self.seats.values():
            most = seat.kind.limits.max_tasks_per_child
            if seat.hosted and (seat.worn or (most is not None and seat.jobs >= most)):
                seat.slot.up = False
                if not seat.slot.outstanding and not seat.retiring and seat.process is not None:
                    seat.retiring = True
                    seat.process.kill()

    def dismiss(self, seat: Seat) -> None:
        """Let the process of a seat that is needed no more end by itself, when it has done what it was sent."""
        if seat.process is None:
            del self.seats[seat.slot.number]
            self.dismissed.discard(seat)
            return
        seat.end_by = time.monotonic() + EXIT_TIME
        self.dismissed.add(seat)
        seat.process.let_end()

    def end_dismissed(self) -> None:
        """Kill the processes that were to end by themselves, and did not in time."""
        now = time.monotonic()
        for seat in self.dismissed:
            if seat.process is not None and seat.end_by < now:
                seat.process.kill_tree()

    def stop(self, exit_time: float = EXIT_TIME) -> None:
        """Let every process end within some seconds, kill those that do not, and reap all."""
        deadline = time.monotonic() + exit_time
        processes = []
        for seat in self.seats.values():
            if seat.process is not None:
                self._unwatch(seat)
                seat.process.close()
                processes.append(seat.process)
                seat.process = seat.reader = seat.writer = None
        for process in processes:
            process.end(deadline)


def _is_late(seat: Seat, now: float) -> bool:
    return seat.process is not None and 0 < seat.process.journal.deadline < now
