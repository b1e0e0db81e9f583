"""The durable archive, with real processes: nothing that was accepted is lost, whatever is killed or full."""

from __future__ import annotations

import os
import resource
import signal
import sys
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from quiet import QuietRigger
from spool_kills import Campaign, check_promise, kill_until_done
from spool_plugins import Ledger
from waiting import wait_for

from rigger_mp import HookError, Rigger, RiggerBasePlugin
from rigger_mp.engine.spool_file import read_dead, read_jobs
from rigger_mp.errors import EventQuarantined, SpoolError, StartError, WorkerLost


class Place:
    """A directory with a spool and a ledger."""

    def __init__(self, directory: Path) -> None:
        self.spool = directory / "jobs.spool"
        self.path = str(directory / "ledger")
        self.gate = directory / "gate"

    def config(self, max_retries: int = 0, **keys: Any) -> dict[str, Any]:
        archive = {"spool": str(self.spool), "max_retries": max_retries}
        instances = {"ledger": {"plugin": "ledger", "background": True}}
        return {"workers": 1, "archive": archive, "plugins": instances, **keys}

    def engine(self, max_retries: int = 0, **keys: Any) -> QuietRigger:
        return QuietRigger(self.config(max_retries, **keys), plugins={"ledger": Ledger})

    def lines(self) -> list[str]:
        return Path(self.path).read_text().splitlines() if Path(self.path).exists() else []

    def block(self, rigger: Rigger, number: int = 0) -> None:
        """Have the archive run a job that ends once the gate is there."""
        rigger.fire_hook("block", ledger=self.path, number=number, gate=str(self.gate))
        wait_for(lambda: f"start {number}" in self.lines())


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path)
    yield place
    place.gate.touch()


def process_of(rigger: Rigger, role: str) -> int:
    return int(next(row["pid"] for row in rigger.stats()["processes"] if row["role"] == role))


def archive_row(rigger: Rigger) -> dict[str, Any]:
    (row,) = [row for row in rigger.stats()["processes"] if row["role"] == "archive"]
    return dict(row)


@pytest.mark.parametrize("max_retries", [0, 1])
def test_killed_with_everything_each_job_runs_twice_only_if_it_was_running(tmp_path: Path, max_retries: int) -> None:
    campaign = Campaign(tmp_path, 0.004, max_retries, seed=max_retries)
    kill_until_done(campaign, jobs=300, kills=5, longest=0.15)
    check_promise(campaign, max_retries)


def test_jobs_wait_in_the_spool_and_leave_it_when_they_are_done(place: Place) -> None:
    with place.engine() as rigger:
        place.block(rigger)
        for number in range(1, 11):
            rigger.fire_hook("work", ledger=place.path, number=number)
        assert [row.hook for row in read_jobs(place.spool)] == ["block"] + ["work"] * 10
        assert [row.state for row in read_jobs(place.spool)] == ["started"] + ["waiting"] * 10
        assert (archive_row(rigger)["spooled"], archive_row(rigger)["dead_letters"]) == (11, 0)
        place.gate.touch()
        rigger.drain()
        assert read_jobs(place.spool) == []
        assert archive_row(rigger)["spooled"] == 0
        assert rigger.global_data["worked"] == list(range(1, 11))


def test_stopped_before_they_are_done_jobs_stay_for_the_next_start_and_run_first(place: Place) -> None:
    with place.engine(max_retries=1) as rigger:
        place.block(rigger)
        for number in range(1, 6):
            rigger.fire_hook("work", ledger=place.path, number=number)
        rigger.stop(0.2)
        assert f"6 background jobs stay in {place.spool} for the next start" in rigger.messages
    place.gate.touch()
    with place.engine(max_retries=1) as rigger:
        rigger.fire_hook("work", ledger=place.path, number=6)
    assert not rigger.failures
    assert [line for line in place.lines() if line.startswith("end")] == [f"end {number}" for number in range(7)]
    assert [line for line in place.lines() if line == "start 0"] == ["start 0"] * 2


def test_a_job_sees_in_a_later_engine_what_it_would_have_seen(place: Place) -> None:
    with place.engine() as rigger:
        rigger.register_hook_callback("greet", "pre", lambda name: ({"greeting": f"Hello {name}"}, None), name="polite")
        rigger.global_data = {"whole": {"deep": [1]}}
        place.block(rigger)
        rigger.fire_hook("greet", ledger=place.path, number=1, name="Ada")
        rigger.global_data["whole"] = "changed since"
        rigger.stop(0.2)
    place.gate.touch()
    with place.engine():
        pass
    assert "Hello Ada {'deep': [1]}" in place.lines()


