"""The thread that makes the bodies of replies: reading namespaces may run user code, and wait for the Manager."""

from __future__ import annotations

import queue
import threading
from asyncio import AbstractEventLoop
from collections.abc import Callable, Sequence

from rigger_mp.errors import LimitError, RiggerError
from rigger_mp.net import protocol
from rigger_mp.net.results import Task
from rigger_mp.net.strict_json import dump_any

Job = Callable[[], list[bytes]]
Taker = Callable[[list[bytes]], None]


class BodyMaker:
    """Runs jobs one after another and hands what they return to the loop, several at a time.

    It is no executor of the standard library: those refuse work once the main thread has returned, and the
    server goes on then.

    Args:
        loop: where the takers are called.
    """

    def __init__(self, loop: AbstractEventLoop) -> None:
        self._loop = loop
        self._jobs: queue.SimpleQueue[tuple[Job, Taker] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="rigger_mp replies", daemon=True)
        self._thread.start()

    def put(self, job: Job, taker: Taker) -> None:
        """Have a job run; ``taker`` gets what it returns, or the body of an error if it fails."""
        self._jobs.put((job, taker))

    def run(self, job: Callable[[], None]) -> None:
        """Have something run that needs nothing done in the loop, and that does not fail."""
        self._jobs.put((_then_nothing(job), _forget))

    def close(self, timeout: float) -> None:
        """End the thread, once what is queued has run; wait for that some seconds at most."""
        self._jobs.put(None)
        self._thread.join(timeout)

    def _run(self) -> None:
        item = self._jobs.get()
        while item is not None:
            made = [(item[1], _run_job(item[0]))]
            item = self._more(made)
            try:
                if any(taker is not _forget for taker, _ in made):
                    self._loop.call_soon_threadsafe(_hand_over, made)
            except RuntimeError:
                return  # the loop is closed: nobody is left to reply to
            if item is _NOTHING:
                item = self._jobs.get()

    def _more(self, made: list[tuple[Taker, list[bytes]]]) -> tuple[Job, Taker] | None:
        """Run what else is queued, a few jobs at most; returns the job to go on with."""
        for _ in range(64):
            try:
                item = self._jobs.get_nowait()
            except queue.Empty:
                return _NOTHING
            if item is None:
                return None
            made.append((item[1], _run_job(item[0])))
        return _NOTHING


def _nothing() -> list[bytes]:
    return []


def _then_nothing(job: Callable[[], None]) -> Job:
    def run() -> list[bytes]:
        job()
        return []

    return run


def _forget(_bodies: list[bytes]) -> None:
    """Take nothing."""


_NOTHING: tuple[Job, Taker] = (_nothing, _forget)


def _run_job(job: Job) -> list[bytes]:
    try:
        return job()
    except Exception as error:  # noqa: BLE001 - it runs user code; who asked gets the error
        return [protocol.error_body(error)]


def _hand_over(made: Sequence[tuple[Taker, list[bytes]]]) -> None:
    for taker, bodies in made:
        taker(bodies)


def body_of(task: Task, grab: bool, max_bytes: int) -> bytes:
    """Return the reply to who waits for, or asks about, a task that has ended.

    Args:
        task: the task.
        grab: whether its output is wanted.
        max_bytes: of the body; a larger one becomes an error.
    """
    if task.body is not None:
        return task.body
    ending = task.ending
    if ending is None:
        return protocol.error_body(LimitError("it has ended, but its reply is not kept any more"), task.tid)
    try:
        output = (
            dump_any(ending.open().to_dict(task.request.results)) if grab or not ending.succeeded else None
        )
        body = protocol.ended_body(task.tid, output)
    except RiggerError as error:
        body = protocol.error_body(error, task.tid)
    except Exception as error:  # noqa: BLE001 - unpickling runs user code
        body = protocol.error_body(RiggerError(f"the output cannot be read: {error!r}"), task.tid)
    return body if len(body) <= max_bytes else protocol.error_body(_too_large(len(body), max_bytes), task.tid)


def _too_large(size: int, max_bytes: int) -> LimitError:
    return LimitError(
        f"the reply has {size} bytes, at most {max_bytes} are sent (server_max_reply_bytes); "
        "name the results that are wanted"
    )


def needs_thread(task: Task, grab: bool) -> bool:
    """Tell whether :func:`body_of` may run user code or wait."""
    return task.body is None and task.ending is not None and (grab or not task.ending.succeeded)
