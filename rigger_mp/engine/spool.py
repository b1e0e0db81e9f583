"""The durable archive: background jobs in an SQLite journal until they are done.

::

    scheduler ─NewJob──▶ ┌───────┐ jobs, dead letters: the database, written by the dispatcher alone
    scheduler ─Change──▶ │ spool │
    scheduler ◀─KeptJob─ └───────┘ marks: which jobs were started, written by the archive process

A job is in the database before it is sent, and before its event goes on; it leaves it when the archive has
reported its end. What the archive started or finished without the dispatcher having heard of it is in the marks,
and is put into the database when the spool is opened: jobs that were done leave it, those that had been started are one
attempt further, and all others are as if nothing had happened.

Write-ahead logging keeps what was committed through the end of every process, and with ``synchronous: full`` of the
machine; with ``normal``, a power failure may cost the last moments' jobs, and never the rest.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from rigger_mp.engine import spool_file
from rigger_mp.engine.job_marks import DONE, FAILED, JobMarks
from rigger_mp.engine.kept_jobs import Change, Died, Finished, Interrupted, KeptJob, NewJob

_COLUMNS = "id, hook, function, label, depth, queued_at, attempts, payload"
_TRACEBACK_LOST = "it failed; its traceback was lost, because the engine was killed at that moment"


class Spool:
    """See the module. One process at a time can have it open.

    Args:
        path: the database; it is made if it is not there.
        engine: the process id to name to others that want the spool.
        synchronous: ``"normal"`` or ``"full"``.

    Attributes:
        path: the database.
        marks: what the archive process writes.
        jobs: how many jobs it holds; ``dead``: how many dead letters.
        broken: why the last attempt to write failed, or ``""``.
        close: releases everything.

    Raises:
        SpoolError: it is in use by another engine, damaged, or cannot be read and written.
    """

    def __init__(self, path: Path, engine: int, synchronous: str = "normal") -> None:
        self.path = path
        self.broken = ""
        exists = spool_file.check_file(path)
        with contextlib.ExitStack() as stack:
            stack.callback(os.close, spool_file.lock(path))
            with spool_file.explained(path):
                self._database = stack.enter_context(contextlib.closing(self._connect(synchronous)))
                if not exists:
                    self._database.executescript(spool_file.SCHEMA)
                self.marks = stack.enter_context(contextlib.closing(self._open_marks(engine)))
                self._settle()
                self._count()
            self.close = stack.pop_all().close

    def _connect(self, synchronous: str) -> sqlite3.Connection:
        if not self.path.exists():
            # It holds users' values, and running a job unpickles them: it is nobody else's.
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        database = spool_file.connect(self.path)
        try:
            database.execute("PRAGMA journal_mode = WAL")
            database.execute(f"PRAGMA synchronous = {synchronous}")
        except BaseException:
            database.close()
            raise
        return database

    def _open_marks(self, engine: int) -> JobMarks:
        marks = JobMarks(spool_file.companion(self.path), spool_file.identity_of(self._database))
        marks.hold(engine, os.getpid())
        return marks

    def _settle(self) -> None:
        """Bring the database up to the marks."""
        attempts = dict(self._database.execute("SELECT id, attempts FROM jobs"))
        changes: list[Change] = []
        for key, attempt, state in self.marks:
            if attempts.get(key) == attempt:
                if state == DONE:
                    changes.append(Finished(key))
                else:
                    died = Died(key, attempt + 1, _TRACEBACK_LOST, "")
                    changes.append(died if state == FAILED else Interrupted(key))
        self._transact((), changes)
        self.marks.clear()

    def _count(self) -> None:
        (self.jobs,) = self._database.execute("SELECT count(*) FROM jobs").fetchone()
        (self.dead,) = self._database.execute("SELECT count(*) FROM dead").fetchone()
        (last,) = self._database.execute(
            "SELECT max((SELECT coalesce(max(id), 0) FROM jobs), (SELECT coalesce(max(id), 0) FROM dead), "
            "(SELECT coalesce(max(seq), 0) FROM sqlite_sequence))"
        ).fetchone()
        self._next = last + 1

    def kept(self) -> list[KeptJob]:
        """Return the jobs that it holds, in the order in which they were handed over.

        Raises:
            SpoolError: it cannot be read.
        """
        with spool_file.explained(self.path):
            rows = self._database.execute(
                "SELECT id, hook, function, label, depth, attempts, payload FROM jobs ORDER BY id"
            )
            return [KeptJob._make(row) for row in rows]

    def write(self, new: Sequence[NewJob], changes: Sequence[Change]) -> range:
        """Take jobs in and note what became of others, all or nothing; return the keys of the new ones.

        Raises:
            SpoolError: the database cannot be written; it is as it was.
        """
        keys = range(self._next, self._next + len(new))
        if not new and not changes:
            return keys
        try:
            self._transact(_rows(keys, new), changes)
        except (sqlite3.Error, OverflowError, ValueError) as error:
            explained = spool_file.explain(self.path, error)
            self.broken = str(explained)
            raise explained from error
        self.broken = ""
        self._next = keys.stop
        died = sum(isinstance(change, Died) for change in changes)
        self.jobs += len(new) - died - sum(isinstance(change, Finished) for change in changes)
        self.dead += died
        return keys

    def _transact(self, rows: Sequence[tuple[object, ...]], changes: Iterable[Change]) -> None:
        execute, many = self._database.execute, self._database.executemany
        finished = [(change.key,) for change in changes if isinstance(change, Finished)]
        interrupted = [(change.key,) for change in changes if isinstance(change, Interrupted)]
        try:
            execute("BEGIN IMMEDIATE")
            many(f"INSERT INTO jobs ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)
            many("DELETE FROM jobs WHERE id = ?", finished)
            many("UPDATE jobs SET attempts = attempts + 1 WHERE id = ?", interrupted)
            for change in changes:
                if isinstance(change, Died):
                    self._bury(change)
            execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                self._database.rollback()
            raise

    def _bury(self, died: Died) -> None:
        columns = _COLUMNS.replace("attempts", "?")
        self._database.execute(
            f"INSERT INTO dead ({_COLUMNS}, died_at, reason, traceback) "
            f"SELECT {columns}, ?, ?, ? FROM jobs WHERE id = ?",
            (died.attempts, time.time(), died.reason, died.traceback, died.key),
        )
        self._database.execute("DELETE FROM jobs WHERE id = ?", (died.key,))

    # -- what people do with dead letters ----------------------------------------------------------------

    def retry(self, keys: Iterable[int]) -> list[int]:
        """Make dead letters jobs again, whose attempts are counted anew; return those there were.

        To be called before anything runs: there must be no marks of their earlier attempts.

        Raises:
            SpoolError: the database cannot be written; it is as it was.
        """
        columns = _COLUMNS.replace("attempts", "0")
        copy = f"INSERT INTO jobs ({_COLUMNS}) SELECT {columns} FROM dead WHERE id = ?"
        return self._each(keys, (copy, "DELETE FROM dead WHERE id = ?"))

    def drop(self, keys: Iterable[int]) -> list[int]:
        """Forget dead letters, and jobs that are to be run; return those there were.

        Raises:
            SpoolError: the database cannot be written; it is as it was.
        """
        return self._each(keys, ("DELETE FROM dead WHERE id = ?", "DELETE FROM jobs WHERE id = ?"))

    def _each(self, keys: Iterable[int], statements: Sequence[str]) -> list[int]:
        with spool_file.explained(self.path), self._database:
            self._database.execute("BEGIN IMMEDIATE")
            return [
                key
                for key in keys
                if sum(self._database.execute(statement, (key,)).rowcount for statement in statements)
            ]


def _rows(keys: Iterable[int], jobs: Iterable[NewJob]) -> list[tuple[object, ...]]:
    now = time.time()
    return [
        (key, job.hook, job.function, job.label, job.depth, now, 0, job.payload.dump())
        for key, job in zip(keys, jobs, strict=True)
    ]
