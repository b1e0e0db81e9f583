"""The pytest plugin, used as people use it: ``python -m pytest`` in a directory with tests."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections import Counter as Count
from pathlib import Path

import pytest

from rigger_mp.pytest_plugin.artifacts import directory_names
from rigger_mp.pytest_plugin.results import MOST_TEXT, shorten

CONFIG = Path(__file__).parents[1] / "plugins" / "pytest.yaml"
PLUGGY = "pluggy==1.6.0"

OUTCOMES = """
import pytest

def test_passes():
    print("printed by test_passes")

@pytest.mark.parametrize("value", ["x/y", "..", "a::b", "\\u00e9" * 200])
def test_names(value): pass

def test_fails():
    print("printed before the failure")
    assert 1 == 2

def test_skips(): pytest.skip("because")

@pytest.mark.xfail(reason="known")
def test_expected(): assert 0

@pytest.mark.xfail
def test_unexpected(): pass

@pytest.fixture
def breaks_after():
    yield
    raise RuntimeError("teardown")

def test_breaks_after(breaks_after): pass

@pytest.fixture
def breaks_before(): raise RuntimeError("setup")

def test_breaks_before(breaks_before): pass
"""
MORE = {
    "test_broken.py": "import no_such_module\n",
    "test_left_out.py": "import pytest\npytest.importorskip('no_such')\n",
}


def run_pytest(directory: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments],
        cwd=directory,
        env={**os.environ, "PYTEST_ADDOPTS": "", **environment},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def counts_of_pytest(output: str) -> Count[str]:
    """Return the counts of pytest's last line: ``2 failed, 3 passed, 1 error in 0.1s``."""
    last = output.strip().splitlines()[-1]
    found = re.findall(r"(\d+) (passed|failed|skipped|xfailed|xpassed|error)", last)
    assert found, output
    return Count({word: int(number) for number, word in found})


def report_of(directory: Path) -> list[dict[str, str]]:
    report = json.loads((directory / "rigger-report" / "report.json").read_text(encoding="utf-8"))
    tests: list[dict[str, str]] = report["tests"]
    return tests


def counts_of_report(directory: Path) -> Count[str]:
    return Count(test["result"] for test in report_of(directory))


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    (tmp_path / "test_outcomes.py").write_text(OUTCOMES, encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["alone", "xdist"])
def test_the_report_counts_what_pytest_counts(project: Path, workers: tuple[str, ...]) -> None:
    for name, text in MORE.items():
        (project / name).write_text(text, encoding="utf-8")
    done = run_pytest(project, f"--rigger={CONFIG}", "--continue-on-collection-errors", *workers)
    expected = counts_of_pytest(done.stdout)
    assert set(expected) == {"passed", "failed", "skipped", "xfailed", "xpassed", "error"}
    assert counts_of_report(project) == expected
    assert "rigger-report/report.html" in done.stdout
    (failed,) = [test for test in report_of(project) if test["result"] == "failed"]
    assert "assert 1 == 2" in failed["longrepr"]
    assert failed["location"].startswith("test_outcomes.py:")
    logs = sorted((project / "rigger-artifacts").rglob("test-log.log"))
    assert len(logs) == len({test["name"] for test in report_of(project)})
    passed = project / "rigger-artifacts" / "test_outcomes.py" / "test_passes" / "test-log.log"
    assert passed.read_text(encoding="utf-8").split("\n")[0::2] == ["test_outcomes.py::test_passes", "passed"]
    with tarfile.open(project / "rigger-report.tar.xz") as archive:
        assert any(name.endswith("report.html") for name in archive.getnames())


