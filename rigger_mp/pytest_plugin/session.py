"""What takes part in a test run: fires its hooks, and says in the summary how that went.

With pytest-xdist the controller fires the session's hooks, and those of tests that no worker can tell of; each
worker fires the hooks of its tests, and waits until each is accepted: should it crash then, nothing is missing.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from rigger_mp.errors import ConfigError, RiggerError, StartError
from rigger_mp.pytest_plugin.artifacts import Artifacts
from rigger_mp.pytest_plugin.producers import EngineProducer, Producer, RemoteProducer, start_engine
from rigger_mp.pytest_plugin.results import RunningTest, result_of

WORKER_INPUT = "rigger_mp"
"""Under this name the controller tells its workers where the engine is."""
WORKER_OUTPUT = "rigger_mp_problems"


def make_session(config: pytest.Config) -> Session:
    """Return the part that this process has in the run: a whole one, a controller's, or a worker's."""
    worker = getattr(config, "workerinput", None)
    if worker is not None:
        return WorkerSession(config, worker)
    return MainSession(config)


class Session:
    """What every process of a test run does.

    Args:
        config: pytest's.
        worker_id: which process it is.
        artifacts: where the tests' directories are.

    Attributes:
        problems: what went wrong with hooks.
    """

    def __init__(self, config: pytest.Config, worker_id: str, artifacts: Path) -> None:
        self.config = config
        self.worker_id = worker_id
        self.artifacts = Artifacts(artifacts)
        self.problems: list[str] = []
        self._producer: Producer | None = None
        self._running: dict[str, RunningTest] = {}

    @property
    def target(self) -> Any:
        """The engine, or the client of it."""
        assert self._producer is not None
        return self._producer.target

    def fire(self, hook: str, **arguments: Any) -> None:
        """Fire a hook; what goes wrong is a problem of the session, not of a test."""
        if self._producer is None:
            return
        try:
            self._producer.fire(hook, worker_id=self.worker_id, **arguments)
        except RiggerError as error:
            self.problems.append(f"{hook} could not be fired: {error}")
            if self._producer.is_lost(error):
                self.problems.append("no further hooks are fired")
                self._producer = None

    def _categorize(self, report: Any) -> str:
        status = self.config.hook.pytest_report_teststatus(report=report, config=self.config)
        counted = getattr(report, "count_towards_summary", True)
        return str(status[0]) if status and counted else ""

    def _start(self, node_id: str, location: tuple[str, int | None, str]) -> RunningTest:
        directory = self.artifacts.directory(node_id)
        file, line, _ = location
        test = RunningTest(
            {
                "test_name": node_id,
                "test_location": file if line is None else f"{file}:{line + 1}",
                "artifact_dir": str(directory),
                "artifact_path": str(directory / "test"),
            }
        )
        self.fire("start_test", **test.arguments)
        return test

    def _finish_interrupted(self) -> None:
        for test in self._running.values():
            self.fire("finish_test", **test.interrupted())
        self._running.clear()


class TestRunner(Session):
    """A process that runs tests."""

    __test__ = False

    def pytest_runtest_logstart(self, nodeid: str, location: tuple[str, int | None, str]) -> None:
        """Fire ``start_test``."""
        self._running[nodeid] = self._start(nodeid, location)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note the report of a phase."""
        if report.nodeid in self._running:
            self._running[report.nodeid].reports.append(report)

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        """Fire ``finish_test``."""
        test = self._running.pop(nodeid, None)
        for arguments in test.results(self._categorize) if test else []:
            self.fire("finish_test", **arguments)


class WorkerSession(TestRunner):
    """A worker of pytest-xdist: a remote producer."""

    def __init__(self, config: pytest.Config, worker: dict[str, Any]) -> None:
        told = worker[WORKER_INPUT]
        super().__init__(config, worker["workerid"], Path(told["artifacts"]))
        self._producer = RemoteProducer(told["address"], told["port"], told["token"])

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self) -> None:
        """Give the controller the problems."""
        self._finish_interrupted()
        if self._producer is not None:
            self._producer.close()
        output: dict[str, Any] = self.config.workeroutput  # type: ignore[attr-defined]  # pytest-xdist's
        output[WORKER_OUTPUT] = self.problems