def test_large_values_are_kept_with_their_job(place: Place) -> None:
    cargo, ballast = os.urandom(3 << 20), os.urandom(2 << 20)
    with place.engine(max_retries=1) as rigger:
        rigger.register_hook_callback("weigh", "pre", lambda: ({"ballast": ballast}, None), name="load")
        rigger.fire_hook("weigh", ledger=place.path, number=0, cargo=cargo)
        rigger.drain()
        place.block(rigger)
        rigger.fire_hook("weigh", ledger=place.path, number=1, cargo=cargo)
        rigger.stop(0.2)
    place.gate.touch()
    with place.engine(max_retries=1):
        pass
    weights = [line.split()[2:] for line in place.lines() if line.startswith("weigh")]
    expected = [len(cargo), zlib.crc32(cargo), len(ballast), zlib.crc32(ballast)]
    assert weights == [list(map(str, expected))] * 2


def test_a_job_that_fails_is_a_dead_letter_with_its_traceback_and_not_run_again(place: Place) -> None:
    with place.engine(max_retries=3) as rigger:
        rigger.fire_hook("fail", ledger=place.path, number=4)
        rigger.fire_hook("work", ledger=place.path, number=5)
        rigger.drain()
        assert archive_row(rigger)["dead_letters"] == 1
        wait_for(lambda: rigger.failures)
        assert [str(failure) for failure in rigger.failures] == ["job 4 fails"]
    (dead,) = read_dead(place.spool)
    assert (dead.hook, dead.label, dead.attempts, dead.reason) == ("fail", "ledger.fail", 1, "ValueError: job 4 fails")
    assert 'raise ValueError(f"job {number} fails")' in dead.traceback
    with place.engine(max_retries=3):
        pass
    assert place.lines() == ["start 4", "start 5", "end 5"]


@pytest.mark.parametrize("max_retries", [0, 2])
def test_a_job_that_kills_the_archive_is_retried_then_dead_and_the_others_run(place: Place, max_retries: int) -> None:
    with place.engine(max_retries=max_retries) as rigger:
        rigger.fire_hook("crash", ledger=place.path, number=1)
        for number in range(2, 20):
            rigger.fire_hook("work", ledger=place.path, number=number)
        rigger.drain()
        wait_for(lambda: rigger.failures)
        assert [type(failure) for failure in rigger.failures] == [EventQuarantined if max_retries else WorkerLost]
    assert Counter(place.lines())["start 1"] == 1 + max_retries
    assert [line for line in place.lines() if line.startswith("end")] == [f"end {number}" for number in range(2, 20)]
    (dead,) = read_dead(place.spool)
    assert dead.attempts == 1 + max_retries
    assert "exited with status 7" in dead.reason


def test_killing_the_archive_alone_costs_the_running_job_an_attempt(place: Place) -> None:
    with place.engine(max_retries=1) as rigger:
        place.block(rigger)
        rigger.fire_hook("work", ledger=place.path, number=1)
        os.kill(archive_row(rigger)["pid"], signal.SIGKILL)
        wait_for(lambda: Counter(place.lines())["start 0"] == 2)
        assert [(row.attempts, row.state) for row in read_jobs(place.spool)] == [(1, "started"), (0, "waiting")]
        place.gate.touch()
    assert not rigger.failures
    assert place.lines() == ["start 0", "start 0", "end 0", "start 1", "end 1"]


@pytest.mark.parametrize("max_retries", [0, 1])
def test_killing_the_dispatcher_alone_loses_no_accepted_job(place: Place, max_retries: int) -> None:
    with place.engine(max_retries=max_retries) as rigger:
        place.block(rigger)
        futures = [rigger.submit("work", ledger=place.path, number=number) for number in range(1, 301)]
        wait_for(futures[20].done)
        killed = process_of(rigger, "dispatcher")
        os.kill(killed, signal.SIGKILL)
        wait_for(lambda: process_of(rigger, "dispatcher") != killed)
        accepted = [number for number, future in enumerate(futures, 1) if future.exception() is None]
        place.gate.touch()
        rigger.fire_hook("work", ledger=place.path, number=301)
        rigger.drain()
    ran = Counter(line for line in place.lines() if line.startswith("start"))
    assert ran.pop("start 0") == 1 + max_retries
    assert set(ran.values()) == {1}
    assert ran.keys() >= {f"start {number}" for number in [*accepted, 301]}
    assert len(read_dead(place.spool)) == 1 - max_retries
    losses = [failure for failure in rigger.failures if "background handler" in str(failure)]
    assert losses == []


def test_a_job_whose_instance_is_gone_is_a_dead_letter_that_says_so(place: Place) -> None:
    with place.engine() as rigger:
        place.block(rigger)
        rigger.fire_hook("work", ledger=place.path, number=1)
        rigger.stop(0.2)
    config = {**place.config(max_retries=1), "plugins": {"other": {"plugin": "ledger", "background": True}}}
    with QuietRigger(config, plugins={"ledger": Ledger}) as rigger:
        wait_for(lambda: len(rigger.failures) == 2)
    reasons = [dead.reason for dead in read_dead(place.spool)]
    assert reasons[1] == "ledger.work is not there to be run in the background any more"
    assert "ledger.work" in str(rigger.failures[1])


