"""What a server keeps of accepted events beyond its own life: ``server_store``.

Each accepted event is written down before the engine gets it, and how it ended before anybody is told. The
engine's processes mark what they start in a file of their own
(:class:`~rigger_mp.engine.marks.Marks`). Whatever is killed whenever, the next server so knows of every accepted event
whether it has ended, may have run, or has not started: only the last is run. ::

    PATH.3, PATH.4 ...   records, in files that are deleted when nothing in them is needed any more
      ("run", instance, places, whole)    first in each file; whole: earlier files are not needed
      ("event", tid, token, line)         accepted; token 0: not given to the engine by this run
      ("ended", tid, succeeded)
      ("body", tid, body)                 its reply
      ("forgotten", (tid, ...))
    PATH.started         the marks; locked by every process of the engine, so that none is left when the next
                         server reads them

The files are in the operating system's hands at once, so that killing processes loses nothing. They are not
forced to the disk: a loss of power may lose the latest events, or make those that had ended run again.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import threading
import time
from collections import deque
from enum import Enum, auto
from pathlib import Path
from typing import Any, NamedTuple

from rigger_mp.engine.marks import Marks, memory_size
from rigger_mp.errors import EngineLost, LimitError, StartError
from rigger_mp.net import protocol
from rigger_mp.net.record_file import RecordFile, pack, read_records

FILE_SIZE = 4_194_304
"""Bytes of a file of records."""
HEADROOM = 1024
"""Bytes of a record beyond what was asked for."""
FORGOTTEN_AT_ONCE = 500
"""Events forgotten that are let gather until it is written down."""
LOCK_TIME = 10.0
"""Seconds that the processes of an earlier server get to end."""
LOST = "the server was killed while this event was under way: it may have run, and is not run again"
UNKNOWN = "the server was killed when this event had ended: it is not run again, and its reply is lost"


class State(Enum):
    """What became of an event."""

    NOT_STARTED = auto()
    MAY_HAVE_RUN = auto()
    SUCCEEDED = auto()
    ENDED = auto()


class Recovered(NamedTuple):
    """An event that an earlier server had accepted.

    Attributes:
        tid: its task's name.
        line: the line that fired it.
        state: what became of it.
        body: the reply, if it is known.
    """

    tid: str
    line: bytes
    state: State
    body: bytes | None


class _Kept:
    """An event that is written down: in which file, whether it has ended, and whether nobody will ask for it."""

    __slots__ = ("dropped", "ended", "record_file")

    def __init__(self, record_file: RecordFile, *, ended: bool = False) -> None:
        self.record_file = record_file
        self.ended = ended
        self.dropped = False


class EventStore:
    """See the module. Any thread may use it.

    Args:
        path: what the names of the files begin with; their directory must exist.
        places: the engine's ``queue_size``.

    Attributes:
        instance: the same for all servers that know each other's events.
        marks_fd: the file for the engine's marks.
        recovered: what earlier servers had accepted and is still remembered, in its order.

    Raises:
        StartError: the files cannot be made or read, or another server uses them.
    """

    def __init__(self, path: Path, places: int) -> None:
        self._path = path
        self._places = places
        self._kept: dict[str, _Kept] = {}
        self._forgotten: list[str] = []
        self._number = 0
        self._reserved = 0
        self._lock = threading.Lock()
        self._closed = False
        self._record_files: deque[RecordFile] = deque()
        try:
            self.marks_fd = _lock(path.with_name(path.name + ".started"))
            try:
                self._recover()
            except BaseException:
                os.close(self.marks_fd)
                raise
        except OSError as error:
            raise StartError(f"server_store: {error}") from error

    # -- recovering --------------------------------------------------------------------------------------

    def _recover(self) -> None:
        files = self._files()
        history = _History(files)
        self.instance = history.instance or secrets.token_hex(8)
        self.recovered = history.events(self._path, self.marks_fd)
        self._number = max(files, default=0)
        self._begin_whole()
        for file in files.values():
            file.unlink()
        # Only now: until the new file was there, the old ones were read with these marks.
        os.ftruncate(self.marks_fd, 0)
        os.posix_fallocate(self.marks_fd, 0, memory_size(self._places))

    def _files(self) -> dict[int, Path]:
        prefix = self._path.name + "."
        found = {
            int(file.name.removeprefix(prefix)): file
            for file in self._path.parent.iterdir()
            if file.name.startswith(prefix) and file.name.removeprefix(prefix).isdecimal()
        }
        return dict(sorted(found.items()))

    def _begin_whole(self) -> None:
        """Begin a file with all that is remembered; it takes its place among the others when it is whole."""
        records = [pack(("run", self.instance, self._places, True))]
        for event in self.recovered:
            records.append(pack(("event", event.tid, 0, event.line)))
            if event.state is State.MAY_HAVE_RUN:
                records.append(pack(("body", event.tid, protocol.error_body(EngineLost(LOST), event.tid))))
            elif event.body is not None:
                records.append(pack(("body", event.tid, event.body)))
            elif event.state is not State.NOT_STARTED:
                records.append(pack(("ended", event.tid, event.state is State.SUCCEEDED)))
        unfinished = self._path.with_name(self._path.name + ".new")
        unfinished.unlink(missing_ok=True)
        record_file = RecordFile(unfinished, max(FILE_SIZE, sum(map(len, records)) + HEADROOM))
        for record in records:
            record_file.append(record)
        self._number += 1
        record_file.rename(self._file(self._number))
        self._record_files.append(record_file)
        for event in self.recovered:
            self._kept[event.tid] = _Kept(record_file, ended=event.state is not State.NOT_STARTED)
        record_file.live = len(self._kept)

    # -- writing -----------------------------------------------------------------------------------------

    def _file(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}")

    def reserve(self, size: int) -> None:
        """Make sure that an event whose line has ``size`` bytes can be written down.

        Raises:
            LimitError: it cannot: the disk is full, or fails.
        """
        with self._lock:
            self._reserved = size + HEADROOM
            if self._record_files[-1].has_room(self._reserved):
                return
            try:
                self._begin(self._reserved)
            except OSError as error:
                raise LimitError(f"the event cannot be kept, send it later: {error} (server_store)") from error

    def _begin(self, size: int) -> None:
        head = pack(("run", self.instance, self._places, False))
        record_file = RecordFile(self._file(self._number + 1), max(FILE_SIZE, len(head) + size))
        self._number += 1
        record_file.append(head)
        self._record_files.append(record_file)
        self._trim()

    def _write(self, record: tuple[Any, ...]) -> bool:
        """Append a record; tell whether there was room, or could be made."""
        packed = pack(record)
        needed = len(packed) + self._reserved
        if not self._record_files[-1].has_room(needed):
            try:
                self._begin(needed)
            except OSError:
                return False
        self._record_files[-1].append(packed)
        return True

    def accept(self, tid: str, token: int, line: bytes) -> None:
        """Write down an event, for which room was reserved; it may start from then on."""
        with self._lock:
            self._reserved = 0
            record_file = self._record_files[-1]
            record_file.append(pack(("event", tid, token, line)))
            kept = self._kept.get(tid)
            if kept is not None:  # an earlier server had accepted it
                kept.record_file.live -= 1
                kept.record_file = record_file
            else:
                self._kept[tid] = _Kept(record_file)
            record_file.live += 1

    def end(self, tid: str, *, succeeded: bool) -> None:
        """Write down that an event has ended."""
        with self._lock:
            kept = self._kept.get(tid)
            if kept is None:
                return
            kept.ended = True
            if kept.dropped:
                self._forget(tid)
            else:
                self._write(("ended", tid, succeeded))

    def keep_body(self, tid: str, body: bytes) -> None:
        """Write down the reply to an event that has ended."""
        with self._lock:
            if tid in self._kept:
                self._write(("body", tid, body))

    def forget(self, tid: str) -> None:
        """Take note that nobody will ask for an event again: it is forgotten once it has ended."""
        with self._lock:
            kept = self._kept.get(tid)
            if kept is not None:
                kept.dropped = True
                if kept.ended:
                    self._forget(tid)

    def _forget(self, tid: str) -> None:
        self._kept.pop(tid).record_file.live -= 1
        self._forgotten.append(tid)
        if len(self._forgotten) >= FORGOTTEN_AT_ONCE:
            self._write_forgotten()
            self._trim()

    def _write_forgotten(self) -> None:
        if self._forgotten and self._write(("forgotten", tuple(self._forgotten))):
            self._forgotten.clear()

    def _trim(self) -> None:
        """Delete the oldest files while nothing in them is needed: what later ones say of them goes with them."""
        while len(self._record_files) > 1 and not self._record_files[0].live:
            record_file = self._record_files.popleft()
            record_file.close()
            with contextlib.suppress(OSError):
                record_file.path.unlink()

    def close(self) -> None:
        """Let go of the files; the next server may use them when the engine's processes have ended, too.

        Calling it again does nothing.
        """
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._write_forgotten()
            self._kept.clear()
            for record_file in self._record_files:
                record_file.close()
            os.close(self.marks_fd)


class _History:
    """What earlier servers wrote down.

    Args:
        files: the files of records, by number, in order.
    """

    def __init__(self, files: dict[int, Path]) -> None:
        self.instance = ""
        self._places = 0
        self._events: dict[str, tuple[int, bytes]] = {}
        self._bodies: dict[str, bytes] = {}
        self._ended: dict[str, bool] = {}
        for file in files.values():
            for record in read_records(file):
                self._take(*record)

    def _take(self, kind: str, *fields: Any) -> None:
        match kind, fields:
            case "run", (instance, places, whole):
                self.instance, self._places = instance, places
                if whole:
                    self._events.clear()
                    self._bodies.clear()
                    self._ended.clear()
            case "event", (tid, token, line):
                self._events[tid] = token, line
            case "ended", (tid, succeeded):
                self._ended[tid] = succeeded
            case "body", (tid, body):
                self._bodies[tid] = body
            case "forgotten", (tids,):
                for tid in tids:
                    self._events.pop(tid, None)
                    self._bodies.pop(tid, None)
                    self._ended.pop(tid, None)

    def events(self, path: Path, marks_fd: int) -> list[Recovered]:
        """Return what is remembered, in its order, given the marks of the server that wrote it."""
        started = self._started(path, marks_fd)
        return [
            Recovered(tid, line, self._state(tid, started), self._bodies.get(tid))
            for tid, (_, line) in self._events.items()
        ]

    def _state(self, tid: str, started: set[str]) -> State:
        if tid in self._ended:
            return State.SUCCEEDED if self._ended[tid] else State.ENDED
        if tid in self._bodies:
            return State.ENDED
        return State.MAY_HAVE_RUN if tid in started else State.NOT_STARTED

    def _started(self, path: Path, marks_fd: int) -> set[str]:
        given = {tid: token for tid, (token, _) in self._events.items() if token}
        if not given:
            return set()
        if os.fstat(marks_fd).st_size < memory_size(self._places):
            raise StartError(
                f"server_store: {path}.started is not the file that the events in {path}.* refer to; nobody can "
                "tell which of them have run: remove all of these files to forget them"
            )
        marks = Marks(self._places, os.dup(marks_fd))
        try:
            return {tid for tid, token in given.items() if marks.has_started(token)}
        finally:
            marks.close()


def _lock(path: Path) -> int:
    """Open a file and lock it, once every process that has it open has ended."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    deadline = time.monotonic() + LOCK_TIME
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                os.close(fd)
                raise StartError(f"server_store: {path} is used by another server that runs") from None
            time.sleep(0.01)
        else:
            return fd
