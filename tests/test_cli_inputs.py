"""Inputs that are wrong: each is named, and never ends in a traceback or ends the run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rigger_mp.cli.inputs import Source, open_inputs, parse_events, source_from_config, split_lines
from rigger_mp.errors import ConfigError

PLUGIN = """
from rigger_mp import RiggerBasePlugin


class Loud(RiggerBasePlugin):
    stateless = True

    def plugin_initialize(self):
        if self.data.get("loud"):
            print("this is no JSON")
        self.register_plugin_hook("note")

    def note(self, text=None):
        return {"text": text}, None
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "loud.py").write_text(PLUGIN)
    (tmp_path / "rigger.yaml").write_text("workers: 1\nplugin_path: .\nplugins:\n  loud: {plugin: loud}\n")
    return tmp_path


def rigger_mp(*arguments: object, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "rigger_mp.cli", *map(str, arguments)]
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8:strict"}
    return subprocess.run(command, input=stdin, capture_output=True, timeout=60, check=False, env=environment)


def test_a_line_that_is_not_utf8_is_one_failure(project: Path) -> None:
    lines = b'{"hook_name": "note"}\n\xff\n{"hook_name": "note"}\n'
    done = rigger_mp("run", project / "rigger.yaml", "--events", "-", stdin=lines)
    assert done.returncode == 0, done.stderr
    assert b"standard input:2: no JSON" in done.stderr
    assert done.stdout.split()[:4] == [b"events", b"3", b"failures", b"1"]


def test_data_too_deep_to_travel_is_one_failure(project: Path) -> None:
    # Deep enough that pickle gives up, not so deep that the JSON parser does.
    deep = '{"hook_name": "note", "data": {"text": ' + "[" * 900 + "]" * 900 + "}}"
    lines = "\n".join([deep, '{"hook_name": "note"}']).encode()
    done = rigger_mp("run", project / "rigger.yaml", "--events", "-", stdin=lines)
    assert done.returncode == 0, done.stderr
    assert b"standard input:1: EncodingError: argument 'text'" in done.stderr
    assert done.stdout.split()[:4] == [b"events", b"2", b"failures", b"1"]


def test_events_and_files_exclude_each_other(project: Path) -> None:
    done = rigger_mp("run", project / "rigger.yaml", "--events", "-", "--files", "*.py", "--hook", "note")
    assert done.returncode == 2
    assert b"not allowed with" in done.stderr


def test_check_finds_a_wrong_inputs_section(project: Path) -> None:
    config = project / "rigger.yaml"
    config.write_text(config.read_text() + "inputs: {hook: 7, files: {pattern: '*', exclude: 5}}\n")
    for subcommand in ("check", "run"):
        done = rigger_mp(subcommand, config)
        assert done.returncode == 2
        assert b"Traceback" not in done.stderr
        assert b"hook is 7, expected a string" in done.stderr
        assert b"exclude is 5, expected a string or a list" in done.stderr


def test_what_a_plugin_prints_is_no_part_of_the_report(project: Path) -> None:
    config = project / "rigger.yaml"
    config.write_text(config.read_text().replace("plugin: loud", "plugin: loud, loud: true"))
    done = rigger_mp("check", project / "rigger.yaml", "--json")
    assert json.loads(done.stdout)["hooks"]["note"]["functions"][0]["name"] == "loud.note"
    assert b"this is no JSON" in done.stderr


def test_output_that_nobody_reads_is_no_error(project: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "rigger_mp.cli", "check", str(project / "rigger.yaml")]
    with subprocess.Popen(command, stdout=writing, stderr=subprocess.PIPE, text=True) as process:
        os.close(writing)
        _, messages = process.communicate(timeout=60)
    assert process.returncode == 141
    assert "BrokenPipe" not in messages


def test_an_absolute_pattern(tmp_path: Path) -> None:
    (tmp_path / "a.txt").touch()
    source = Source(pattern=str(tmp_path / "*.txt"), root="/nowhere", hook="note")
    assert [item.arguments for item in open_inputs(source)[0]] == [{"path": str(tmp_path / "a.txt")}]


def test_a_wrong_pattern_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"pattern '\*\*x'"):
        open_inputs(Source(pattern="**x", root=str(tmp_path), hook="note"))


def test_events_that_cannot_be_read_are_told_before_the_start(tmp_path: Path) -> None:
    for wrong in (tmp_path, tmp_path / "none"):
        with pytest.raises(ConfigError, match="cannot be read"):
            open_inputs(Source(events=str(wrong)))


def test_null_in_the_inputs_section_means_absent() -> None:
    section = {"hook": "a", "events": None, "files": {"pattern": "*", "root": None, "exclude": None}}
    assert source_from_config({"inputs": section}) == Source(pattern="*", hook="a")
    assert source_from_config({"inputs": {"hook": "a", "files": None}}) == Source(hook="a")


@given(st.lists(st.binary(min_size=1).map(lambda chunk: chunk.replace(b"a", b"\n"))))
def test_lines_are_the_same_however_they_arrive(chunks: list[bytes]) -> None:
    arriving = iter([*chunks, b""])
    assert list(split_lines(lambda: next(arriving))) == b"".join(chunks).split(b"\n")


@given(st.lists(st.binary().map(lambda line: line.replace(b"\n", b""))))
def test_any_line_is_an_event_or_has_a_problem(lines: list[bytes]) -> None:
    inputs = list(parse_events(lines, "x"))
    assert [item.label for item in inputs] == [f"x:{n}" for n, line in enumerate(lines, 1) if line.strip()]
    assert all(bool(item.hook) != bool(item.problem) for item in inputs)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_output_that_cannot_be_written_is_said_in_one_line() -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "rigger_mp.cli", "schema"],
            stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False,
        )  # fmt: skip
    assert (done.stderr, done.returncode) == ("rigger-mp: the output cannot be written: No space left on device\n", 1)
