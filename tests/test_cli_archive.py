"""``rigger-mp archive``: what a spool holds, and what becomes of its dead letters."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from quiet import QuietRigger
from spool_plugins import Ledger

from rigger_mp.cli.main import main
from rigger_mp.engine.kept_jobs import Died, NewJob, Payload
from rigger_mp.engine.spool import Spool

TRACEBACK = 'Traceback (most recent call last):\n  File "x.py", line 3, in work\nValueError: broken pipe\n'


@pytest.fixture
def config(tmp_path: Path) -> Iterator[str]:
    """A configuration whose spool has a waiting job, 1, and two dead letters, 2 and 3."""
    file = tmp_path / "rigger.yaml"
    file.write_text("archive: {spool: jobs.spool}\nplugins: {ledger: {plugin: ledger, background: true}}\n")
    with closing(Spool(tmp_path / "jobs.spool", os.getpid())) as spool:
        names = ("wait", "work", "crash")
        payload = Payload(b"", (), (), None)
        spool.write([NewJob(name, f"ledger\0{name}", f"ledger.{name}", 0, payload) for name in names], [])
        spool.write((), [Died(2, 1, "ValueError: broken pipe", TRACEBACK), Died(3, 4, "archive was killed", "")])
    yield str(file)


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    status = main(["archive", *arguments])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def listed(capsys: pytest.CaptureFixture[str], action: str, config: str) -> list[Any]:
    status, out, _ = run(capsys, action, config, "--json")
    assert status == 0
    jobs: list[Any] = json.loads(out)
    return jobs


def test_list_shows_the_jobs_that_are_to_be_run(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "list", config)
    header, row = out.splitlines()
    assert status == 0
    assert header.split() == ["id", "hook", "function", "state", "interrupted", "queued"]
    assert row.split()[:5] == ["1", "wait", "ledger.wait", "waiting", "0"]
    (job,) = listed(capsys, "list", config)
    assert (job["id"], job["hook"], job["function"], job["state"]) == (1, "wait", "ledger.wait", "waiting")


def test_failed_shows_reasons_and_tracebacks(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "failed", config)
    assert status == 0
    first, second = out.split("\n\n")
    assert first.startswith("2  ledger.work of hook 'work'\n")
    assert "ValueError: broken pipe" in first
    assert 'File "x.py", line 3, in work' in first
    assert "started 4 times\n    archive was killed" in second
    dead = listed(capsys, "failed", config)
    assert [(job["id"], job["attempts"], job["traceback"]) for job in dead] == [(2, 1, TRACEBACK), (3, 4, "")]


def test_the_spool_itself_may_be_named(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    spool = str(Path(config).with_name("jobs.spool"))
    assert listed(capsys, "failed", spool) == listed(capsys, "failed", config)


def test_retry_makes_dead_letters_jobs_again(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "retry", config, "3") == (0, "1 job will be run at the engine's next start\n", "")
    assert [(job["id"], job["attempts"]) for job in listed(capsys, "list", config)] == [(1, 0), (3, 0)]
    assert [job["id"] for job in listed(capsys, "failed", config)] == [2]
    assert run(capsys, "retry", config, "--all")[1].startswith("1 job ")
    assert [job["id"] for job in listed(capsys, "list", config)] == [1, 2, 3]


def test_drop_forgets_them(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "drop", config, "--all", "--yes") == (0, "2 jobs dropped\n", "")
    assert [job["id"] for job in listed(capsys, "list", config)] == [1]
    status, out, _ = run(capsys, "drop", config, "1", "--yes", "--json")
    assert (status, json.loads(out)) == (0, {"dropped": [1], "missing": []})
    assert run(capsys, "list", config)[1] == "no jobs\n"
    assert run(capsys, "failed", config)[1] == "no dead letters\n"


def test_drop_asks_before(config: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    status, _, err = run(capsys, "drop", config, "2")
    assert status == 2
    assert "would forget 1 job for good; give --yes if you mean it" in err

    class Terminal:
        answers = iter(["\n", "y\n"])

        def isatty(self) -> bool:
            return True

        def readline(self) -> str:
            return next(self.answers)

    monkeypatch.setattr("sys.stdin", Terminal())
    assert run(capsys, "drop", config, "2")[0] == 1
    assert len(listed(capsys, "failed", config)) == 2
    assert run(capsys, "drop", config, "2")[:2] == (0, "1 job dropped\n")


def test_an_id_that_there_is_not_is_told(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = run(capsys, "retry", config, "2", "1", "77")
    assert (status, out) == (1, "1 job will be run at the engine's next start\n")
    assert err == "rigger-mp: no such job: 1, 77\n"


@pytest.mark.parametrize("chosen", [[], ["2", "--all"]])
def test_which_jobs_must_be_said_in_one_way(
    config: str, capsys: pytest.CaptureFixture[str], chosen: list[str]
) -> None:
    status, _, err = run(capsys, "retry", config, *chosen)
    assert status == 2
    assert "name jobs by their ids, or give --all" in err


def test_while_an_engine_has_it_one_may_look_and_not_touch(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    with QuietRigger(config, plugins={"ledger": Ledger}) as rigger:
        rigger.drain()
        # Its instance binds no hook "wait": the waiting job became a dead letter when the engine started.
        assert [job["id"] for job in listed(capsys, "failed", config)] == [1, 2, 3]
        for action in (["retry", config, "2"], ["drop", config, "2", "--yes"]):
            status, _, err = run(capsys, *action)
            assert status == 1
            assert f"in use by another engine (process {os.getpid()})" in err
    assert run(capsys, "retry", config, "2")[0] == 0


def test_a_damaged_spool_is_named(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path(config).with_name("jobs.spool").write_bytes(b"no jobs" * 1000)
    for action in (["list", config], ["failed", config], ["retry", config, "--all"]):
        status, _, err = run(capsys, *action)
        assert status == 1
        assert "jobs.spool is damaged" in err


def test_what_has_no_spool_is_told_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "rigger.yaml"
    file.write_text("workers: 1\n")
    status, _, err = run(capsys, "list", str(file))
    assert (status, "it names no spool" in err) == (2, True)
    file.write_text("archive: {spool: jobs.spool}\n")
    for action in (["list"], ["failed"], ["retry", "--all"]):
        status, _, err = run(capsys, action[0], str(file), *action[1:])
        assert (status, "there is no spool" in err) == (1, True)
    assert [path.name for path in tmp_path.iterdir()] == ["rigger.yaml"]


@pytest.mark.parametrize("action", [[], ["list"], ["failed"], ["retry"], ["drop"]])
def test_help_teaches(action: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["archive", *action, "--help"])
    assert left.value.code == 0
    assert "dead letters" in capsys.readouterr().out or action == ["list"]
