"""The worker process: a plugin host behind one socket to the dispatcher. The archive process is one, too.

::

    dispatcher ──frames of Host, Load, Forget, Job──▶ loop ─▶ PluginHost
    dispatcher ◀─frames of Hosted, Done, DoneOfSeries, Nested, Log, Output, Record─ journal, then socket

Results of a batch of jobs are kept in the journal and sent together: when the batch is finished, when they
get old, or when they get large. What is in the journal survives the process, and the dispatcher takes it from there if
a job takes long (:mod:`rigger_mp.engine.silence`).
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

from rigger_mp.engine import messages as m
from rigger_mp.engine.descriptors import SocketReader, frame_message, send_frame
from rigger_mp.engine.frames import frame, write_all
from rigger_mp.engine.host import PluginHost
from rigger_mp.engine.journal import Journal
from rigger_mp.engine.marks import Marks
from rigger_mp.engine.output import Forwarder
from rigger_mp.engine.segments import Segment, forget_inherited
from rigger_mp.errors import NotRunningError

if TYPE_CHECKING:
    from rigger_mp.engine.job_marks import JobMarks

MOST_DELAY = 0.006
"""Seconds that a result may be kept back while the batch goes on."""
LAST_FLUSH = 0.0002
"""Seconds after which results are sent before a batch's last job starts, so that the next batch comes meanwhile."""
MOST_KEPT = 1 << 15
"""Bytes of results that may be kept back."""
KEEP_SEGMENTS = 0.1
"""Seconds that the large values of a job are kept: the next job is often another function of the same event."""