HOOK_PLUGIN = """
from pathlib import Path
from rigger_mp import RiggerBasePlugin

class Notes(RiggerBasePlugin):
    def plugin_initialize(self):
        for event in ("start_session", "start_test", "finish_test", "finish_session", "mine", "broken"):
            self.register_plugin_hook(event, getattr(self, event))
    def note(self, *words):
        with Path("notes.txt").open("a") as file:
            file.write(" ".join(map(str, words)) + "\\n")
    def start_session(self, worker_id, root, artifacts): self.note("start_session", worker_id)
    def start_test(self, test_name, worker_id): self.note("start_test", test_name, worker_id)
    def finish_test(self, test_name, test_result, duration, stdout, stderr, log, worker_id):
        assert duration >= 0
        self.note("finish_test", test_name, test_result, worker_id, stdout.strip(), stderr.strip())
    def finish_session(self, exit_status, duration, worker_id): self.note("finish_session", exit_status, worker_id)
    def mine(self, value):
        self.note("mine", value)
        return {"doubled": 2 * value}, None
    def broken(self): raise RuntimeError("a hook that breaks")
"""
NOTES_CONFIG = "plugin_path: .\nplugins:\n  notes: {plugin: notes}\n"
USES_FIXTURE = """
import sys
def test_mine(rigger, artifact_dir):
    assert rigger.fire_hook("mine", value=21)["doubled"] == 42
    assert rigger.submit("mine", value=1).result()["doubled"] == 2
    assert rigger.fire_hook("mine", wait=False, value=3) is None
    (artifact_dir / "made.txt").write_text("by the test")
    print("to stdout"); print("to stderr", file=sys.stderr)
def test_breaks(rigger):
    rigger.fire_hook("broken", %s)
"""


def write_notes(directory: Path, way: str) -> None:
    (directory / "notes.py").write_text(HOOK_PLUGIN, encoding="utf-8")
    (directory / "rigger.yaml").write_text(NOTES_CONFIG, encoding="utf-8")
    (directory / "test_fixture.py").write_text(USES_FIXTURE % way, encoding="utf-8")


def notes_of(directory: Path) -> list[str]:
    return (directory / "notes.txt").read_text(encoding="utf-8").splitlines()


def test_events_arguments_and_the_fixture(tmp_path: Path) -> None:
    write_notes(tmp_path, "wait=False")
    done = run_pytest(tmp_path, "--rigger", "rigger.yaml", "-q", "test_fixture.py")
    assert done.returncode == 0, done.stdout
    assert notes_of(tmp_path) == [
        "start_session master",
        "start_test test_fixture.py::test_mine master",
        "mine 21",
        "mine 1",
        "mine 3",
        "finish_test test_fixture.py::test_mine passed master to stdout to stderr",
        "start_test test_fixture.py::test_breaks master",
        "finish_test test_fixture.py::test_breaks passed master  ",
        "finish_session 0 master",
    ]
    assert (tmp_path / "rigger-artifacts" / "test_fixture.py" / "test_mine" / "made.txt").exists()
    assert "a hook that breaks" in done.stdout
    assert "1 problem with hooks" in done.stdout


CRASHES = """
import os, pytest
def test_crashes(): os._exit(3)

@pytest.fixture
def crashes_after():
    yield
    os._exit(3)

def test_passes_then_crashes(crashes_after): pass
"""


def test_workers_are_remote_producers_and_a_crash_is_counted(tmp_path: Path) -> None:
    write_notes(tmp_path, "wait=False")
    (tmp_path / "test_crash.py").write_text(CRASHES, encoding="utf-8")
    done = run_pytest(tmp_path, "--rigger", "rigger.yaml", "-n", "2")
    assert counts_of_pytest(done.stdout) == Count(passed=3, failed=2), done.stdout
    assert "1 problem with hooks" in done.stdout
    assert "broken: notes.broken: RuntimeError: a hook that breaks" in done.stdout
    notes = notes_of(tmp_path)
    assert notes[0] == "start_session master"
    assert notes[-1] == "finish_session 1 master"
    finished = [note.split()[1:4] for note in notes if note.startswith("finish_test")]
    assert Count(result for _, result, _ in finished) == Count(passed=3, failed=2)
    assert all(worker.startswith("gw") for _, _, worker in finished)
    assert all(note.split()[-1].startswith("gw") for note in notes if note.startswith("start_test"))
    assert "mine 21" in notes
    assert any(note.startswith("finish_test test_crash.py::test_crashes failed") for note in notes)


