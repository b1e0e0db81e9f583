"""The spool's file: its tables, the checks before it is used, and reading it while an engine uses it.

Beside ``jobs.spool`` lie ``jobs.spool-running`` (:mod:`rigger_mp.engine.job_marks`, and the lock of the engine that
uses the spool) and, of SQLite, ``jobs.spool-wal`` and ``jobs.spool-shm``. They belong together.
"""

from __future__ import annotations

import fcntl
import os
import select
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from rigger_mp.engine.job_marks import DONE, FAILED, STARTED, read_holder, read_marks
from rigger_mp.engine.process import open_sentinel
from rigger_mp.errors import SpoolError

APPLICATION_ID = 0x52_4D_50_53
FORMAT = 1
BUSY_TIME = 0.2
"""Seconds to wait for another program that locks the database; the dispatcher stands still meanwhile."""
RELEASE_TIME = 2.0
"""Seconds to wait for an engine to end that still has the spool: as long as one may outlive its user."""

SCHEMA = f"""
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS jobs (
    id INTEGER PRIMARY KEY AUTOINCREMENT, hook TEXT NOT NULL, function TEXT NOT NULL, label TEXT NOT NULL,
    depth INTEGER NOT NULL, queued_at REAL NOT NULL, attempts INTEGER NOT NULL, payload BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS dead (
    id INTEGER PRIMARY KEY, hook TEXT NOT NULL, function TEXT NOT NULL, label TEXT NOT NULL,
    depth INTEGER NOT NULL, queued_at REAL NOT NULL, attempts INTEGER NOT NULL, payload BLOB NOT NULL,
    died_at REAL NOT NULL, reason TEXT NOT NULL, traceback TEXT NOT NULL
);
INSERT OR IGNORE INTO meta VALUES ('identity', abs(random()) | 1);
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {FORMAT};
COMMIT;
"""


def companion(path: Path) -> Path:
    """Return the file of the marks and the lock."""
    return path.with_name(f"{path.name}-running")


def connect(path: Path, *, read_only: bool = False) -> sqlite3.Connection:
    """Open the database; transactions are begun by hand."""
    uri = f"file:{quote(os.fspath(path))}?mode={'ro' if read_only else 'rw'}"
    return sqlite3.connect(uri, uri=True, timeout=BUSY_TIME, isolation_level=None)


def check_file(path: Path) -> bool:
    """Tell whether there is a spool, ``False``: one may be made here. Changes nothing.

    Raises:
        SpoolError: it is damaged, cannot be read, or is something else.
    """
    if not path.parent.is_dir():
        raise SpoolError(f"archive.spool: {path}: there is no directory {path.parent}; make it, or name another path")
    if not path.exists():
        return False
    if not path.is_file():
        raise SpoolError(f"archive.spool: {path} is not a file; name one that exists or can be made")
    with explained(path), closing(connect(path, read_only=True)) as database:
        return _check_database(path, database)


def _check_database(path: Path, database: sqlite3.Connection) -> bool:
    (application,) = database.execute("PRAGMA application_id").fetchone()
    (tables,) = database.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    if not application and not tables:
        return False
    if application != APPLICATION_ID:
        raise SpoolError(f"archive.spool: {path} is the database of another program; name another path")
    (version,) = database.execute("PRAGMA user_version").fetchone()
    if version > FORMAT:
        raise SpoolError(f"archive.spool: {path} was written by a newer rigger_mp; use that, or name another path")
    (verdict,) = database.execute("PRAGMA quick_check(1)").fetchone()
    if verdict != "ok":
        raise _damaged(path, verdict.splitlines()[-1])
    return True


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn errors of SQLite and of the system into ones that say what to do."""
    try:
        yield
    except sqlite3.Error as error:
        raise explain(path, error) from error
    except OSError as error:
        raise SpoolError(f"archive.spool: {error.filename or path}: {error.strerror}") from error


def explain(path: Path, error: sqlite3.Error | OverflowError | ValueError) -> SpoolError:
    """Return what an error means for a spool: SQLite's, or that of a value too large for it."""
    name = getattr(error, "sqlite_errorname", "") if isinstance(error, sqlite3.Error) else "SQLITE_TOOBIG"
    if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
        return _damaged(path, str(error))
    hints = {
        "SQLITE_FULL": "make room on the disk",
        "SQLITE_IOERR": "make room on the disk, if it is full",
        "SQLITE_BUSY": "another program has locked it; end that program",
        "SQLITE_TOOBIG": "the arguments of a background job, with the globals that it reads, may take 1 GB",
        "SQLITE_READONLY": "let this user write the file and its directory",
        "SQLITE_CANTOPEN": "let this user read and write the file and its directory",
    }
    hint = next((hint for prefix, hint in hints.items() if name.startswith(prefix)), "")
    return SpoolError(f"archive.spool: {path}: {error}" + (f"; {hint}" if hint else ""))


