"""The engine of a test run: nothing that its hooks do gets between pytest and the tests."""

from __future__ import annotations

import logging
import os
import secrets
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rigger_mp import HookError, Rigger
from rigger_mp.cli.log_format import TEXT_FORMAT
from rigger_mp.cli.session import describe_error
from rigger_mp.engine.messages import Output
from rigger_mp.errors import ConfigError
from rigger_mp.net.security import Security
from rigger_mp.pytest_plugin.hook_log import HookLog

if TYPE_CHECKING:
    from rigger_mp.engine.endings import Ended, Lost
    from rigger_mp.engine.pending import Waiter
    from rigger_mp.engine.segments import Arguments

OWN_TOKEN_VARIABLE = "RIGGER_MP_PYTEST_TOKEN"
_THIS_MACHINE = {"0.0.0.0": "127.0.0.1", "::": "::1"}
_FORMATTER = logging.Formatter(TEXT_FORMAT)


class SessionRigger(Rigger):
    """An engine that keeps what it has to say for the end of the test run.

    What hooks print and log must not reach the streams and loggers of this process: pytest captures those, and
    would take it for the tests' own.

    Args:
        config: the configuration's path.
        log: gets what hooks print and log, and failures in full.
        needs_server: enable the TCP server, also where the configuration does not.

    Attributes:
        problems: a line for each failure and message.
    """

    def __init__(self, config: Path, log: HookLog, *, needs_server: bool) -> None:
        super().__init__(config)
        self.problems: list[str] = []
        self._log = log
        self._needs_server = needs_server
        self._own_token = ""

    # -- the server that workers of pytest-xdist fire at -------------------------------------------------

    def read_config(self, config_file: str | os.PathLike[str] | None) -> None:
        """Read the configuration; where workers need a server, enable one that only they can use.

        Raises:
            ConfigError: it is wrong, or its server is not one that workers can connect to.
        """
        super().read_config(config_file)
        if not self._needs_server:
            return
        if not self.config.get("server_enabled"):
            self._own_token = secrets.token_urlsafe()
            own = {"server_address": "127.0.0.1", "server_port": 0, "server_token_env": OWN_TOKEN_VARIABLE}
            without = {"server_tls_cert": None, "server_tls_key": None, "server_tls_client_ca": None}
            self.config = {**self.config, **own, **without, "server_token_file": None, "server_enabled": True}
        elif self.config.get("server_tls_cert"):
            raise ConfigError(
                "server_tls_cert: the workers of pytest-xdist connect without TLS; set server_enabled: false for a "
                "server of their own, or use a server that runs already: --rigger-server, --rigger-tls-ca"
            )

    def start_server(self) -> None:
        """Start the TCP server if it is enabled."""
        if not self._own_token:
            super().start_server()
            return
        os.environ[OWN_TOKEN_VARIABLE] = self._own_token
        try:
            super().start_server()
        finally:
            del os.environ[OWN_TOKEN_VARIABLE]  # the tests' own processes must not inherit it

    def endpoint(self) -> tuple[str, int, str]:
        """Return address, port and token of the server."""
        assert self.server_address is not None
        address, port = self.server_address
        token = self._own_token or Security.from_config(self.config).token
        return _THIS_MACHINE.get(address, address), port, token

    # -- what goes wrong, and what hooks say -------------------------------------------------------------

    def fire_and_note(self, hook: str, arguments: dict[str, Any]) -> None:
        """Fire a hook and return once it is accepted; a failure becomes a problem.

        Raises:
            RiggerError: it was not accepted.
        """
        self.submit(hook, **arguments).add_done_callback(partial(self._note_future, hook))

    def note(self, hook: str, error: BaseException) -> None:
        """Keep what went wrong with an event."""
        self.problems.append(f"{hook}: {describe_error(error)}")
        self._log.write(f"{error}\n" if isinstance(error, HookError) else f"{hook}: {error}\n")

    def _note_future(self, hook: str, future: Future[Any]) -> None:
        error = future.exception()
        if error is not None:
            self.note(hook, error)

    def _try_submit(
        self, hook: str, arguments: Arguments, waiter: Waiter, note: Callable[[int], None] | None, since: int
    ) -> bool:
        # Workers wait only until their events are accepted: the failures of those are told nobody but here.
        return super()._try_submit(hook, arguments, _Noted(waiter, partial(self.note, hook)), note, since)

    def handle_failure(self, exc: tuple[Any, Any, Any]) -> None:
        """Keep a failure."""
        kind, error, _ = exc
        self.problems.append(f"{kind.__name__}: {error}")
        self._log.write(f"{kind.__name__}: {error}{error.__cause__ or ''}\n")

    def log_message(self, message: object) -> None:
        """Keep a message."""
        self.problems.append(str(message))
        self._log.write(f"{message}\n")

    def handle_output(self, output: Output) -> None:
        """Write what a hook printed to the log."""
        self._log.write(output.text)

    def handle_record(self, record: logging.LogRecord) -> None:
        """Write a hook's log record to the log."""
        self._log.write(f"{_FORMATTER.format(record)}\n")


class _Noted:
    """The waiter of an event from a client, whose failure is noted besides.

    Args:
        waiter: the client's.
        note: gets the error.
    """

    def __init__(self, waiter: Waiter, note: Callable[[BaseException], None]) -> None:
        self._waiter = waiter
        self._note = note

    def end(self, ending: Ended | Lost) -> None:
        """Take how the event ended."""
        if not ending.succeeded and not self._is_awaited:
            try:
                ending.open()
            except Exception as error:  # noqa: BLE001 - whatever it is, the client must be told, too
                self._note(error)
        self._waiter.end(ending)

    @property
    def _is_awaited(self) -> bool:
        """Whether the client gets the error: then a test fails, or handles it."""
        request: Any = getattr(self._waiter, "request", None)
        return bool(request and request.wait)
