"""The spool: what it is told it keeps, whatever happens to its processes; what it cannot read it leaves alone."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from rigger_mp.engine import spool_file
from rigger_mp.engine.job_marks import ENTRIES, JobMarks
from rigger_mp.engine.kept_jobs import Change, DamagedPayloadError, Died, Finished, Interrupted, NewJob, Payload
from rigger_mp.engine.spool import Spool
from rigger_mp.engine.spool_file import companion, connect, read_dead, read_jobs
from rigger_mp.errors import SpoolError

PAYLOAD = Payload(b"arguments", ((b"local",),), ((b"global",),), {"name": (("M", (b"chain",)),)})  # type: ignore[arg-type]


def job(name: str = "work") -> NewJob:
    return NewJob(name, f"ledger\0{name}", f"ledger.{name}", 0, PAYLOAD)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "jobs.spool"


@pytest.fixture
def spool(path: Path) -> Iterator[Spool]:
    with closing(Spool(path, os.getpid())) as opened:
        yield opened


def reopened(spool: Spool) -> Spool:
    """Open a spool again as after the end of every process: nothing was said to it."""
    spool.close()
    return Spool(spool.path, os.getpid())


class SpoolMachine(RuleBasedStateMachine):
    """Jobs come, are started, end, and the engine is killed; a dictionary says what must be there."""

    @initialize(directory=st.uuids())
    def open(self, directory: object) -> None:
        import tempfile  # noqa: PLC0415

        self.directory = tempfile.TemporaryDirectory(suffix=str(directory))
        self.spool = Spool(Path(self.directory.name, "jobs.spool"), os.getpid())
        self.jobs: dict[int, int] = {}
        self.dead: dict[int, int] = {}
        self.ended: dict[int, str] = {}
        self.running: int | None = None

    @rule(count=st.integers(0, 4), tell=st.booleans())
    def write(self, count: int, tell: bool) -> None:
        changes: list[Change] = []
        for key in list(self.ended) if tell else ():
            changes.append(self._end(key))
        keys = self.spool.write([job()] * count, changes)
        assert not set(keys) & (self.jobs.keys() | self.dead.keys())
        self.jobs.update(dict.fromkeys(keys, 0))

    def _end(self, key: int) -> Change:
        attempts = self.jobs.pop(key)
        if self.ended.pop(key) == "failed":
            self.dead[key] = attempts + 1
            return Died(key, attempts + 1, "ValueError", "traceback")
        return Finished(key)

    @rule(pick=st.integers(0, 100), failed=st.booleans(), ends=st.booleans())
    def run(self, pick: int, failed: bool, ends: bool) -> None:
        startable = [key for key in self.jobs if key not in self.ended]
        if self.running is None and startable:
            key = startable[pick % len(startable)]
            place = self.spool.marks.start(key, self.jobs[key])
            if ends:
                self.spool.marks.end(place, failed=failed)
                self.ended[key] = "failed" if failed else "done"
            else:
                self.running = key

    @rule()
    def lose_the_archive(self) -> None:
        if self.running is not None:
            self.spool.write((), [Interrupted(self.running)])
            self.jobs[self.running] += 1
            self.running = None

    @rule()
    def kill_everything(self) -> None:
        self.spool = reopened(self.spool)
        for key in list(self.ended):
            self._end(key)
        if self.running is not None:
            self.jobs[self.running] += 1
            self.running = None
        self._compare()

    @rule(retried=st.booleans())
    def decide(self, retried: bool) -> None:
        self.kill_everything()  # the commands run between two engines
        keys = list(self.dead)
        assert (self.spool.retry if retried else self.spool.drop)([*keys, 10**6]) == keys
        if retried:
            self.jobs.update(dict.fromkeys(keys, 0))
        self.dead.clear()
        self.kill_everything()

    def _compare(self) -> None:
        assert {kept.key: kept.attempts for kept in self.spool.kept()} == self.jobs
        assert all(Payload.load(kept.payload) == PAYLOAD for kept in self.spool.kept())
        assert {row.id: row.attempts for row in read_dead(self.spool.path)} == self.dead
        assert (self.spool.jobs, self.spool.dead) == (len(self.jobs), len(self.dead))

    def teardown(self) -> None:
        if hasattr(self, "spool"):
            with self.directory:
                self.kill_everything()
                self.spool.close()


SpoolMachine.TestCase.settings = settings(max_examples=30, stateful_step_count=20, deadline=None)
TestSpool = SpoolMachine.TestCase


def test_jobs_come_back_in_the_order_in_which_they_were_handed_over(spool: Spool) -> None:
    spool.write([job(f"work{number}") for number in range(20)], [])
    assert [kept.hook for kept in spool.kept()] == [f"work{number}" for number in range(20)]


def test_a_key_is_never_used_again(spool: Spool) -> None:
    (first,) = spool.write([job()], [])
    spool.write((), [Finished(first)])
    with closing(reopened(spool)) as again:
        (second,) = again.write([job()], [])
    assert second > first


def test_the_marks_have_room_for_the_jobs_that_count(path: Path) -> None:
    with closing(JobMarks(companion(path), 7)) as marks:
        for key in range(1, 3 * ENTRIES):
            marks.end(marks.start(key, 0), failed=False)
        assert {mark.key for mark in marks} == set(range(2 * ENTRIES, 3 * ENTRIES))


def test_marks_of_another_spool_are_forgotten(spool: Spool, path: Path) -> None:
    spool.write([job()], [])
    spool.marks.end(spool.marks.start(1, 0), failed=False)
    spool.close()
    path.unlink()
    with closing(Spool(path, os.getpid())) as other:
        other.write([job()], [])
        with closing(reopened(other)) as again:
            assert [kept.key for kept in again.kept()] == [1]


def test_a_payload_that_was_altered_is_not_read() -> None:
    data = PAYLOAD.dump()
    assert Payload.load(data) == PAYLOAD
    for position in range(len(data)):
        altered = bytearray(data)
        altered[position] ^= 0x40
        with pytest.raises(DamagedPayloadError):
            Payload.load(bytes(altered))


def test_what_is_too_large_is_refused_with_the_limit(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    (key,) = spool.write([job()], [])
    monkeypatch.setattr(Payload, "dump", lambda self: bytes(1_000_000_001))
    with pytest.raises(SpoolError, match=r"too big; the arguments of a background job.* may take 1 GB"):
        spool.write([job()], [])
    assert [kept.key for kept in spool.kept()] == [key]


def test_what_cannot_be_written_leaves_everything_as_it_was(spool: Spool, path: Path) -> None:
    (key,) = spool.write([job()], [])
    with closing(connect(path)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(SpoolError, match=r"jobs\.spool: database is locked; another program has locked it"):
            spool.write([job()], [Finished(key)])
        assert "locked" in spool.broken
        other.execute("ROLLBACK")
    assert [kept.key for kept in spool.kept()] == [key]
    assert list(spool.write([job()], [Finished(key)])) == [key + 1]
    assert not spool.broken


# -- what is wrong with the file -------------------------------------------------------------------------


def test_a_second_engine_is_told_who_has_the_spool(spool: Spool, path: Path) -> None:
    spool.write([job()], [])
    with pytest.raises(SpoolError, match=rf"in use by another engine \(process {os.getpid()}\); stop that one"):
        Spool(path, 1)
    assert len(spool.kept()) == 1


def garbage(path: Path) -> None:
    path.write_bytes(b"These are no jobs. " * 300)


def truncated(path: Path) -> None:
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.truncate(size // 2 // 4096 * 4096)


def overwritten(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xa5" * 8192)


@pytest.mark.parametrize("damage", [garbage, truncated, overwritten])
def test_a_damaged_file_is_named_and_left_as_it_is(path: Path, damage: Callable[[Path], None]) -> None:
    with closing(Spool(path, os.getpid())) as spool:
        spool.write([job(f"work{number}") for number in range(300)], [])
    damage(path)
    before = path.read_bytes()
    for attempt in (lambda: Spool(path, os.getpid()), lambda: read_jobs(path), lambda: read_dead(path)):
        with pytest.raises(SpoolError, match=r"jobs\.spool is damaged \(.*\) and was left as it is.*\.recover"):
            attempt()
    assert path.read_bytes() == before


def test_the_database_of_another_program_is_left_as_it_is(path: Path) -> None:
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE things (name)")
        database.commit()
    before = path.read_bytes()
    with pytest.raises(SpoolError, match="the database of another program; name another path"):
        Spool(path, os.getpid())
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]  # noqa: PTH208


def test_a_spool_of_a_newer_version_is_not_touched(spool: Spool, path: Path) -> None:
    spool.close()
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA user_version = 99")
    with pytest.raises(SpoolError, match="written by a newer rigger_mp"):
        Spool(path, os.getpid())


def test_a_path_that_cannot_be_is_named(tmp_path: Path) -> None:
    with pytest.raises(SpoolError, match=r"there is no directory .*absent; make it"):
        Spool(tmp_path / "absent" / "jobs.spool", os.getpid())
    with pytest.raises(SpoolError, match="is not a file"):
        Spool(tmp_path, os.getpid())


def test_an_empty_file_becomes_a_spool(path: Path) -> None:
    path.touch()
    with closing(Spool(path, os.getpid())) as spool:
        spool.write([job()], [])
        assert len(spool.kept()) == 1


def test_only_its_user_may_read_it(spool: Spool, path: Path) -> None:
    assert [file.stat().st_mode & 0o077 for file in (path, companion(path))] == [0, 0]
    assert not spool.jobs


def test_an_engine_that_ends_meanwhile_leaves_its_spool_to_the_next(
    spool: Spool, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (key,) = spool.write([job()], [])
    ended: list[int] = []

    def end(dispatcher: int) -> None:
        ended.append(dispatcher)
        spool.close()

    monkeypatch.setattr(spool_file, "_await_end", end)
    with closing(Spool(path, 1)) as following:
        assert [kept.key for kept in following.kept()] == [key]
    assert ended == [os.getpid()]


def test_a_file_that_another_program_has_locked_is_named(path: Path) -> None:
    path.touch()
    with closing(connect(path)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(SpoolError, match="another program has locked it"):
            Spool(path, os.getpid())
    Spool(path, os.getpid()).close()


def test_what_the_system_refuses_is_named(path: Path) -> None:
    companion(path).mkdir()
    with pytest.raises(SpoolError, match=r"jobs\.spool-running: Is a directory"):
        Spool(path, os.getpid())


def test_without_marks_every_job_waits(spool: Spool, path: Path) -> None:
    (key,) = spool.write([job()], [])
    spool.marks.start(key, 0)
    assert [row.state for row in read_jobs(path)] == ["started"]
    companion(path).unlink()
    assert [row.state for row in read_jobs(path)] == ["waiting"]


def test_where_there_is_no_spool_there_is_nothing_to_read(path: Path) -> None:
    for _ in range(2):
        for read in (read_jobs, read_dead):
            with pytest.raises(SpoolError, match="there is no spool"):
                read(path)
        path.touch()
