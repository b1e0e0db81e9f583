"""What hooks print and log reaches the user's process, with its origin."""

from __future__ import annotations

import io
import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from quiet import QuietRigger
from waiting import DEADLINE, wait_for

from rigger_mp import Rigger, RiggerBasePlugin, RiggerClient
from rigger_mp.engine.messages import Output
from rigger_mp.engine.output import (
    LONGEST_PART,
    LONGEST_TEXT,
    LineStream,
    Origin,
    handle_record,
    make_record,
    write_output,
)
from rigger_mp.errors import ConfigError, WorkerLost

LOGGER = "tests.output"


class Talker(RiggerBasePlugin):
    stateless = True

    def plugin_initialize(self) -> None:
        for event in ("say", "log", "die", "flood", "from_thread", "from_child", "odd", "long_line", "fail_logging"):
            self.register_plugin_hook(event)

    def say(self, text: str) -> None:
        print(text)
        print("to stderr", file=sys.stderr)

    def log(self, text: str) -> Any:
        logging.getLogger(LOGGER).debug("quiet")
        logging.getLogger(LOGGER).info("loud: %s", text, extra={"own": 7, "other": object()})
        try:
            raise ValueError("what was logged")
        except ValueError:
            logging.getLogger(LOGGER).exception("failed")
        return {"pid": os.getpid()}, None

    def die(self) -> None:
        print("last words")
        os._exit(3)

    def flood(self, lines: int, done: str) -> None:
        for number in range(lines):
            print(f"{number:6d}", "x" * 993)
        Path(done).touch()

    def from_thread(self) -> None:
        threads = [threading.Thread(target=print, args=("thread", number)) for number in range(20)]
        for thread in threads:
            thread.start()
        for number in range(20):
            print("main", number)
        for thread in threads:
            thread.join()

    def from_child(self) -> None:
        pid = os.fork()
        if not pid:
            print("from the child", flush=True)
            os._exit(0)
        os.waitpid(pid, 0)

    def odd(self) -> None:
        sys.stdout.write("no end")
        sys.stdout.buffer.write(b" bytes \xff")
        sys.stdout.write("\ud800\r\n")
        sys.stdout.write("")

    def long_line(self, size: int) -> None:
        sys.stdout.write("\N{EURO SIGN}" * size)
        logging.getLogger(LOGGER).warning("w" * size)

    def fail_logging(self) -> None:
        logging.getLogger(LOGGER).warning("%d", "no number")


class Listening(QuietRigger):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.outputs: list[Output] = []
        super().__init__(*args, **kwargs)

    def handle_output(self, output: Output) -> None:
        self.outputs.append(output)

    def text(self, stream: str = "stdout") -> str:
        return "".join(output.text for output in self.outputs if output.stream == stream)


CONFIG: dict[str, Any] = {"workers": 2, "plugins": {"talker": {"plugin": "talker"}}}


@pytest.fixture
def rigger() -> Iterator[Listening]:
    with Listening(CONFIG, plugins={"talker": Talker}) as engine:
        yield engine


def test_a_print_is_there_when_the_event_has_ended(rigger: Listening) -> None:
    for number in range(50):
        rigger.fire_hook("say", text=f"line {number}")
        assert rigger.text().endswith(f"line {number}\n")
    assert rigger.text("stderr") == "to stderr\n" * 50
    workers = [row["pid"] for row in rigger.stats()["processes"] if row["role"] == "worker"]
    assert {(output.hook, output.plugin) for output in rigger.outputs} == {("say", "talker")}
    assert {output.pid for output in rigger.outputs} <= set(workers)
    assert all(output.event for output in rigger.outputs)


def test_by_default_it_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    with Rigger(CONFIG, plugins={"talker": Talker}) as rigger:
        rigger.fire_hook("say", text="hello")
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("hello\n", "to stderr\n")


def test_records_reach_the_loggers_of_the_user(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, LOGGER)
    with QuietRigger(CONFIG, plugins={"talker": Talker}) as rigger:
        result = rigger.fire_hook("log", text="words")
    assert result is not None
    records: list[Any] = [record for record in caplog.records if record.name == LOGGER]
    assert [record.getMessage() for record in records] == ["loud: words", "failed"]
    loud, failed = records
    assert (loud.hook, loud.plugin, loud.worker_pid, loud.own) == ("log", "talker", result["pid"], 7)
    assert loud.processName.startswith("worker-")
    assert "ValueError: what was logged" in failed.exc_text
    assert failed.levelno == logging.ERROR