class MainSession(TestRunner):
    """The process that the user started: it runs the tests itself, or controls workers."""

    def __init__(self, config: pytest.Config) -> None:
        artifacts = config.invocation_params.dir / config.getoption("rigger_artifacts")
        super().__init__(config, "master", artifacts)
        self._controls = bool(config.getoption("tx", None)) or config.getoption("dist", "no") != "no"
        self._began = time.monotonic()
        self._reports: list[str] = []

    def pytest_report_header(self) -> str:
        """Say where the hooks go."""
        where = self.config.getoption("rigger") or f"server {self.config.getoption('rigger_server')}"
        return f"rigger: {where}, artifacts: {self.config.getoption('rigger_artifacts')}"

    # -- the session -------------------------------------------------------------------------------------

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionstart(self) -> None:
        """Start the engine, or connect to the server, and fire ``start_session``."""
        try:
            self._producer = self._make_producer()
        except (ConfigError, StartError) as error:
            raise pytest.UsageError(f"--rigger: {error}") from error
        except RiggerError as error:
            raise pytest.UsageError(f"--rigger-server: {error}; start one with: rigger-mp serve CONFIG") from error
        self.fire("start_session", root=str(self.config.rootpath), artifacts=str(self.artifacts.root))

    def _make_producer(self) -> Producer:
        server = self.config.getoption("rigger_server")
        if server:
            producer = RemoteProducer.at(server)
            producer.check()
            return producer
        path = self.config.invocation_params.dir / self.config.getoption("rigger")
        return EngineProducer(start_engine(path, self._controls))

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, exitstatus: int) -> None:
        """Fire ``finish_session``, and wait for everything that was fired."""
        self._finish_interrupted()
        if self._producer is None:
            return
        seconds = round(time.monotonic() - self._began, 6)
        arguments = {"worker_id": self.worker_id, "exit_status": int(exitstatus), "duration": seconds}
        try:
            self._reports = self._producer.finish("finish_session", **arguments)
        except RiggerError as error:
            self.problems.append(f"finish_session failed: {error}")
        self.problems += self._producer.problems()
        self._producer.close()

    def pytest_unconfigure(self) -> None:
        """Stop the engine if the session did not get that far."""
        if self._producer is not None:
            self._producer.close()

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Say where the reports are, and which hooks failed."""
        if not self._reports and not self.problems:
            return
        terminalreporter.section("rigger")
        for line in self._reports:
            terminalreporter.write_line(line)
        if self.problems:
            count = len(self.problems)
            terminalreporter.write_line(f"{count} problem{'' if count == 1 else 's'} with hooks:", yellow=True)
        for problem in self.problems:
            terminalreporter.write_line(problem)

    # -- what no test run tells --------------------------------------------------------------------------

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Fire ``finish_test`` for what could not be collected: pytest counts it, too."""
        if report.passed:
            return
        word = "error" if report.failed else "skipped"
        location = str(report.nodeid or self.config.rootpath)
        directory = self.artifacts.directory(report.nodeid or "collection")
        self.fire(
            "finish_test",
            test_name=location,
            test_location=location,
            artifact_dir=str(directory),
            artifact_path=str(directory / "test"),
            **result_of(word, report, report, 0.0),
        )

    # -- controlling workers -----------------------------------------------------------------------------

    def pytest_runtest_logstart(self, nodeid: str, location: tuple[str, int | None, str]) -> None:
        """Fire ``start_test``, unless a worker does."""
        if not self._controls:
            super().pytest_runtest_logstart(nodeid, location)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note the report of a phase; that of a worker's crash is the end of a test."""
        if not self._controls:
            super().pytest_runtest_logreport(report)
        elif str(report.when) == "???":  # pytest-xdist's mark of what the controller itself reports
            test = RunningTest({"test_name": report.nodeid, "test_location": str(report.location[0])})
            directory = self.artifacts.directory(report.nodeid)
            test.arguments |= {"artifact_dir": str(directory), "artifact_path": str(directory / "test")}
            test.reports.append(report)
            for arguments in test.results(self._categorize):
                self.fire("finish_test", **arguments)

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """Tell a worker of pytest-xdist where the engine is."""
        assert self._producer is not None
        address, port, token = self._producer.endpoint()
        node.workerinput[WORKER_INPUT] = {
            "address": address, "port": port, "token": token, "artifacts": os.fspath(self.artifacts.root),
        }  # fmt: skip

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """Take over the problems of a worker that has ended."""
        self.problems += getattr(node, "workeroutput", {}).get(WORKER_OUTPUT, [])