def _damaged(path: Path, detail: str) -> SpoolError:
    return SpoolError(
        f"archive.spool: {path} is damaged ({detail}) and was left as it is. To save the jobs in it, try "
        f"'sqlite3 {path} .recover'; to start without them, move it away together with "
        f"{path.name}-wal, {path.name}-shm and {path.name}-running"
    )


def lock(path: Path) -> int:
    """Lock a spool for this process and return the descriptor that holds the lock until it is closed.

    Raises:
        SpoolError: another engine uses the spool, or the lock cannot be had.
    """
    with explained(path):
        fd = os.open(companion(path), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    if _try_lock(fd):
        return fd
    engine, dispatcher = read_holder(companion(path))
    _await_end(dispatcher)
    if _try_lock(fd):
        return fd
    os.close(fd)
    raise SpoolError(
        f"archive.spool: {path} is in use by another engine (process {engine}); stop that one, "
        "or name another path: an engine needs a spool of its own"
    )


def _try_lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _await_end(pid: int) -> None:
    sentinel = open_sentinel(pid) if pid else None
    if sentinel is not None:
        poller = select.poll()
        poller.register(sentinel, select.POLLIN)
        poller.poll(RELEASE_TIME * 1000)
        os.close(sentinel)


class JobRow(NamedTuple):
    """A job as people see it; ``queued_at`` and ``died_at`` are seconds since the epoch."""

    id: int
    hook: str
    label: str
    state: str
    attempts: int
    queued_at: float
    died_at: float
    reason: str
    traceback: str


def read_jobs(path: Path) -> list[JobRow]:
    """Return the jobs that are to be run, also while an engine runs them.

    Raises:
        SpoolError: there is no spool, or it cannot be read.
    """
    with _reading(path) as database:
        states = _states(path, database)
        rows = database.execute("SELECT id, hook, label, attempts, queued_at FROM jobs ORDER BY id").fetchall()
    found = [(row, states.get((row[0], row[3]), 0)) for row in rows]
    names = {0: "waiting", STARTED: "started", FAILED: "failed"}
    return [
        JobRow(key, hook, label, names[state], attempts, queued, 0.0, "", "")
        for (key, hook, label, attempts, queued), state in found
        if state != DONE
    ]


def read_dead(path: Path) -> list[JobRow]:
    """Return the dead letters.

    Raises:
        SpoolError: there is no spool, or it cannot be read.
    """
    with _reading(path) as database:
        rows = database.execute(
            "SELECT id, hook, label, 'dead', attempts, queued_at, died_at, reason, traceback FROM dead ORDER BY id"
        ).fetchall()
    return [JobRow._make(row) for row in rows]


@contextmanager
def _reading(path: Path) -> Iterator[sqlite3.Connection]:
    if not check_file(path):
        raise SpoolError(f"{path}: there is no spool; an engine with archive.spool makes it when it starts")
    with explained(path), closing(connect(path, read_only=True)) as database:
        yield database


def _states(path: Path, database: sqlite3.Connection) -> dict[tuple[int, int], int]:
    marks = read_marks(companion(path), identity_of(database))
    return {(mark.key, mark.attempt): mark.state for mark in marks}


def identity_of(database: sqlite3.Connection) -> int:
    """Return the number that tells a spool from every other."""
    row: Any = database.execute("SELECT value FROM meta WHERE name = 'identity'").fetchone()
    return int(row[0])
