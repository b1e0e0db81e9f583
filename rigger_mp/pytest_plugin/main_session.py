"""The process that the user started: it fires the session's hooks, and says in the summary how that went."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from rigger_mp.errors import ConfigError, RiggerError, StartError
from rigger_mp.pytest_plugin.hook_log import HookLog
from rigger_mp.pytest_plugin.producers import EngineProducer, Producer, RemoteProducer
from rigger_mp.pytest_plugin.results import RunningTest, place_of, result_of
from rigger_mp.pytest_plugin.session import WORKER_INPUT, WORKER_OUTPUT, Session, TestRunner, WorkerSession
from rigger_mp.pytest_plugin.session_rigger import SessionRigger

LOG_NAME = "rigger.log"
MOST_SHOWN = 10
"""Problems that the summary shows; the log has all."""


def make_session(config: pytest.Config) -> Session:
    """Return the part that this process has in the run: a whole one, a controller's, or a worker's."""
    worker = getattr(config, "workerinput", None)
    if worker is not None:
        return WorkerSession(config, worker)
    return Controller(config) if _has_workers(config) else MainSession(config)


def _has_workers(config: pytest.Config) -> bool:
    # As pytest-xdist tells it: --dist alone distributes nothing.
    return bool(config.getoption("tx", None)) and config.getoption("dist", "no") != "no"


class MainSession(TestRunner):
    """A test run in one process.

    Args:
        config: pytest's.
    """

    needs_server = False

    def __init__(self, config: pytest.Config) -> None:
        super().__init__(config, "master", config.invocation_params.dir / config.getoption("rigger_artifacts"))
        self._log = HookLog(self.artifacts.root / LOG_NAME)
        self._began = time.monotonic()
        self._reports: list[str] = []

    def pytest_report_header(self) -> list[str]:
        """Say where the hooks go."""
        where = self.config.getoption("rigger") or f"server {self.config.getoption('rigger_server')}"
        return [f"rigger: {where}, artifacts: {self.config.getoption('rigger_artifacts')}", *self._warn_of_root()]

    def _warn_of_root(self) -> list[str]:
        """Warn if the option's value decided where pytest looked for its own configuration.

        Pytest does that before it knows the options of plugins: what follows one after a space may be a test's path.
        """
        here, root, ini = self.config.invocation_params.dir, self.config.rootpath, self.config.inipath
        value = self.config.getoption("rigger")
        if not value or value not in self.config.invocation_params.args:
            return []
        if (here / value).resolve().is_relative_to(here) or (ini is not None and here.is_relative_to(ini.parent)):
            return []
        return [
            f"rigger: WARNING: pytest took {value} for a test's path, so that rootdir is {root} and its own "
            f"configuration {ini or 'none'}: write --rigger={value}"
        ]

    # -- the session -------------------------------------------------------------------------------------

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionstart(self) -> None:
        """Start the engine, or connect to the server, and fire ``start_session``.

        Raises:
            pytest.UsageError: an option or the configuration is wrong, or the server cannot be reached.
        """
        try:
            self.artifacts.root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise pytest.UsageError(f"--rigger-artifacts: the directory cannot be made: {error}") from error
        try:
            self._producer = self._make_producer()
        except (ConfigError, StartError) as error:
            raise pytest.UsageError(f"{self._option}: {error}") from error
        except RiggerError as error:
            raise pytest.UsageError(f"{self._option}: {error}; start one with: rigger-mp serve CONFIG") from error
        self.fire("start_session", **self._places())

    def _places(self) -> dict[str, str]:
        return {"root": str(self.config.rootpath), "artifacts": str(self.artifacts.root)}

    @property
    def _option(self) -> str:
        return "--rigger" if self.config.getoption("rigger") else "--rigger-server"

    def _make_producer(self) -> Producer:
        here, server = self.config.invocation_params.dir, self.config.getoption("rigger_server")
        if server:
            tls_ca = self.config.getoption("rigger_tls_ca")
            producer = RemoteProducer.at(server, str(here / tls_ca) if tls_ca else "")
            producer.check()
            return producer
        rigger = SessionRigger(here / self.config.getoption("rigger"), self._log, needs_server=self.needs_server)
        rigger.start()
        return EngineProducer(rigger)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, exitstatus: int) -> None:
        """Fire ``finish_session``, and wait for everything that was fired."""
        self.finish_interrupted()
        if self._producer is None:
            return
        if not self._is_lost:
            self._finish(self._producer, int(exitstatus))
        self.problems += self._producer.problems()
        self._producer.close()

    def _finish(self, producer: Producer, exit_status: int) -> None:
        seconds = round(time.monotonic() - self._began, 6)
        arguments = {"worker_id": self.worker_id, "exit_status": exit_status, "duration": seconds}
        try:
            self._reports = producer.finish("finish_session", **self._places(), **arguments)
        except RiggerError as error:
            self._log.write(f"finish_session: {error}\n")
            self.problems.append(f"finish_session failed: {str(error).strip()}")

    def pytest_unconfigure(self) -> None:
        """Stop the engine if the session did not get that far."""
        if self._producer is not None:
            self._producer.close()

    # -- the summary -------------------------------------------------------------------------------------

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Say where the reports are, and which hooks failed."""
        if not self._reports and not self.problems and not self._log.used:
            return
        terminalreporter.write_sep("=", "rigger")
        for line in self._reports:
            terminalreporter.write_line(line)
        if self._log.used:
            path = Path(self.config.getoption("rigger_artifacts")) / LOG_NAME
            terminalreporter.write_line(f"what hooks printed, logged and raised: {path}")
        if self.problems:
            count = len(self.problems)
            terminalreporter.write_line(f"{count} problem{'' if count == 1 else 's'} with hooks:", yellow=True)
        for problem in self.problems[:MOST_SHOWN]:
            terminalreporter.write_line(problem)
        if len(self.problems) > MOST_SHOWN:
            terminalreporter.write_line(f"... and {len(self.problems) - MOST_SHOWN:,} more")

    # -- what no test run tells --------------------------------------------------------------------------

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Fire ``finish_test`` for what could not be collected: pytest counts it, too."""
        if report.passed:
            return
        word = "error" if report.failed else "skipped"
        name = report.nodeid or str(self.config.rootpath)
        described = self.describe(report.nodeid or "collection", name)
        self.fire("finish_test", **{**described, "test_name": name}, **result_of(word, report, report, 0.0))


class Controller(MainSession):
    """The controller of pytest-xdist: its workers run the tests.

    What it hears of a test that has not ended it keeps: should the worker crash, nobody else can tell.
    """

    needs_server = True

    def __init__(self, config: pytest.Config) -> None:
        super().__init__(config)
        self._unfinished: dict[tuple[str, str], list[pytest.TestReport]] = {}

    def pytest_runtest_logstart(self, nodeid: str, location: tuple[str, int | None, str]) -> None:
        """Do nothing: the worker fires ``start_test``."""

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep the report of a phase; that of a worker's crash is the end of a test."""
        node: Any = getattr(report, "node", None)
        worker_id = node.gateway.id if node is not None else self.worker_id
        reports = self._unfinished.setdefault((worker_id, report.nodeid), [])
        reports.append(report)
        if str(report.when) == "???":  # pytest-xdist's mark of a crash
            del self._unfinished[worker_id, report.nodeid]
            described = self.describe(report.nodeid, place_of(reports[0].location))
            self.finish_tests(RunningTest({**described, "worker_id": worker_id}, reports))

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        """Forget the reports: the worker has fired ``finish_test``."""
        for key, reports in list(self._unfinished.items()):
            if key[1] == nodeid and reports[-1].when == "teardown":
                del self._unfinished[key]

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """Tell a worker of pytest-xdist where the engine is."""
        assert self._producer is not None
        node.workerinput[WORKER_INPUT] = {
            "endpoint": self._producer.endpoint()._asdict(),
            "artifacts": os.fspath(self.artifacts.root),
        }

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """Take over the problems of a worker that has ended."""
        self.problems += getattr(node, "workeroutput", {}).get(WORKER_OUTPUT, [])
