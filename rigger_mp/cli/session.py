"""One run over all inputs: the main thread waits, tells and obeys Ctrl-C; what may block runs beside it.

::

    feeder thread ──submit──▶ engine ──outcomes──▶ results thread
          ▲ room, closed                                │ ended
          └───────────── main thread ◀──────────────────┘
                (failures, progress, interrupts)

Reading standard input, waiting for room in the queue, starting and stopping can take for ever, and a signal's
handler only records. So none of them happens in the main thread, which a second Ctrl-C must always reach.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from functools import partial
from typing import Any, TypeVar

from rigger_mp.cli.inputs import Input
from rigger_mp.cli.interrupts import Interrupts
from rigger_mp.cli.progress import Progress
from rigger_mp.cli.table import summarize
from rigger_mp.errors import EncodingError, Failure, HookError, RiggerError
from rigger_mp.rigger import Rigger

T = TypeVar("T")

MOST_SHOWN = 20
"""Failures that are named unless all are asked for."""
IN_FLIGHT = 1000
"""Events that are fired and not ended at any time: enough to keep every worker busy."""
REFILL = IN_FLIGHT // 2
"""Once there are so many, feeding pauses until this few are left."""


class Session:
    """One run over all inputs.

    Args:
        rigger: the engine, not started yet.
        progress: where to show how far it is.
        interrupts: tells of Ctrl-C.
        verbose: name every failure.
    """

    def __init__(self, rigger: Rigger, progress: Progress, interrupts: Interrupts, *, verbose: bool) -> None:
        self._rigger = rigger
        self._progress = progress
        self._interrupts = interrupts
        self._heard = 0
        self._most_shown = sys.maxsize if verbose else MOST_SHOWN
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._room = threading.Condition(self._lock)
        self._closed = False
        self._fired = 0
        self._ended: list[tuple[Input, Future[Any] | str]] = []
        self._done = 0
        self._failures = 0

    def run(self, inputs: Iterable[Input], *, bracketed: bool) -> dict[str, Any] | None:
        """Run everything; return the summary, ``None`` if a second Ctrl-C killed it.

        Raises:
            RiggerError: the engine could not start, or was lost.
        """
        start = time.monotonic()
        with self._interrupts.calling(self._wake):
            try:
                stats = self._run(inputs, bracketed)
            except _Killed:
                self._finish()
                self._rigger.stop(graceful_timeout=0)
                return None
            except BaseException:
                if self._fired:
                    self._finish()
                self._rigger.stop(graceful_timeout=0)
                raise
        self._finish()
        return summarize(stats, time.monotonic() - start, self._done, self._failures)

    def _run(self, inputs: Iterable[Input], bracketed: bool) -> dict[str, Any]:
        self._call(self._rigger.start)
        if bracketed:
            self._fire_bracket("start_session")
        self._feed(inputs)
        if bracketed:
            self._fire_bracket("finish_session")
        self._call(self._rigger.drain)
        stats = self._call(self._rigger.stats)
        self._call(self._rigger.stop)
        return stats

    # -- beside the main thread --------------------------------------------------------------------------

    def _start(self, function: Callable[[], T]) -> Future[T]:
        future: Future[T] = Future()

        def call() -> None:
            try:
                future.set_result(function())
            except BaseException as error:  # noqa: BLE001 - whoever asks for the result gets it
                future.set_exception(error)
            self._wake()

        threading.Thread(target=call, daemon=True).start()
        return future

    def _submit_all(self, inputs: Iterable[Input]) -> None:
        for item in inputs:
            if not self._admit():
                return
            if item.problem:
                self._note(item, item.problem)
            else:
                self._submit(item)

    def _admit(self) -> bool:
        """Wait for room and count one more event, unless no more are wanted."""
        with self._room:
            if self._in_flight() >= IN_FLIGHT:
                self._room.wait_for(lambda: self._closed or self._in_flight() <= REFILL)
            if not self._closed:
                self._fired += 1
            return not self._closed

    def _in_flight(self) -> int:
        return self._fired - self._done - len(self._ended)

    def _submit(self, item: Input) -> None:
        try:
            future = self._rigger.submit(item.hook, **item.arguments)
        except EncodingError as error:
            self._note(item, describe_error(error))
        except BaseException as error:
            self._note(item, describe_error(error))
            raise
        else:
            future.add_done_callback(partial(self._note, item))

    def _note(self, item: Input, ending: Future[Any] | str) -> None:
        with self._changed:
            self._ended.append((item, ending))
            # Waking a thread costs more than an event: the first of a batch is enough, and so is room for many.
            if len(self._ended) == 1:
                self._changed.notify_all()
            if self._in_flight() <= REFILL:
                self._room.notify_all()

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()

    # -- the main thread ---------------------------------------------------------------------------------

    def _await(self, condition: Callable[[], object]) -> None:
        """Wait for a condition, telling of what ends meanwhile.

        Raises:
            _Killed: a second Ctrl-C came.
        """
        while True:
            with self._changed:
                self._changed.wait_for(lambda: condition() or self._has_news(), self._progress.interval)
            self._tell()
            self._hear()
            if condition():
                return

    def _has_news(self) -> bool:
        return bool(self._ended) or self._interrupts.count > self._heard

    def _call(self, function: Callable[[], T]) -> T:
        future = self._start(function)
        self._await(future.done)
        return future.result()

    def _feed(self, inputs: Iterable[Input]) -> None:
        if self._interrupts.count:
            return
        feeding = self._start(partial(self._submit_all, inputs))
        self._await(lambda: feeding.done() or self._interrupts.count)
        with self._changed:
            self._closed = True
            self._room.notify_all()
        self._await(lambda: self._done == self._fired)
        if feeding.done():
            feeding.result()

    def _fire_bracket(self, hook: str) -> None:
        try:
            self._call(lambda: self._rigger.submit(hook).result())
        except RiggerError as error:
            self._report(hook, describe_error(error))

    def _hear(self) -> None:
        if self._interrupts.count > self._heard == 0:
            self._progress.message("interrupted: finishing what was fired; Ctrl-C again kills")
        self._heard = self._interrupts.count
        if self._heard > 1:
            raise _Killed

    def _tell(self) -> None:
        with self._changed:
            ended, self._ended = self._ended, []
            self._done += len(ended)
        for item, ending in ended:
            error = ending if isinstance(ending, str) else ending.exception()
            if error:
                self._report(item.label, describe_error(error))
        self._progress.show(self._done, self._failures)

    def _report(self, label: str, text: str) -> None:
        self._failures += 1
        if self._failures <= self._most_shown:
            self._progress.message(f"{label}: {text}")

    def _finish(self) -> None:
        self._progress.finish(self._done, self._failures)
        hidden = self._failures - self._most_shown
        if hidden > 0:
            self._progress.message(f"... and {hidden:,} more failures; --verbose names all")


def describe_error(error: object) -> str:
    """Return one line that says what went wrong."""
    if isinstance(error, HookError) and error.failures:
        return "; ".join(dict.fromkeys(_describe_failure(failure) for failure in error.failures))
    text = f"{type(error).__name__}: {error}" if isinstance(error, BaseException) else str(error)
    return text.splitlines()[0]


def _describe_failure(failure: Failure) -> str:
    first, *_ = failure.message.splitlines() or [""]
    return f"{failure.function}: {failure.type_name}: {first}"


class _Killed(Exception):
    """Raised when a second Ctrl-C came."""
