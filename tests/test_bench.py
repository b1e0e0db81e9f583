"""The benchmark: it believes nothing that is not proved, and tells what was missed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench import cli, tally
from bench.charts import bars, overview
from bench.figures import Run, Spread
from bench.goals import GOALS, MET, NOT_MEASURED, NOT_MET
from bench.measure import Taken, take, verify
from bench.peers import PEERS
from bench.readme import ReadmeError, rewrite
from bench.table import goal_rows, workload_table
from bench.workloads import WORKLOADS

ROOT = Path(__file__).resolve().parent.parent
META = {"python": "3", "system": "any", "cpus": 2, "versions": {}, "quick": True}


def run_of(workload: str, **figures: Any) -> Run:
    """Return a run of one workload: for each peer the metrics of its samples, or why they were refused."""
    run = Run(meta=dict(META))
    for peer, rows in figures.items():
        for row in rows:
            run.add(workload, peer, Taken(refused=row) if isinstance(row, str) else Taken(row))
    return run


def medians(*values: float) -> list[dict[str, float]]:
    return [{"median": value} for value in values]


def goal(part: str) -> Any:
    (found,) = (one for one in GOALS if part in one.text and one.workload == "blocking")
    return found


def test_evidence_must_be_exactly_what_is_expected() -> None:
    expected = {"calls": 10, "sum": 45}
    assert verify({"calls": 10, "sum": 45, "more": 1}, expected) == ""
    assert verify({"calls": 9, "sum": 45}, expected) == "calls is 9, expected 10"
    assert "sum is missing" in verify({"calls": 10}, expected)


def test_work_that_was_not_done_gives_no_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    workload = WORKLOADS["start"]
    size = {"starts": 1}
    assert take(workload, "ppe", size).metrics["first_result"] > 0
    monkeypatch.setattr("bench.measure.verify", lambda evidence, expected: verify({**evidence, "calls": 0}, expected))
    refused = take(workload, "ppe", size)
    assert refused.metrics == {}
    assert refused.refused == "calls is 0, expected 1"


def test_a_sample_that_fails_says_why() -> None:
    taken = take(WORKLOADS["start"], "serial", {})  # nothing that could be started
    assert taken.metrics == {}
    assert taken.refused.startswith("ended with 1: ")


def test_no_ratio_of_refused_work() -> None:
    run = run_of("blocking", rigger_mp=medians(1.0, 1.0), ppe=["calls is 9, expected 10"] * 2)
    assert run.ratio("blocking", ("ppe", "median"), ("rigger_mp", "median")) is None
    row = next(line for line in workload_table(run, WORKLOADS["blocking"]).splitlines() if "ProcessPool" in line)
    assert "refused: calls is 9, expected 10" in row
    assert goal("ProcessPoolExecutor").verdict(run) == NOT_MEASURED


def test_ratios_are_made_round_by_round_of_verified_rounds_only() -> None:
    run = run_of("blocking", rigger_mp=medians(1.0, 2.0, 4.0), ppe=[{"median": 2.0}, "no", {"median": 2.0}])
    assert run.ratio("blocking", ("ppe", "median"), ("rigger_mp", "median")) == Spread(1.25, 0.5, 2.0)


@pytest.mark.parametrize(("ours", "verdict"), [(0.9, MET), (1.0, MET), (1.1, NOT_MET)])
def test_a_goal_of_at_most(ours: float, verdict: str) -> None:
    run = run_of("blocking", rigger_mp=medians(ours), ppe=medians(1.0))
    assert goal("ProcessPoolExecutor").verdict(run) == verdict


@pytest.mark.parametrize(("theirs", "verdict"), [(600.0, MET), (499.0, NOT_MET)])
def test_a_goal_of_at_least(theirs: float, verdict: str) -> None:
    run = run_of("blocking", rigger_mp=medians(1.0), **{"riggerlib-client": medians(theirs)})
    assert goal("riggerlib").verdict(run) == verdict
    assert next(row for row in goal_rows(run) if "riggerlib" in row[0])[2] == verdict


def test_goals_refer_to_what_is_measured() -> None:
    for one in GOALS:
        sides = [one.above] + ([one.below] if one.below else [])
        assert {peer for peer, _ in sides} <= set(WORKLOADS[one.workload].peers)


def test_a_run_survives_its_file() -> None:
    run = run_of("blocking", rigger_mp=medians(1.0), ppe=["no"])
    run.absent["blocking"] = {"ray": "absent: ray is not installed"}
    assert Run.from_json(json.loads(json.dumps(run.as_json()))) == run


def test_charts_show_every_peer() -> None:
    run = run_of("blocking", rigger_mp=medians(1e-4), ppe=medians(2e-4, 4e-4), ray=medians(2e-3))
    for picture in (bars(run, WORKLOADS["blocking"]), overview(run)):
        assert picture.startswith("<svg")
        assert PEERS["ppe"].title in picture
        assert PEERS["ray"].title in picture


def test_readme_blocks_are_rewritten_and_nothing_else(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("before\n<!-- bench: goals -->\nold\n<!-- /bench -->\nafter\n")
    run = run_of("blocking", rigger_mp=medians(3.0), ppe=medians(1.0))
    assert rewrite(run, [readme]) == [readme]
    text = readme.read_text()
    assert text.startswith("before\n<!-- bench: goals -->\n| goal |")
    assert text.endswith("\n<!-- /bench -->\nafter\n")
    assert "old" not in text
    assert NOT_MET in text
    readme.write_text("<!-- bench: nonsense -->\n<!-- /bench -->\n")
    with pytest.raises(ReadmeError, match="nonsense"):
        rewrite(run, [readme])


def test_list_names_workloads_and_peers(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--list"]) == 0
    text = capsys.readouterr().out
    for name in (*WORKLOADS, *PEERS):
        assert f"  {name} " in text


def test_a_wrong_name_is_answered_with_a_near_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bloking"]) == 2
    assert "did you mean 'blocking'" in capsys.readouterr().err
    assert cli.main(["--peers", "celery"]) == 2
    assert "celery" in capsys.readouterr().err


def test_a_real_run_through_the_command_line(tmp_path: Path) -> None:
    file = tmp_path / "run.json"
    options = ["blocking", "--quick", "--peers", "ppe,relay", "--json", str(file), "--charts", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-m", "bench", *options], cwd=ROOT, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "blocking 1/1 ppe" in done.stderr
    assert "not asked for" in done.stdout
    run = Run.from_json(json.loads(file.read_text()))
    assert set(run.samples["blocking"]) == {"rigger_mp", "relay", "ppe"}
    events = WORKLOADS["blocking"].quick["events"]
    assert [taken.evidence["calls"] for rows in run.samples["blocking"].values() for taken in rows] == [events] * 3
    assert (tmp_path / "blocking.svg").read_text().startswith("<svg")


def test_calls_of_all_processes_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(tally.DIRECTORY, str(tmp_path))
    script = "from bench import tally; [tally.add(n) for n in range(5)]"
    for _ in range(2):
        subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True, timeout=60)
    assert tally.read() == tally.Tally(10, 20)
    assert tally.read().since(tally.Tally(4, 6)) == tally.Tally(6, 14)
