"""The pytest plugin: a test run fires hooks, in an engine of its own or at a server.

::

    pytest --rigger CONFIG                 pytest ── Rigger
    pytest --rigger CONFIG -n 2            pytest ── Rigger ◀──TCP── gw0, gw1 (pytest-xdist)
    pytest --rigger-server HOST:PORT       pytest (gw0, gw1) ──TCP──▶ rigger-mp serve

============== =========================================================================================
hook           arguments, besides ``worker_id`` ("master", "gw0", …)
============== =========================================================================================
start_session  ``root`` (directory), ``artifacts`` (directory)
start_test     ``test_name`` (node id), ``test_location`` (file:line), ``artifact_dir``, ``artifact_path``
finish_test    the same, ``test_result``, ``duration`` (seconds), ``longrepr``, ``stdout``, ``stderr``, ``log``
finish_session ``root``, ``artifacts``, ``exit_status`` (int), ``duration`` (seconds)
============== =========================================================================================

``finish_test`` is fired once for each result that pytest counts in its summary, so a test that passed and whose
teardown failed has two: ``passed`` and ``error``. A module that cannot be collected has one without
``start_test``; a test that Ctrl-C ended has ``interrupted``, which pytest does not count. Results that other plugins
invent, such as ``rerun``, are fired by their names. ``finish_session`` comes after the end of all other hooks; at a
server that runs already, of all ordered ones.

``artifact_dir`` is a directory of the test's own, and ``artifact_path`` the start of file names in it. Directories of
an earlier run stay.

What goes wrong with a hook fails no test and does not change the exit status: the summary tells, and
``rigger.log``, in the directory of artifacts, has it in full, with all that hooks print and log.

Without these options nothing happens, and nothing of the engine is imported.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from rigger_mp import Rigger
    from rigger_mp.pytest_plugin.producers import RemoteHooks

DEFAULT_ARTIFACTS = "rigger-artifacts"
RUN_NOTHING = ("help", "collectonly", "showfixtures", "show_fixtures_per_test", "markers", "cacheshow")
"""pytest's options with which no test is run."""
SESSION = "rigger_mp session"
"""The name under which pytest's plugin manager has the session."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options."""
    group = parser.getgroup("rigger", "rigger_mp: fire hooks for sessions and tests")
    group.addoption("--rigger", metavar="CONFIG", help="start an engine with this YAML file and fire the hooks there")
    group.addoption(
        "--rigger-server",
        metavar="HOST:PORT",
        help="fire the hooks at a server that runs already (its token: variable RIGGER_TOKEN)",
    )
    group.addoption(
        "--rigger-tls-ca",
        metavar="FILE",
        help="encrypt the connection to --rigger-server; this certificate must have signed the server's",
    )
    group.addoption(
        "--rigger-artifacts",
        metavar="DIR",
        default=DEFAULT_ARTIFACTS,
        help=f"where each test gets a directory for its artifacts ({DEFAULT_ARTIFACTS})",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Take part in the session if an option asks for it."""
    if config.getoption("rigger") and config.getoption("rigger_server"):
        raise pytest.UsageError("--rigger and --rigger-server exclude each other: start an engine, or use a server")
    wanted = config.getoption("rigger") or config.getoption("rigger_server")
    if not wanted or any(config.getoption(option, False) for option in RUN_NOTHING):
        return
    from rigger_mp.pytest_plugin.main_session import make_session  # noqa: PLC0415 - imports the engine

    config.pluginmanager.register(make_session(config), SESSION)


@pytest.fixture(scope="session")
def rigger(request: pytest.FixtureRequest) -> Rigger | RemoteHooks:
    """Fires a test's own hooks: ``fire_hook(hook, *, wait=True, **arguments)`` and ``submit(hook, **arguments)``.

    It is the engine of ``--rigger``; in a worker of pytest-xdist, or with ``--rigger-server``, what has these two
    over TCP. Without either option the test is skipped.
    """
    session: Any = request.config.pluginmanager.get_plugin(SESSION)
    if session is None:
        pytest.skip("needs an engine: run pytest with --rigger CONFIG or --rigger-server HOST:PORT")
    target: Rigger | RemoteHooks = session.target
    return target


@pytest.fixture
def artifact_dir(request: pytest.FixtureRequest) -> Any:
    """The test's directory for artifacts, a ``pathlib.Path``; the test is skipped without the options."""
    session: Any = request.config.pluginmanager.get_plugin(SESSION)
    if session is None:
        pytest.skip("needs --rigger CONFIG or --rigger-server HOST:PORT")
    return session.artifacts.directory(request.node.nodeid)
