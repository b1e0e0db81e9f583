"""Starting workers: the first ones before the dispatcher imports what only itself needs, for both to go on at once.

::

    imports what workers need ─fork─▶ workers import the plugins and make the instances ──Hosted──┐
                 └─▶ imports the scheduler and what is around it ─▶ Supervisor, which takes them ◀┘
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from rigger_mp.engine import messages as m
from rigger_mp.engine.blueprint import receive_boot
from rigger_mp.engine.descriptors import SocketReader, SocketWriter
from rigger_mp.engine.journal import Journal
from rigger_mp.engine.marks import ROWS, Marks
from rigger_mp.engine.placement import place
from rigger_mp.engine.process import WorkerProcess
from rigger_mp.engine.worker import worker_main
from rigger_mp.fresh_source import import_fresh_sources

if TYPE_CHECKING:
    from rigger_mp.engine.job_marks import JobMarks


class Started(NamedTuple):
    """A worker process, the dispatcher's ways from and to it, and its row in the marks."""

    process: WorkerProcess
    reader: SocketReader
    writer: SocketWriter
    row: int


_first: dict[int, Started] = {}


def start_worker(
    name: str, marks: Marks, row: int, messages: Iterable[Any], job_marks: JobMarks | None = None
) -> Started:
    """Start a worker.

    Args:
        name: what people call it.
        marks: the memory that outlives the dispatcher.
        row: of the process, in the marks.
        messages: what it is to begin with.
        job_marks: of the archive, if there is a spool.
    """
    # It keeps the marks open: a lock on their file so tells whether any process of the engine is left.
    main = partial(_run, marks=marks, row=row, name=name, job_marks=job_marks)
    process = WorkerProcess(name, main, marks.fd)
    marks.add_process(row, process.pid)
    writer = SocketWriter(process.socket)
    writer.write_batch(messages)
    return Started(process, SocketReader(process.socket), writer, row)


def _run(fd: int, journal: Journal, **rest: Any) -> None:
    import_fresh_sources()
    worker_main(fd, journal, **rest)


def start_first_workers(owner: int, marks_fd: int) -> None:
    """Start the workers that a dispatcher begins with, for :func:`take_first_workers` to return.

    Args:
        owner: the socket to the user's process.
        marks_fd: the file of the marks.
    """
    boot = receive_boot(owner)
    if boot.spool:
        return  # one that cannot be opened refuses the start: no instance may have been made by then
    marks = Marks(boot.queue_size, marks_fd)
    placement = place(boot.instances, boot.workers)
    setups = {plan.ident: (plan.ident, plan.setup, ()) for plan in boot.instances}
    for position, number in enumerate(placement.slots):
        host = m.Host(boot.settings, tuple(setups[ident] for ident in placement.living_in(number)), ())
        _first[number] = start_worker(worker_name(position), marks, min(position, ROWS), [host])


def take_first_workers() -> dict[int, Started]:
    """Return, once, the workers that were started already, by slot."""
    first = dict(_first)
    _first.clear()
    return first


def worker_name(position: int) -> str:
    """Return what people call the worker in a slot."""
    return f"worker-{position}"