def test_a_server_that_runs_already(tmp_path: Path) -> None:
    write_notes(tmp_path, "wait=False")
    config = tmp_path / "serve.yaml"
    config.write_text(NOTES_CONFIG + "server_port: 0\n", encoding="utf-8")
    server = subprocess.Popen(
        [sys.executable, "-m", "rigger_mp.cli", "serve", str(config)],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        assert server.stdout is not None
        address = next(found[0] for line in server.stdout if (found := re.findall(r"127\.0\.0\.1:\d+", line)))
        done = run_pytest(tmp_path, "--rigger-server", address, "-n", "2", "test_fixture.py")
        assert done.returncode == 0, done.stdout
        assert "broken: 1 failed at the server" in done.stdout
    finally:
        server.terminate()
        server.communicate(timeout=60)
    notes = notes_of(tmp_path)
    assert notes[0] == "start_session master"
    assert notes[-1] == "finish_session 0 master"
    assert "mine 21" in notes


def test_wrong_options_say_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "wrong.yaml").write_text("workers: many\n", encoding="utf-8")
    done = run_pytest(tmp_path, "--rigger=wrong.yaml")
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "wrong.yaml:1:10" in done.stderr + done.stdout
    done = run_pytest(tmp_path, "--rigger-server=127.0.0.1:1")
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "rigger-mp serve" in done.stderr + done.stdout
    done = run_pytest(tmp_path, "--rigger-server=127.0.0.1:1", "--rigger=wrong.yaml")
    assert "exclude each other" in done.stderr + done.stdout
    write_notes(tmp_path, "")
    (tmp_path / "file").touch()
    done = run_pytest(tmp_path, "--rigger=rigger.yaml", "--rigger-artifacts=file")
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "--rigger-artifacts: the directory cannot be made" in done.stderr + done.stdout


LOUD_PLUGIN = """
import logging
from rigger_mp import RiggerBasePlugin

class Loud(RiggerBasePlugin):
    stateless = True
    def plugin_initialize(self):
        self.register_plugin_hook("speak")
    def speak(self):
        print("printed by a hook")
        logging.getLogger("loud").error("logged by a hook")
"""
QUIET_TESTS = """
def test_quiet(rigger, capfd, caplog):
    rigger.fire_hook("speak")
    rigger.fire_hook("speak")
    assert not caplog.records
    assert not "".join(capfd.readouterr())
"""


def test_what_hooks_print_and_log_is_kept_out_of_the_tests(tmp_path: Path) -> None:
    (tmp_path / "loud.py").write_text(LOUD_PLUGIN, encoding="utf-8")
    (tmp_path / "rigger.yaml").write_text("plugin_path: .\nplugins:\n  loud: {plugin: loud}\n", encoding="utf-8")
    (tmp_path / "test_quiet.py").write_text(QUIET_TESTS, encoding="utf-8")
    done = run_pytest(tmp_path, "--rigger=rigger.yaml")
    assert counts_of_pytest(done.stdout) == Count(passed=1), done.stdout
    log = tmp_path / "rigger-artifacts" / "rigger.log"
    assert "rigger-artifacts/rigger.log" in done.stdout
    assert log.read_text(encoding="utf-8").count("printed by a hook") == 2
    assert log.read_text(encoding="utf-8").count("ERROR loud: logged by a hook") == 2


CONCURRENT_PLUGIN = """
import time
from pathlib import Path
from rigger_mp import RiggerBasePlugin

class Slow(RiggerBasePlugin):
    stateless = True
    def plugin_initialize(self):
        self.register_plugin_hook("finish_test")
        self.register_plugin_hook("finish_session")
    def finish_test(self, test_name, artifact_dir):
        time.sleep(0.5)
        Path(artifact_dir, "done").touch()
    def finish_session(self, artifacts):
        Path("seen").write_text(str(len(list(Path(artifacts).rglob("done")))))
"""