def test_last_words_of_a_worker_that_dies(rigger: Listening) -> None:
    with pytest.raises(WorkerLost):
        rigger.fire_hook("die")
    assert rigger.text() == "last words\n"


def test_threads_and_children_of_hooks(rigger: Listening) -> None:
    rigger.fire_hook("from_thread")
    lines = rigger.text().splitlines()
    assert sorted(lines) == sorted([f"main {n}" for n in range(20)] + [f"thread {n}" for n in range(20)])
    rigger.fire_hook("from_child")
    rigger.fire_hook("say", text="still here")
    assert rigger.text().endswith("still here\n")


def test_odd_output_arrives_as_it_was(rigger: Listening) -> None:
    rigger.fire_hook("odd")
    assert rigger.text() == "no end bytes \\xff\\ud800\r\n"


def test_a_record_that_cannot_be_formatted_fails_nothing(rigger: Listening) -> None:
    rigger.fire_hook("fail_logging")
    rigger.fire_hook("say", text="still here")
    assert "still here\n" in rigger.text()


def test_a_flood_is_bounded_and_said(tmp_path: Path) -> None:
    gate = threading.Event()

    class Slow(Listening):
        def handle_output(self, output: Output) -> None:
            gate.wait(DEADLINE)
            super().handle_output(output)

    config = {**CONFIG, "max_output": 100_000}
    with Slow(config, plugins={"talker": Talker}) as rigger:
        future = rigger.submit("flood", lines=5000, done=str(tmp_path / "done"))
        wait_for((tmp_path / "done").exists)  # nobody had to take it
        gate.set()
        future.result(DEADLINE)
        wait_for(lambda: any("were dropped (max_output)" in message for message in rigger.messages))
        assert len(rigger.outputs) < 5000
        rigger.fire_hook("say", text="after")
        assert rigger.text().endswith("after\n")


def test_the_configuration_of_logging_applies(tmp_path: Path) -> None:
    target = tmp_path / "log.txt"
    own = {
        "handlers": {"file": {"class": "logging.FileHandler", "filename": str(target)}},
        "loggers": {LOGGER: {"level": "DEBUG", "handlers": ["file"], "propagate": False}},
    }
    try:
        with QuietRigger({**CONFIG, "logging": own}, plugins={"talker": Talker}) as rigger:
            rigger.fire_hook("log", text="words")
        assert target.read_text(encoding="utf-8").startswith("quiet\nloud: words\nfailed\nTraceback")
    finally:
        for handler in logging.getLogger(LOGGER).handlers[:]:
            logging.getLogger(LOGGER).removeHandler(handler)
            handler.close()
        logging.getLogger(LOGGER).setLevel(logging.NOTSET)
        logging.getLogger(LOGGER).propagate = True
    with pytest.raises(ConfigError, match=r"logging: .*dictConfig"):
        Rigger({**CONFIG, "logging": {"handlers": {"x": {"class": "no.such"}}}}, plugins={"talker": Talker}).start()


def test_what_is_long_travels_in_parts_and_records_are_cut(caplog: pytest.LogCaptureFixture) -> None:
    with Listening(CONFIG, plugins={"talker": Talker}) as rigger:
        rigger.fire_hook("long_line", size=1_000_000)
        assert rigger.text() == "\N{EURO SIGN}" * 1_000_000
        assert max(len(output.text) for output in rigger.outputs) < 200_000
    (message,) = [record.getMessage() for record in caplog.records if record.name == LOGGER]
    assert message == "w" * LONGEST_TEXT + f"... ({1_000_000 - LONGEST_TEXT} more characters)"


BROKEN_PIPE = """
from rigger_mp import Rigger, RiggerBasePlugin

class Talker(RiggerBasePlugin):
    def plugin_initialize(self): self.register_plugin_hook("say")
    def say(self):
        for number in range(20_000): print(number, "\N{EURO SIGN}")

with Rigger({"plugins": {"talker": {"plugin": "talker"}}}, plugins={"talker": Talker}) as rigger:
    rigger.fire_hook("say")
"""


