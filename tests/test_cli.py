"""The rigger-mp command, run as a user runs it."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import psutil
import pytest
from waiting import wait_for

from rigger_mp.cli.inputs import Source, open_inputs, parse_events, source_from_config
from rigger_mp.cli.progress import Progress
from rigger_mp.cli.table import human_bytes, render, summarize
from rigger_mp.config_schema import config_schema
from rigger_mp.errors import ConfigError

PLUGIN = '''
import pathlib, time
from rigger_mp import RiggerBasePlugin


class Journal(RiggerBasePlugin):
    """Writes down what it is asked to do."""

    def plugin_initialize(self):
        for event in ("start_session", "finish_session"):
            self.register_plugin_hook(event, lambda event=event: self.write(event))
        self.register_plugin_hook("note")
        self.register_plugin_hook("fail")
        self.register_plugin_hook("hold")

    def write(self, text):
        with open(self.data["log"], "a") as log:
            log.write(text + "\\n")

    def note(self, text=None, path=None):
        self.write(f"note {text or path}")

    def fail(self, text):
        raise ValueError(text)

    def hold(self, seconds):
        self.write("holding")
        time.sleep(seconds)
        self.write("held")
'''


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "journal.py").write_text(PLUGIN)
    (tmp_path / "rigger.yaml").write_text(
        f"workers: 2\nplugin_path: .\nplugins:\n  journal: {{plugin: journal, log: {tmp_path / 'log'}}}\n"
    )
    return tmp_path


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "rigger_mp.cli", *map(str, arguments)]


def rigger_mp(*arguments: object, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments), input=stdin, capture_output=True, text=True, timeout=90, check=False
    )


def events(*rows: Any) -> str:
    return "".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows)


def log_of(project: Path) -> list[str]:
    return (project / "log").read_text().splitlines()


def test_events_run_in_their_order_between_the_brackets_of_the_session(project: Path) -> None:
    lines = events(*({"hook_name": "note", "data": {"text": str(number)}} for number in range(20)))
    done = rigger_mp("run", project / "rigger.yaml", "--events", "-", stdin=lines)
    assert done.returncode == 0, done.stderr
    assert log_of(project) == ["start_session", *(f"note {number}" for number in range(20)), "finish_session"]
    assert "events" in done.stdout
    assert "journal" in done.stdout


def test_no_session_fires_the_events_alone(project: Path) -> None:
    (project / "events").write_text(events({"hook_name": "note", "data": {"text": "only"}}))
    done = rigger_mp("run", project / "rigger.yaml", "--events", project / "events", "--no-session")
    assert done.returncode == 0, done.stderr
    assert log_of(project) == ["note only"]


def test_wrong_lines_and_failing_events_are_named_and_the_run_goes_on(project: Path) -> None:
    lines = events(
        {"hook_name": "fail", "data": {"text": "first trouble"}},
        "{not json",
        {"data": {}},
        {"hook_name": "note", "data": []},
        {"hook_name": "note", "data": {"text": "last"}},
    )
    done = rigger_mp("run", project / "rigger.yaml", "--events", "-", "--json", stdin=lines)
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert (summary["events"], summary["failures"]) == (5, 4)
    assert "standard input:1: journal.fail: ValueError: first trouble" in done.stderr
    for number, problem in ((2, "no JSON"), (3, "no hook_name"), (4, "data is no object")):
        assert f"standard input:{number}: {problem}" in done.stderr
    assert log_of(project)[-2:] == ["note last", "finish_session"]
    assert rigger_mp("run", project / "rigger.yaml", "--events", "-", "--fail-on-error", stdin=lines).returncode == 1


def test_one_event_per_file(project: Path) -> None:
    for name in ("b.txt", "a.txt", "c.dat"):
        (project / name).touch()
    done = rigger_mp(
        "run", project / "rigger.yaml", "--files", "*.txt", "--root", project, "--hook", "note", "--workers", "1"
    )
    assert done.returncode == 0, done.stderr
    assert log_of(project)[1:-1] == [f"note {project / 'a.txt'}", f"note {project / 'b.txt'}"]


def test_many_failures_are_counted_rather_than_listed(project: Path) -> None:
    lines = events(*({"hook_name": "fail", "data": {"text": f"t{number}"}} for number in range(30)))
    done = rigger_mp("run", project / "rigger.yaml", "--events", "-", stdin=lines)
    assert "ValueError: t19" in done.stderr
    assert "ValueError: t20" not in done.stderr
    assert "10 more failures" in done.stderr


def test_nothing_to_do_says_what_to_give(project: Path) -> None:
    done = rigger_mp("run", project / "rigger.yaml")
    assert done.returncode == 2
    assert "--events FILE" in done.stderr


def test_a_wrong_configuration_is_reported_whole(project: Path) -> None:
    wrong = project / "wrong.yaml"
    wrong.write_text("workers: none\nthreaded: maybe\nplugins:\n  a: {}\n")
    for subcommand in ("run", "check"):
        done = rigger_mp(subcommand, wrong)
        assert done.returncode == 2
        assert [line.split(": ")[0] for line in done.stderr.splitlines()] == [
            f"{wrong}:1:10", f"{wrong}:2:11", f"{wrong}:4:3",
        ]  # fmt: skip


def test_an_unknown_subcommand_is_refused_and_help_teaches() -> None:
    assert rigger_mp("rnu").returncode == 2
    assert "rigger-mp run" in rigger_mp("--help").stdout
    assert "exit status" in rigger_mp("run", "--help").stdout


def start_holding(project: Path, seconds: float) -> subprocess.Popen[str]:
    rows = [{"hook_name": "hold", "data": {"seconds": seconds}}]
    rows += [{"hook_name": "note", "data": {"text": str(number)}} for number in range(3000)]
    (project / "events").write_text(events(*rows))
    process = subprocess.Popen(
        command("run", project / "rigger.yaml", "--events", project / "events"),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    wait_for(lambda: (project / "log").exists() and "holding" in (project / "log").read_text())
    return process


def test_ctrl_c_finishes_what_was_fired_and_the_session(project: Path) -> None:
    process = start_holding(project, 1.5)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    log = log_of(project)
    assert log[:3] == ["start_session", "holding", "held"]
    assert log[-1] == "finish_session"
    assert len(log) < 3000
    assert "events" in out


def test_a_second_ctrl_c_kills(project: Path) -> None:
    process = start_holding(project, 600)
    processes = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGINT)
    err = ""
    assert process.stderr is not None
    while "again kills" not in err:
        err += process.stderr.readline()
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 137
    assert "held" not in log_of(project)
    assert psutil.wait_procs(processes, timeout=2)[1] == []


def test_a_bar_on_a_terminal(project: Path) -> None:
    (project / "a.txt").touch()
    ours, theirs = pty.openpty()
    arguments = ("run", project / "rigger.yaml", "--files", "*.txt", "--root", project, "--hook", "note")
    with subprocess.Popen(command(*arguments), stdout=subprocess.DEVNULL, stderr=theirs) as process:
        os.close(theirs)
        written = b""
        try:
            while data := os.read(ours, 4096):
                written += data
        except OSError:
            pass  # a terminal ends so
        assert process.wait(60) == 0
    os.close(ours)
    assert b"[####" in written
    assert b"1/1" in written


def test_check_tells_what_would_run_and_starts_nothing(project: Path) -> None:
    done = rigger_mp("check", project / "rigger.yaml")
    assert done.returncode == 0, done.stderr
    assert "journal: journal (one worker)" in done.stdout
    assert "note: ordered, because of journal.note" in done.stdout
    assert "journal.note(text=..., path=...)" in done.stdout
    assert not (project / "log").exists()
    report = json.loads(rigger_mp("check", project / "rigger.yaml", "--json").stdout)
    assert report["hooks"]["fail"]["functions"][0]["required"] == ["text"]


def test_check_of_the_shipped_example() -> None:
    shipped = Path(__file__).parent.parent / "plugins" / "audit.yaml"
    done = rigger_mp("check", shipped)
    assert done.returncode == 0, done.stderr
    assert "audit_file: concurrent" in done.stdout
    assert "archive.archive_session(directory) in the background" in done.stdout


def test_check_names_an_instance_that_cannot_be_made(project: Path) -> None:
    (project / "broken.py").write_text(
        "from rigger_mp import RiggerBasePlugin\n"
        "class Broken(RiggerBasePlugin):\n"
        "    def plugin_initialize(self):\n        raise OSError('no disk')\n"
    )
    config = project / "more.yaml"
    config.write_text("thraeded: true\nplugin_path: .\nplugins:\n  b: {plugin: broken}\n  c: {plugin: brokn}\n")
    done = rigger_mp("check", config)
    assert done.returncode == 1
    assert "instance [b] cannot be made: OSError: no disk" in done.stderr
    assert "did you mean 'broken'?" in done.stderr
    assert f"{config}:1:1: unknown key 'thraeded', did you mean 'threaded'?" in done.stderr


def test_the_schema_is_one() -> None:
    schema = json.loads(rigger_mp("schema").stdout)
    assert schema == config_schema()
    jsonschema.Draft202012Validator.check_schema(schema)


# -- pure parts -----------------------------------------------------------------------------------------------


def test_parse_events_keeps_numbers_and_skips_empty_lines() -> None:
    inputs = list(parse_events(["", ' {"hook_name": "a"}\n', "5\n"], "x"))
    assert [(item.label, item.hook, bool(item.problem)) for item in inputs] == [("x:2", "a", False), ("x:3", "", True)]


def test_the_inputs_section(tmp_path: Path) -> None:
    for name in ("keep/a.py", "keep/b.txt", "skip/c.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    files = {"root": str(tmp_path), "pattern": "**/*.py", "argument": "file", "exclude": ["skip/**"]}
    source = source_from_config({"inputs": {"hook": "look", "files": files}})
    assert [(item.hook, item.arguments) for item in open_inputs(source)[0]] == [
        ("look", {"file": str(tmp_path / "keep/a.py")})
    ]
    for wrong in (5, {"files": 5}):
        with pytest.raises(ConfigError, match="inputs"):
            source_from_config({"inputs": wrong})
    with pytest.raises(ConfigError, match="no directory"):
        open_inputs(Source(pattern="*", root=str(tmp_path / "none"), hook="x"))
    with pytest.raises(ConfigError, match="--hook"):
        open_inputs(Source(pattern="*", root=str(tmp_path)))


def test_progress_is_described_in_one_line() -> None:
    assert Progress(100).describe(25, 2, 5.0) == "25/100, 5/s, 2 failed, 15 s left"
    assert Progress(None).describe(25, 0, 5.0) == "25, 5/s"


def test_the_table_sums_by_plugin_and_aligns() -> None:
    functions = {
        "a.x": {"ident": "a", "calls": 2, "failures": 1, "seconds": 1.0},
        "a.y": {"ident": "a", "calls": 3, "failures": 0, "seconds": 0.5},
        "cb": {"ident": "", "calls": 1, "failures": 0, "seconds": 0.1},
    }
    process = {"name": "worker-0", "jobs": 6, "cpu_seconds": 1.5, "rss_bytes": 3 << 20, "restarts": 0}
    summary = summarize({"functions": functions, "processes": [process]}, 2.0, 10, 1)
    assert summary["plugins"]["a"] == {"calls": 5, "failures": 1, "seconds": 1.5}
    text = render(summary)
    assert "events/s   5.0" in text
    assert "3.0 MiB" in text
    assert human_bytes(512) == "512 B"


def test_what_plugins_print_keeps_out_of_the_json(project: Path) -> None:
    loud = PLUGIN.replace("def write(self, text):", "def write(self, text):\n        print('loud')")
    (project / "journal.py").write_text(loud)
    done = rigger_mp("run", project / "rigger.yaml", "--events", os.devnull, "--json")
    assert json.loads(done.stdout)["events"] == 0
    assert "loud" in done.stderr


def test_a_plugin_module_in_the_current_directory(project: Path) -> None:
    (project / "here.yaml").write_text(f"plugins:\n  j: {{plugin: 'journal:Journal', log: {project / 'log'}}}\n")
    script = Path(sys.executable).with_name("rigger-mp")
    done = subprocess.run([script, "check", "here.yaml"], cwd=project, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