def test_the_session_finishes_after_all_tests_also_where_hooks_are_concurrent(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(CONCURRENT_PLUGIN, encoding="utf-8")
    (tmp_path / "rigger.yaml").write_text("plugin_path: .\nplugins:\n  slow: {plugin: slow}\n", encoding="utf-8")
    (tmp_path / "test_two.py").write_text("def test_a(): pass\ndef test_b(): pass\n", encoding="utf-8")
    done = run_pytest(tmp_path, "--rigger=rigger.yaml", "--dist=loadscope")  # --dist alone distributes nothing
    assert "problem" not in done.stdout
    assert (tmp_path / "seen").read_text(encoding="utf-8") == "2"


KILLS_WORKERS = """
import psutil
def test_before(): pass
def test_kills(rigger):
    rigger.drain()
    workers = [row["pid"] for row in rigger.stats()["processes"] if row["role"] == "worker"]
    for pid in workers:
        psutil.Process(pid).kill()
    assert workers
def test_after(): pass
"""


def test_a_killed_worker_of_the_engine_takes_no_result_with_it(project: Path) -> None:
    (project / "test_outcomes.py").write_text(KILLS_WORKERS, encoding="utf-8")
    done = run_pytest(project, f"--rigger={CONFIG}")
    assert counts_of_pytest(done.stdout) == Count(passed=3), done.stdout
    assert [test["name"].split("::")[1] for test in report_of(project)] == ["test_before", "test_kills", "test_after"]


def test_pytest_is_interrupted_and_the_report_is_written_nevertheless(project: Path) -> None:
    (project / "test_outcomes.py").write_text(
        "import os, signal\ndef test_a(): pass\n"
        "def test_b(): signal.raise_signal(signal.SIGINT)\ndef test_c(): pass\n",
        encoding="utf-8",
    )
    done = run_pytest(project, f"--rigger={CONFIG}")
    assert done.returncode == pytest.ExitCode.INTERRUPTED
    assert counts_of_report(project) == Count(passed=1, interrupted=1)


def test_a_configuration_that_pytest_took_for_a_test_is_warned_about(tmp_path: Path) -> None:
    for name in ("project", "elsewhere"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    config = tmp_path / "elsewhere" / "rigger.yaml"
    config.write_text("plugins: {}\n", encoding="utf-8")
    (tmp_path / "project" / "test_one.py").write_text("def test_one(): pass\n", encoding="utf-8")
    warning = f"write --rigger={config}"
    assert warning in run_pytest(tmp_path / "project", "--rigger", str(config)).stdout
    assert warning not in run_pytest(tmp_path / "project", f"--rigger={config}").stdout


def test_without_the_options_nothing_of_the_engine_is_imported(tmp_path: Path) -> None:
    (tmp_path / "test_light.py").write_text(
        "import sys\ndef test_light():\n    assert not [n for n in sys.modules if n.startswith('rigger_mp.engine')]\n"
        "def test_needs(rigger): pass\n",
        encoding="utf-8",
    )
    done = run_pytest(tmp_path, "-rs")
    assert counts_of_pytest(done.stdout) == Count(passed=1, skipped=1), done.stdout
    assert "run pytest with --rigger CONFIG" in done.stdout


@pytest.fixture(scope="module")
def pluggy_sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source distribution of pluggy, tests included, from the package index."""
    target = tmp_path_factory.mktemp("pluggy")
    download = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", "pluggy"]
    done = subprocess.run(
        [*download, "-d", str(target), PLUGGY], capture_output=True, text=True, timeout=100, check=False
    )
    archives = list(target.glob("pluggy-*.tar.gz"))
    if not archives:
        pytest.skip(f"{PLUGGY} cannot be downloaded: {done.stderr[-300:]}")
    shutil.unpack_archive(archives[0], target, filter="data")
    return next(path for path in target.iterdir() if path.is_dir())


def test_a_real_suite_is_counted_as_pytest_counts_it(pluggy_sources: Path) -> None:
    options = ("-n", "2", f"--rigger={CONFIG}", "-o", "addopts=", "--ignore=testing/benchmark.py", "-W", "default")
    done = run_pytest(pluggy_sources, *options, "testing", PYTHONPATH=str(pluggy_sources / "src"))
    expected = counts_of_pytest(done.stdout)
    assert expected["passed"] > 50, done.stdout
    assert counts_of_report(pluggy_sources) == expected


def test_directories_of_tests_differ_and_are_valid() -> None:
    assert directory_names("tests/test_a.py::TestB::test_c[1]") == ["tests", "test_a.py", "TestB", "test_c[1]"]
    parameters = ("x/y", "x:y", "x::y", "..", "é" * 300)
    node_ids = ["../a.py::t", *(f"a.py::t[{parameter}]" for parameter in parameters)]
    names = [tuple(directory_names(node_id)) for node_id in node_ids]
    assert len(set(names)) == len(names)
    assert all(0 < len(part) < 200 and part.strip(".") and "/" not in part for name in names for part in name)


def test_long_texts_keep_both_ends() -> None:
    text = "first" + "x" * 10 * MOST_TEXT + "last"
    short = shorten(text)
    assert len(short) < MOST_TEXT + 100
    assert (short[:5], short[-4:]) == ("first", "last")
    assert shorten("\ud800") == "\\ud800"
