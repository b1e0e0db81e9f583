"""What every process of a test run does: it fires the hooks of the tests that it runs.

With pytest-xdist the controller fires the session's hooks, and those of tests that no worker can tell of; each
worker fires the hooks of its tests, and waits until each is accepted: should it crash then, nothing is missing.

::

    Session ◀── TestRunner ◀─┬─ WorkerSession                     a worker of pytest-xdist
                             └─ MainSession ◀── Controller        the process that the user started
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rigger_mp.errors import RiggerError
from rigger_mp.pytest_plugin.artifacts import Artifacts
from rigger_mp.pytest_plugin.producers import Endpoint, Producer, RemoteProducer
from rigger_mp.pytest_plugin.results import RunningTest, place_of

WORKER_INPUT = "rigger_mp"
"""Under this name the controller tells its workers where the engine is."""
WORKER_OUTPUT = "rigger_mp_problems"


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
        self._is_lost = False

    @property
    def target(self) -> Any:
        """What tests fire hooks with."""
        assert self._producer is not None
        return self._producer.target

    def fire(self, hook: str, **arguments: Any) -> None:
        """Fire a hook; what goes wrong is a problem of the session, not of a test."""
        if self._producer is None or self._is_lost:
            return
        try:
            self._producer.fire(hook, **{"worker_id": self.worker_id, **arguments})
        except RiggerError as error:
            self.problems.append(f"{hook} could not be fired: {error}")
            if self._producer.is_lost(error):
                self.problems.append("no further hooks are fired")
                self._is_lost = True

    def finish_tests(self, test: RunningTest) -> None:
        """Fire ``finish_test`` for each result that pytest counts of a test."""
        for arguments in test.results(self._categorize):
            self.fire("finish_test", **arguments)

    def describe(self, node_id: str, place: str) -> dict[str, Any]:
        """Return the arguments that all hooks of a test have; makes its directory."""
        try:
            directory = self.artifacts.directory(node_id)
        except OSError as error:
            self.problems.append(f"no directory for the artifacts of {node_id}: {error}")
            directory = self.artifacts.path(node_id)
        return {
            "test_name": node_id,
            "test_location": place,
            "artifact_dir": str(directory),
            "artifact_path": str(directory / "test"),
        }

    def _categorize(self, report: Any) -> str:
        status = self.config.hook.pytest_report_teststatus(report=report, config=self.config)
        counted = getattr(report, "count_towards_summary", True)
        return str(status[0]) if status and counted else ""


class TestRunner(Session):
    """A process that runs tests."""

    __test__ = False

    def __init__(self, config: pytest.Config, worker_id: str, artifacts: Path) -> None:
        super().__init__(config, worker_id, artifacts)
        self._running: dict[str, RunningTest] = {}

    def pytest_runtest_logstart(self, nodeid: str, location: tuple[str, int | None, str]) -> None:
        """Fire ``start_test``."""
        test = self._running[nodeid] = RunningTest(self.describe(nodeid, place_of(location)))
        self.fire("start_test", **test.arguments)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note the report of a phase."""
        if report.nodeid in self._running:
            self._running[report.nodeid].reports.append(report)
        else:  # a plugin reports what no test run started, and pytest counts it
            self.finish_tests(RunningTest(self.describe(report.nodeid, place_of(report.location)), [report]))

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        """Fire ``finish_test``, before pytest-xdist tells the controller that the test has ended."""
        test = self._running.pop(nodeid, None)
        if test is not None:
            self.finish_tests(test)

    def finish_interrupted(self) -> None:
        """Fire ``finish_test`` for tests that did not come to their end."""
        for test in self._running.values():
            self.fire("finish_test", **test.interrupted())
        self._running.clear()


class WorkerSession(TestRunner):
    """A worker of pytest-xdist: a remote producer."""

    def __init__(self, config: pytest.Config, worker: dict[str, Any]) -> None:
        told = worker[WORKER_INPUT]
        super().__init__(config, worker["workerid"], Path(told["artifacts"]))
        self._producer = RemoteProducer(Endpoint(**told["endpoint"]))

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self) -> None:
        """Give the controller the problems."""
        self.finish_interrupted()
        if self._producer is not None:
            self._producer.close()
        output: dict[str, Any] = self.config.workeroutput  # type: ignore[attr-defined]  # pytest-xdist's
        output[WORKER_OUTPUT] = self.problems
