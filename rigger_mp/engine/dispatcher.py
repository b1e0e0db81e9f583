"""The dispatcher process: the I/O around the scheduler.

::

    user's process ──multiprocessing.Queue──▶ ┌────────────┐ ──socket──▶ worker, archive
                                              │ dispatcher │ ◀─socket── worker, archive
    user's process ◀────────socket─────────── └────────────┘ ──pipe───▶ Manager

One selector waits for everything: frames, room to write, and the ends of processes. Nothing here blocks on a
single peer. Commits are written to the Manager before the outcomes that depend on them are written to the
user's process; background jobs are written to the spool, if there is one, before their events go on. No user code
runs here, and no user's value is ever decoded.
"""

from __future__ import annotations

import marshal
import os
import pickle
import selectors
import socket
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rigger_mp.encoding import PICKLE_MARK
from rigger_mp.engine import messages as m
from rigger_mp.engine.activity import Slot, Task
from rigger_mp.engine.assembly import Assembly
from rigger_mp.engine.blueprint import Boot
from rigger_mp.engine.commit_log import joined_entry
from rigger_mp.engine.descriptors import ArrivedSegments, SocketWriter, receive
from rigger_mp.engine.frames import FrameReader, FrameWriter
from rigger_mp.engine.marks import Counts, Marks
from rigger_mp.engine.process import WorkerProcess, open_sentinel
from rigger_mp.engine.retry_timer import RetryTimer
from rigger_mp.engine.segments import is_segment
from rigger_mp.engine.series import join_done
from rigger_mp.engine.silence import Silence
from rigger_mp.engine.supervisor import Seat, Supervisor
from rigger_mp.errors import SpoolError
from rigger_mp.fresh_source import import_fresh_sources

if TYPE_CHECKING:
    from rigger_mp.engine.spool import Spool

READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE


class _BytesUnpickler(pickle.Unpickler):
    """Opens what ``multiprocessing.Queue`` pickled: the engine's own frames, which are bytes."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("builtins", "bytes"):
            return bytes
        raise pickle.UnpicklingError(f"the ingress queue must not carry {module}.{name}")


@dataclass(slots=True)
class Peers:
    """The dispatcher's other ends: ingress queue, user's process, Manager."""

    ingress: FrameReader
    owner: socket.socket
    outcomes: SocketWriter
    manager: FrameWriter


class Dispatcher:
    """See the module.

    Args:
        boot: what the engine consists of.
        peers: the descriptors of the other processes.
        marks: the memory that outlives this process.
        parent_sentinel: readable once the user's process has ended, or ``None``.
        spool: keeps background jobs, if there is one.
    """

    def __init__(
        self, boot: Boot, peers: Peers, marks: Marks, parent_sentinel: int | None, spool: Spool | None = None
    ) -> None:
        self._peers = peers
        self._marks = marks
        self._selector = selectors.DefaultSelector()
        self._supervisor = Supervisor(marks, self._watch, self._unwatch)
        self._assembly = Assembly(boot, self._supervisor)
        self._scheduler = self._assembly.scheduler
        self._silence = Silence()
        self._retries: RetryTimer[Task] = RetryTimer(boot.retry_delay)
        self._keeper = None if spool is None else self._assembly.keep(spool)
        self._outbox: list[Any] = []
        self._stopping = False
        self._drains: list[int] = []
        self._manager_missed = False
        self._listening = False
        self._orphaned = False
        self._arrived = ArrivedSegments()
        self._floor = 0
        self._max_output = boot.max_output
        self._output_waiting = self._output_dropped = 0
        self._published = self._scheduler.log.version
        if boot.republish:
            self._republish()
        self._selector.register(peers.owner, READ, self._on_owner)
        if parent_sentinel is not None:
            self._selector.register(parent_sentinel, READ, self._on_orphaned)

    # -- the loop ----------------------------------------------------------------------------------------

    def run(self) -> None:
        """Serve until told to stop, or until the user's process is gone."""
        self._assembly.start_workers()
        self._watch_writers()  # what a worker is to host may be more than its socket takes at once
        while not self._finished():
            for key, mask in self._selector.select(self._next_check()):
                key.data(mask)
            if self._supervisor.time_limited:
                self._enforce_limits()
            for seat in self._silence.take_silent():
                self._take_kept(seat)
            self._advance()
        if self._orphaned:
            self._supervisor.stop(0.0)
            return
        self._supervisor.stop()
        self._send_last()
        self._await_release()

    def _next_check(self) -> float | None:
        seconds = self._silence.limit(self._retries.limit(self._supervisor.next_check()))
        return seconds if self._keeper is None else self._keeper.next_try(seconds)

    def _finished(self) -> bool:
        return self._orphaned or (self._stopping and self._assembly.ready and self._scheduler.idle)

    def _advance(self) -> None:
        if self._assembly.ready:
            self._listen()
            self._retry()
            self._send_jobs()
        if self._supervisor.may_retire:
            self._supervisor.retire_worn()
        self._assembly.forget_retired()
        self._end_former()
        self._publish()
        self._collect_endings()
        if self._drains and self._scheduler.idle:
            version = self._scheduler.log.version
            self._outbox += [m.Outcome(token, m.OK, (), (), version, "", "drain") for token in self._drains]
            self._drains.clear()
        # The Manager must have a commit before anybody is told of it: it may be asked for it next.
        if self._outbox and (self._peers.manager.broken or not self._peers.manager.blocked):
            self._send_outbox()
        if self._output_waiting and not self._outbox and not self._peers.outcomes.blocked:
            self._settle_output()
        self._watch_writers()

    def _collect_endings(self) -> None:
        scheduler = self._scheduler
        self._outbox += scheduler.messages
        scheduler.messages.clear()
        if scheduler.completed:
            self._outbox.append(m.Completed(tuple(scheduler.completed), scheduler.log.version))
            scheduler.completed.clear()

    def _end_former(self) -> None:
        if self._scheduler.table.superseded:
            self._assembly.dismiss_superseded()
        if self._supervisor.dismissed:
            self._supervisor.end_dismissed()

    def _send_outbox(self) -> None:
        # What an outcome leaves unfinished must be known before that is, and what it finishes not before.
        lasting = self._keeper is not None  # what the spool keeps is not lost with this process
        background = 0 if lasting else self._scheduler.background
        counts = Counts(self._scheduler.nested, background, self._supervisor.nested_received)
        self._marks.note(Counts(*map(max, counts, self._marks.counts)))
        self._peers.outcomes.write_batch(self._outbox)
        self._outbox.clear()
        self._marks.note(counts)

    def _listen(self) -> None:
        # Events wait in the queue until there are instances to run them.
        if not self._listening:
            self._listening = True
            self._selector.register(self._peers.ingress.fd, READ, self._on_ingress)

    def _retry(self) -> None:
        for task, retry in self._scheduler.delayed:
            self._retries.add(task, retry)
        self._scheduler.delayed.clear()
        for task in self._retries.take_due():
            self._scheduler.retry(task)

    def _send_jobs(self) -> None:
        batches: dict[int, list[m.Job]] = {}
        for slot, job in self._next_jobs():
            batches.setdefault(slot.number, []).append(job)
        for ident, call in self._scheduler.configured:
            self._supervisor.remember_configure(ident, call)
        self._scheduler.configured.clear()
        self._mark_begun()
        for number, batch in batches.items():
            seat = self._supervisor.seats[number]
            self._supervisor.send(seat, batch)
            self._silence.note(seat)

    def _next_jobs(self) -> list[tuple[Slot, m.Job]]:
        if self._keeper is None:
            return self._scheduler.next_jobs()
        jobs: list[tuple[Slot, m.Job]] = []
        while True:
            self._mark_begun()
            self._keeper.record()
            jobs += self._scheduler.next_jobs()
            if not self._keeper.due:
                return jobs

    def _mark_begun(self) -> None:
        for token in self._scheduler.begun:
            self._marks.start(token)
        self._scheduler.begun.clear()

    def _publish(self) -> None:
        commits = self._scheduler.commits
        self._mark_begun()
        if commits:
            # Where no outcome names one of them, nobody will ask for a version before the last.
            joined = len(commits) > 1 and not any(type(message) is m.Outcome for message in self._scheduler.messages)
            entries = ((len(commits), joined_entry(commits)),) if joined else tuple([(1, entry) for entry in commits])
            self._peers.manager.write(m.pack((m.Publish(self._published, entries, self._floor),)))
            self._published += len(commits)
            commits.clear()
        if self._peers.manager.broken and not self._manager_missed:
            self._manager_missed = True
            self._outbox.append(m.ManagerLost(self._published))

    def _watch_writers(self) -> None:
        outcomes, manager = self._peers.outcomes, self._peers.manager
        if outcomes.blocked is not outcomes.watched:
            self._watch_writer(self._peers.owner, outcomes, self._on_owner, READ)
        if manager.blocked is not manager.watched:
            self._watch_writer(manager.fd, manager, self._on_manager_writable, 0)
        for seat in self._supervisor.seats.values():
            writer = seat.writer
            if writer is not None and writer.blocked is not writer.watched and seat.process is not None:
                self._watch_writer(seat.process.socket, writer, None, READ)

    def _watch_writer(self, fd: Any, writer: FrameWriter, handler: Any, always: int) -> None:
        writer.watched = writer.blocked
        mask = always | (WRITE if writer.blocked else 0)
        key = self._selector.get_map().get(fd)
        if key is None:
            if mask:
                self._selector.register(fd, mask, handler)
        elif not mask:
            self._selector.unregister(fd)
        elif key.events != mask:
            self._selector.modify(fd, mask, key.data)

    # -- the user's process ------------------------------------------------------------------------------

    def _on_ingress(self, _mask: int) -> None:
        for payload in self._peers.ingress.read():
            pickled = payload[0] == PICKLE_MARK
            floor, batch = marshal.loads(_BytesUnpickler(BytesIO(payload)).load() if pickled else payload)
            self._floor = max(self._floor, floor)
            for message in m.unpack(batch):
                self._take(message)
        if self._peers.ingress.eof:
            self._selector.unregister(self._peers.ingress.fd)

    def _take(self, message: Any) -> None:
        match message:
            case m.Event():
                self._accept(message)
            case m.Series():
                self._scheduler.accept_series(message)
            case m.Inquire():
                self._outbox.append(m.Answer(message.token, marshal.dumps(self._assembly.stats())))
            case m.Drain():
                self._drains.append(message.token)
            case m.Stop():
                self._stopping = True
                self._outbox += self._assembly.abandon_reload()
            case _:
                self._assembly.take(message)

    def _accept(self, event: m.Event) -> None:
        arrived = self._arrived
        for id_, content in event.segments:
            # Its descriptor was sent before the event was.
            while content is None and id_ not in arrived and self._read_owner():
                continue
        self._scheduler.accept(event._replace(segments=arrived.take(event.segments)) if event.segments else event)

    def _on_owner(self, mask: int) -> None:
        if mask & WRITE:
            self._peers.outcomes.flush()
        if mask & READ:
            self._read_owner()

    def _read_owner(self) -> bool:
        """Take the descriptors that have come from the user's process; false if none have."""
        try:
            data, fds = receive(self._peers.owner, 1 << 16)
        except BlockingIOError:
            return False
        except ConnectionError:
            data, fds = b"", []
        self._orphaned |= not data
        for fd in fds:
            if is_segment(fd):
                self._arrived.add(fd)
            else:
                self._adopt_manager(fd)
        return bool(data)

    def _adopt_manager(self, fd: int) -> None:
        old = self._peers.manager
        if self._selector.get_map().get(old.fd) is not None:
            self._selector.unregister(old.fd)
        os.close(old.fd)
        os.set_blocking(fd, False)
        self._peers.manager = FrameWriter(fd)
        self._republish()

    def _republish(self) -> None:
        log = self._scheduler.log
        self._peers.manager.write(m.pack((m.Republish(log.version, log.namespace.export()),)))
        self._scheduler.commits.clear()
        self._published = log.version
        self._manager_missed = False

    def _on_manager_writable(self, _mask: int) -> None:
        self._peers.manager.flush()

    def _on_orphaned(self, _mask: int) -> None:
        self._orphaned = True

    def _send_last(self) -> None:
        self._advance()
        for writer in (self._peers.manager, self._peers.outcomes):
            os.set_blocking(writer.fd, True)
            writer.flush()
        if self._outbox:
            self._peers.outcomes.write_batch(self._outbox, lambda: False)
            self._outbox.clear()
        self._settle_output()
        self._peers.outcomes.write(m.pack((m.Stopped(self._scheduler.log.version),)))

    def _await_release(self) -> None:
        """Have the globals for another Manager, until the user's process has a copy of them."""
        while not self._orphaned:
            for key, mask in self._selector.select():
                key.data(mask)
            self._watch_writers()

    # -- workers -----------------------------------------------------------------------------------------

    def _watch(self, seat: Seat) -> None:
        assert seat.process is not None
        # One turn of the loop may tell twice of a process's end, by then with another in its seat.
        process = seat.process
        self._selector.register(process.socket, READ, lambda mask: self._on_seat(seat, process, mask))
        if process.sentinel is not None:
            self._selector.register(process.sentinel, READ, lambda _mask: self._on_end(seat, process))

    def _unwatch(self, seat: Seat) -> None:
        assert seat.process is not None
        for fd in (seat.process.socket, seat.process.sentinel):
            if fd is not None and self._selector.get_map().get(fd) is not None:
                self._selector.unregister(fd)

    def _on_seat(self, seat: Seat, process: WorkerProcess, mask: int) -> None:
        if seat.process is not process or seat.writer is None or seat.reader is None:
            return
        if mask & WRITE:
            seat.writer.flush()
        if mask & READ:
            self._take_from(seat, seat.reader.read())
            self._silence.note(seat)
            if seat.reader.eof:
                self._on_end(seat, process)

    def _unpack_from(self, seat: Seat, payloads: Iterable[bytes]) -> Iterator[tuple[Any, int]]:
        """Return the messages of frames, each with the size of its frame."""
        for payload in payloads:
            try:
                messages = m.unpack(payload)
            except Exception as error:  # noqa: BLE001 - a hook may have written anything to the engine's descriptor
                assert seat.process is not None
                what = f"{seat.name} (pid {seat.process.pid}) is killed"
                self._outbox.append(m.Log(f"{what}: what it sent is no message of the engine ({error})"))
                seat.process.kill()
                return
            for message in messages:
                yield message, len(payload)

    def _take_from(self, seat: Seat, payloads: Iterable[bytes]) -> None:
        for message, size in join_done(self._unpack_from(seat, payloads)):
            self._take_one_from(seat, message, size)

    def _take_kept(self, seat: Seat) -> None:
        """Take what a worker has finished before the long job that it runs now."""
        if seat.process is not None and seat.reader is not None:
            kept = seat.process.journal.kept()
            # What was sent before that was kept comes first: what the functions printed, and the hooks that they fired.
            self._take_from(seat, seat.reader.read_to_end() + kept)

    def _take_one_from(self, seat: Seat, received: Any, size: int) -> None:
        assert seat.reader is not None
        message = seat.reader.complete(received)
        match message:
            case m.Done():
                seat.jobs += self._scheduler.done(seat.slot, message.job, message.results, message.segments)
            case m.DoneOfSeries():
                job, place, results = message
                seat.jobs += self._scheduler.done_of_series(seat.slot, job, place, results)
            case m.Nested():
                self._supervisor.count_nested(seat)
                self._scheduler.accept_nested(message)
            case m.Log() | m.Output() | m.Record():
                self._forward(message, size)
            case m.Worn():
                self._supervisor.wear_out(seat)
            case m.Hosted():
                self._outbox += self._assembly.hosted(seat, message)

    def _forward(self, message: Any, size: int) -> None:
        """Pass on what a hook printed or logged, unless too much of it waits for the user's process already."""
        self._output_waiting += size
        if self._output_waiting <= self._max_output:
            self._outbox.append(message)
        else:
            self._output_dropped += 1

    def _settle_output(self) -> None:
        """Note that nothing waits any more, and say what was dropped meanwhile."""
        self._output_waiting = 0
        if self._output_dropped:
            text = f"{self._output_dropped} messages of hooks, printed or logged, were dropped (max_output)"
            self._output_dropped = 0
            self._outbox.append(m.Log(text))
            self._send_outbox()

    def _on_end(self, seat: Seat, process: WorkerProcess, status: int = m.WORKER_LOST, why: str = "") -> None:
        if seat.process is not process:
            return
        if why:
            seat.process.kill_tree()
        frames, started = self._supervisor.collect_remains(seat)
        self._take_from(seat, frames)
        starting, instance = not seat.hosted, seat.process.journal.instance
        detail = self._supervisor.bury(seat) + why
        self._scheduler.slot_lost(seat.slot, started, status, detail)
        self._outbox += self._assembly.replace(seat, detail, instance if starting else None)

    def _enforce_limits(self) -> None:
        for seat in self._supervisor.overdue():
            assert seat.process is not None
            late = time.monotonic() - seat.process.journal.deadline
            self._on_end(seat, seat.process, m.TIME_LIMIT, f" for exceeding its time_limit ({late:.1f} s late)")


def dispatcher_main(parent: int, fds: dict[str, int]) -> None:
    """Run the dispatcher in this process."""
    import_fresh_sources()
    owner = socket.socket(fileno=fds["owner"])
    boot = Boot.receive(owner)
    marks = Marks(boot.queue_size, fds.pop("marks"))
    for fd in fds.values():
        os.set_blocking(fd, False)
    peers = Peers(
        FrameReader(fds["ingress"]), owner, SocketWriter(owner), FrameWriter(fds["manager"])
    )
    try:
        spool = _open_spool(boot, parent)
    except SpoolError as error:
        os.set_blocking(fds["owner"], True)
        peers.outcomes.write(m.pack((m.Refused(str(error)),)))
        owner.close()
        return
    Dispatcher(boot, peers, marks, open_sentinel(parent), spool).run()
    if spool is not None:
        spool.close()
    owner.close()


def _open_spool(boot: Boot, parent: int) -> Spool | None:
    if not boot.spool:
        return None
    from rigger_mp.engine.spool import Spool  # noqa: PLC0415 - SQLite only where it is needed

    return Spool(Path(boot.spool), parent, boot.synchronous)