class Worker:
    """The loop of a worker process.

    Args:
        name: what people call it.
        fd: the socket to the dispatcher.
        journal: the page shared with the dispatcher.
        marks: the memory that outlives the dispatcher.
        row: where it counts the nested events that this process fires.
        job_marks: of the archive, if there is a spool: where it notes which jobs it starts and ends.
    """

    def __init__(
        self, name: str, fd: int, journal: Journal, marks: Marks, row: int, *, job_marks: JobMarks | None = None
    ) -> None:
        self._fd = fd
        self._socket = socket.socket(fileno=fd)
        self._reader = SocketReader(self._socket)
        self._journal = journal
        self._marks = marks
        self._row = row
        self._job_marks = job_marks
        self._writing = threading.RLock()
        self._pid = os.getpid()
        self._forwarder = Forwarder(name, self._send_now)
        self._forwarder.install()
        self._host = PluginHost(self._send_now, journal, self._forwarder)
        self._flushed = time.perf_counter()
        self._worn = False
        self._recent: tuple[Segment, ...] = ()
        self._arrival = select.poll()
        self._arrival.register(fd, select.POLLIN)
        os.register_at_fork(after_in_child=self._become_fork)

    def _become_fork(self) -> None:
        """In a child that a hook forked: nothing of the engine's is shared with it."""
        with contextlib.suppress(OSError):  # the hook may have closed it, or this is a child's child
            os.close(self._fd)
        self._host.forked = True
        self._journal.leave()
        self._marks.leave()
        self._forwarder.forget_lines()

    def _leave_fork(self) -> None:
        """End a child that a hook forked where it comes back from user code: it must not go on as a second worker."""
        if os.getpid() != self._pid:
            raise SystemExit(0)

    def run(self) -> None:
        """Serve until the dispatcher closes the socket."""
        while not self._reader.eof:
            if self._recent and not self._arrival.poll(KEEP_SEGMENTS * 1000):
                self._recent = ()
            batch = [message for payload in self._reader.read() for message in m.unpack(payload)]
            for left, message in zip(range(len(batch) - 1, -1, -1), batch, strict=True):
                if not left and self._journal.filled and time.perf_counter() - self._flushed > LAST_FLUSH:
                    self._flush()
                self._handle(message)
            if not self._goes_on():
                self._flush()
            self._watch_memory()

    def _goes_on(self) -> bool:
        """Tell whether the next batch is here already, and what is kept may wait a little longer."""
        young = time.perf_counter() - self._flushed < MOST_DELAY
        return young and bool(self._journal.filled and self._arrival.poll(0))

    def _handle(self, message: Any) -> None:
        match message:
            case m.Job():
                if message.series:
                    self._run_series(message)
                else:
                    self._run(message)
            case m.Host():
                hosted = self._host.host(message)
                self._leave_fork()
                self._send_now(hosted)
            case m.Load():
                self._host.load(message)
            case m.Forget():
                self._host.forget(message)

    def _run(self, job: m.Job) -> None:
        self._journal.begin(job.job)
        if job.token:
            self._marks.start(job.token)
        if job.kept is not None and self._job_marks is not None:
            place = self._job_marks.start(*job.kept)
            done = self._run_and_keep(job)
            failed = any(result[2] is not None for stage in done.results for result in stage)
            self._job_marks.end(place, failed=failed)
        else:
            self._run_and_keep(job)
        self._journal.begin(0)
        self._flush_if_due()

    def _run_series(self, job: m.Job) -> None:
        view = self._host.start_series(job)
        for place, (token, arguments) in enumerate(job.series):
            self._journal.begin(job.job + place)
            self._marks.start(token)
            results = self._host.run_of_series(job, view, token, arguments)
            self._leave_fork()
            with self._writing:
                self._keep(m.pack_done_of_series(job.job, place, results))
            self._flush_if_due()
        self._journal.begin(0)

    def _flush_if_due(self) -> None:
        if self._journal.filled > MOST_KEPT or time.perf_counter() - self._flushed > MOST_DELAY:
            self._flush()

    def _run_and_keep(self, job: m.Job) -> m.Done:
        """Run a job, keep its results and return them."""
        complete: m.Job = self._reader.complete(job)
        self._recent = complete.segments
        done = self._host.run(complete)
        self._leave_fork()
        with self._writing:
            if done.segments:
                self._send_now(done)  # no page keeps a descriptor
            else:
                self._keep(m.pack((done,)))
        return done

    def _keep(self, payload: bytes) -> None:
        if self._journal.append(payload):
            return
        self._flush()
        if not self._journal.append(payload):
            write_all(self._fd, frame(payload))

    def _send_now(self, message: Any) -> None:
        if os.getpid() != self._pid:
            raise NotRunningError("this process was forked by a hook: only the hook's own process can reach the engine")
        data, fds = frame_message(message)
        with self._writing:  # hooks may have started threads
            if type(message) is m.Nested:
                self._marks.fire(self._row)
            self._flush()
            send_frame(self._socket, data, fds, message)

    def _watch_memory(self) -> None:
        most = self._host.max_memory
        if most is not None and not self._worn:
            memory = resident_memory()
            if memory > most:
                self._worn = True
                self._send_now(m.Worn(memory))

    def _flush(self) -> None:
        with self._writing:
            self._journal.flush(self._fd)
        self._flushed = time.perf_counter()


def resident_memory() -> int:
    """Return the bytes of memory that this process has in use."""
    import psutil  # noqa: PLC0415 - only where memory is limited

    memory: int = psutil.Process().memory_info().rss
    return memory


def worker_main(
    fd: int, journal: Journal, marks: Marks, row: int, name: str, *, job_marks: JobMarks | None = None
) -> None:
    """Run a worker in this process, which was forked for it; never returns."""
    status = 1
    try:
        forget_inherited()
        Worker(name, fd, journal, marks, row, job_marks=job_marks).run()
        status = 0
    except SystemExit as error:  # of a child that a hook forked
        status = error.code if isinstance(error.code, int) else int(error.code is not None)
    except (ConnectionError, KeyboardInterrupt):
        pass  # the dispatcher is gone: so is the reason to be here
    except BaseException:  # noqa: BLE001 - the process ends here, and somebody should learn why
        sys.excepthook(*sys.exc_info())
    finally:
        _flush_standard_streams()
        os._exit(status)


def _flush_standard_streams() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except Exception:  # noqa: BLE001 - a hook may have replaced or closed it
            continue