class Mixed(RiggerBasePlugin):
    """Runs in the foreground what others run in the background."""

    def plugin_initialize(self) -> None:
        self.register_plugin_hook("work")
        self.register_plugin_hook("later", self.work, bg=True)

    def work(self, ledger: str, number: int) -> Any:
        Path(ledger).with_name(f"mixed{number}").touch()
        return {"mixed": number}, None


def test_background_hooks_of_a_foreground_instance_are_kept_too(place: Place) -> None:
    instances = {"ledger": {"plugin": "ledger", "background": True}, "mixed": {"plugin": "mixed"}}
    with QuietRigger(place.config(plugins=instances), plugins={"ledger": Ledger, "mixed": Mixed}) as rigger:
        place.block(rigger)
        assert rigger.fire_hook("work", ledger=place.path, number=1)["mixed"] == 1
        rigger.fire_hook("later", ledger=place.path, number=2)
        assert [row.label for row in read_jobs(place.spool)] == ["ledger.block", "ledger.work", "mixed.work"]
        rigger.stop(0.2)
    place.gate.touch()
    with QuietRigger(place.config(1, plugins=instances), plugins={"ledger": Ledger, "mixed": Mixed}):
        pass
    assert Path(place.path).with_name("mixed2").exists()
    assert "end 1" in place.lines()


# -- what keeps the spool from being used ----------------------------------------------------------------


def test_a_second_engine_is_refused_and_the_first_goes_on(place: Place) -> None:
    with place.engine() as rigger:
        place.block(rigger)
        with pytest.raises(StartError, match=rf"jobs\.spool is in use by another engine \(process {os.getpid()}\)"):
            place.engine().start()
        place.gate.touch()
        rigger.fire_hook("work", ledger=place.path, number=1)
    assert place.lines()[-1] == "end 1"


def test_a_damaged_spool_is_named_at_the_start_and_left_as_it_is(place: Place) -> None:
    place.spool.write_bytes(b"no jobs" * 5000)
    with pytest.raises(StartError, match=r"jobs\.spool is damaged .* was left as it is"):
        place.engine().start()
    assert place.spool.read_bytes() == b"no jobs" * 5000


def test_a_relative_path_is_relative_to_the_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "etc").mkdir()
    file = tmp_path / "etc" / "rigger.yaml"
    file.write_text("workers: 1\narchive: {spool: jobs.spool}\nplugins: {ledger: {plugin: ledger, background: true}}\n")
    monkeypatch.chdir(tmp_path)
    with QuietRigger(file, plugins={"ledger": Ledger}) as rigger:
        rigger.fire_hook("work", ledger=str(tmp_path / "ledger"), number=1)
    assert (tmp_path / "etc" / "jobs.spool").exists()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits another process's files")
def test_on_a_full_disk_events_fail_and_what_was_accepted_runs_once_there_is_room(place: Place) -> None:
    with place.engine() as rigger:
        place.block(rigger)
        dispatcher = process_of(rigger, "dispatcher")
        limits = resource.prlimit(dispatcher, resource.RLIMIT_FSIZE, (1 << 16, resource.RLIM_INFINITY))
        accepted, refused = [], []
        for number in range(1, 200):
            try:
                rigger.fire_hook("work", ledger=place.path, number=number)
            except SpoolError as error:
                refused.append(number)
                assert "archive.spool" in str(error)
                assert "make room on the disk" in str(error)
            else:
                accepted.append(number)
        assert accepted
        assert refused
        place.gate.touch()
        wait_for(lambda: "end 0" in place.lines())
        wait_for(lambda: any(message.startswith("background jobs wait: ") for message in rigger.messages))
        resource.prlimit(dispatcher, resource.RLIMIT_FSIZE, limits)
        rigger.drain()
        assert "background jobs go on" in rigger.messages
        rigger.fire_hook("work", ledger=place.path, number=200)
    assert [line for line in place.lines() if line.startswith("end")] == [
        f"end {number}" for number in [0, *accepted, 200]
    ]
    assert read_jobs(place.spool) == read_dead(place.spool) == []


def test_without_a_spool_nothing_is_written(tmp_path: Path) -> None:
    instances = {"ledger": {"plugin": "ledger", "background": True}}
    with QuietRigger({"workers": 1, "plugins": instances}, plugins={"ledger": Ledger}) as rigger:
        rigger.fire_hook("work", ledger=str(tmp_path / "ledger"), number=1)
        rigger.drain()
        assert "spooled" not in archive_row(rigger)
    assert [file.name for file in tmp_path.iterdir()] == ["ledger"]


def test_a_failing_event_raises_as_without_a_spool(place: Place) -> None:
    def refuse() -> None:
        raise ValueError("not this one")

    with place.engine() as rigger:
        rigger.register_hook_callback("work", "pre", refuse, name="refuse")
        with pytest.raises(HookError, match="not this one"):
            rigger.fire_hook("work", ledger=place.path, number=1)
        rigger.drain()
        assert place.lines() == []