def test_a_reader_that_has_enough_costs_no_event_and_no_noise() -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    program = subprocess.Popen(
        [sys.executable, "-c", BROKEN_PIPE], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
    )
    assert program.stdout is not None
    assert program.stdout.readline() == b"0 \\u20ac\n"
    program.stdout.close()
    assert program.stderr is not None
    errors = program.stderr.read().decode()
    program.stderr.close()
    program.wait()
    assert "in write_output" not in errors


SERVED = """
import logging
from rigger_mp import RiggerBasePlugin
class Talker(RiggerBasePlugin):
    def plugin_initialize(self): self.register_plugin_hook("say")
    def say(self):
        print("printed")
        logging.getLogger("talk").warning("logged")
"""


def test_serve_writes_json_lines(tmp_path: Path) -> None:
    (tmp_path / "talk.py").write_text(SERVED, encoding="utf-8")
    config = tmp_path / "rigger.yaml"
    config.write_text("server_port: 0\nplugin_path: .\nplugins:\n  talker: {plugin: talk}\n", encoding="utf-8")
    command = [sys.executable, "-m", "rigger_mp.cli", "serve", str(config), "--log-format", "json"]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=tmp_path)
    try:
        assert server.stderr is not None
        ready = json.loads(server.stderr.readline())
        host, _, port = ready["message"].split(",")[0].rpartition(" ")[2].rpartition(":")
        with RiggerClient(host, int(port)) as client:
            client.fire_hook("say", wait_for_task=True)
            client.terminate()
        lines = [json.loads(line) for line in server.stderr.read().splitlines()]
    finally:
        server.kill() if server.poll() is None else None
        server.communicate()
    found = {(line["source"], line["level"], line["message"], line.get("plugin")) for line in lines}
    assert {("stdout", "info", "printed", "talker"), ("talk", "warning", "logged", "talker")} <= found


def test_where_there_is_no_stream_nothing_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    output = Output("text", "stderr", "hook", "plugin", 1, 2)
    written = io.StringIO()
    for stream in (written, None):
        monkeypatch.setattr(sys, "stderr", stream)
        write_output(output)
    written.close()
    monkeypatch.setattr(sys, "stderr", written)
    write_output(output)
    monkeypatch.setattr(sys, "stdout", strict := io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
    write_output(Output("10 \N{EURO SIGN}", "stdout", "hook", "plugin", 1, 2))
    assert strict.buffer.getvalue() == b"10 \\u20ac"  # type: ignore[attr-defined]


def test_records_below_the_level_of_their_logger_are_dropped(caplog: pytest.LogCaptureFixture) -> None:
    for level in (logging.DEBUG, logging.ERROR):
        handle_record(make_record((("name", LOGGER), ("levelno", level), ("msg", f"at {level}"))))
    assert [record.getMessage() for record in caplog.records] == [f"at {logging.ERROR}"]


def test_a_long_line_is_cut_between_characters_or_where_there_are_none() -> None:
    origin, sent = Origin("worker-0"), []
    stream = LineStream("stdout", origin, sent.append, None, {})
    stream.write(("\N{EURO SIGN}" * LONGEST_PART).encode())
    stream.finish_lines()
    assert "".join(output.text for output in sent) == "\N{EURO SIGN}" * LONGEST_PART
    sent.clear()
    stream.write(b"\x80" * (LONGEST_PART + 1))
    stream.finish_lines()
    assert "".join(output.text for output in sent) == "\\x80" * (LONGEST_PART + 1)


class Child(RiggerBasePlugin):
    """Logs in a child: nothing of that may reach the engine's descriptor."""

    stateless = True

    def plugin_initialize(self) -> None:
        self.register_plugin_hook("log_in_a_child")
        self.register_plugin_hook("log_here", lambda: logging.getLogger(LOGGER).error("from the hook"))

    def log_in_a_child(self) -> Any:
        pid = os.fork()
        if not pid:
            logging.getLogger(LOGGER).error("from the child")
            os._exit(0)
        return {"status": os.waitpid(pid, 0)[1]}, None


def test_what_a_child_of_a_hook_logs_disturbs_nothing(caplog: pytest.LogCaptureFixture) -> None:
    config = {"workers": 1, "plugins": {"child": {"plugin": "child"}}}
    with QuietRigger(config, plugins={"child": Child}) as rigger:
        assert rigger.submit("log_in_a_child").result(DEADLINE)["status"] == 0
        rigger.submit("log_here").result(DEADLINE)
    assert [record.getMessage() for record in caplog.records if record.name == LOGGER] == ["from the hook"]
