"""Where hooks are fired: at an engine of this process, or at a server."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Any, Protocol

from rigger_mp import Rigger, RiggerClient
from rigger_mp.cli.remote import TOKEN_VARIABLE, parse_server
from rigger_mp.errors import ConnectionLostError, NotRunningError, RiggerError

OWN_TOKEN_VARIABLE = "RIGGER_MP_PYTEST_TOKEN"


class Producer(Protocol):
    """Fires hooks."""

    target: Any
    """What the fixture ``rigger`` gives to tests."""

    def fire(self, hook: str, **arguments: Any) -> None:
        """Fire a hook; returns once it is accepted.

        Raises:
            RiggerError: it was not.
        """

    def finish(self, hook: str, **arguments: Any) -> list[str]:
        """Fire the last hook and wait for all; return what to tell the user.

        Raises:
            RiggerError: it failed.
        """

    def endpoint(self) -> tuple[str, int, str | None]:
        """Return address, port and token of the server, for other processes."""

    def problems(self) -> list[str]:
        """Return what went wrong and nobody was told."""

    def is_lost(self, error: RiggerError) -> bool:
        """Tell whether no further hook can be fired after an error."""

    def close(self) -> None:
        """Stop; twice does no harm."""


class SessionRigger(Rigger):
    """An engine that keeps what it has to say for the summary of the test run."""

    def __init__(self, config: Path) -> None:
        super().__init__(config)
        self.messages: list[str] = []
        self.needs_server = False
        self.token: str | None = None

    def read_config(self, config_file: str | os.PathLike[str] | None) -> None:
        """Read the configuration; where workers need a server, enable one on this machine."""
        super().read_config(config_file)
        if self.needs_server and not self.config.get("server_enabled"):
            self.token = os.environ[OWN_TOKEN_VARIABLE] = secrets.token_urlsafe()
            own = {"server_enabled": True, "server_address": "127.0.0.1", "server_port": 0}
            self.config = {**self.config, **own, "server_token_env": OWN_TOKEN_VARIABLE}

    def log_message(self, message: object) -> None:
        """Keep a message."""
        self.messages.append(str(message))

    def handle_failure(self, exc: tuple[Any, Any, Any]) -> None:
        """Keep a failure."""
        self.messages.append(f"{exc[0].__name__}: {exc[1]}")


def start_engine(config: Path, needs_server: bool) -> SessionRigger:
    """Return a started engine.

    Raises:
        ConfigError: the file cannot be read, or is wrong.
        StartError: a process failed to start.
    """
    rigger = SessionRigger(config)
    rigger.needs_server = needs_server
    rigger.start()
    return rigger


class EngineProducer:
    """Fires at an engine of this process."""

    def __init__(self, rigger: SessionRigger) -> None:
        self.target = rigger

    def fire(self, hook: str, **arguments: Any) -> None:
        """Fire a hook; nobody waits for its end."""
        self.target.fire_hook(hook, wait=False, **arguments)

    def finish(self, hook: str, **arguments: Any) -> list[str]:
        """Fire the last hook and wait for all, background hooks included."""
        result = self.target.fire_hook(hook, **arguments)
        self.target.drain()
        report = result.get("report") if result is not None else None
        archives = self.target.global_data.get("archive") or {}
        lines = [f"report: {report['html']}"] if report else []
        return lines + [f"archive: {archive['path']}" for archive in archives.values()]

    def endpoint(self) -> tuple[str, int, str | None]:
        """Return address, port and token of the engine's server."""
        assert self.target.server_address is not None
        address, port = self.target.server_address
        return address, port, self.target.token or os.environ.get(TOKEN_VARIABLE)

    def problems(self) -> list[str]:
        """Return what the engine had to say."""
        return self.target.messages

    def is_lost(self, error: RiggerError) -> bool:
        """Tell whether the engine has stopped."""
        return isinstance(error, NotRunningError)

    def close(self) -> None:
        """Stop the engine."""
        self.target.stop()


class RemoteProducer:
    """Fires at a server."""

    def __init__(self, address: str, port: int, token: str | None) -> None:
        self._endpoint = address, port, token
        self.target = RiggerClient(address, port, token=token)

    @classmethod
    def at(cls, server: str) -> RemoteProducer:
        """Return the producer for a server given as ``HOST:PORT``.

        Raises:
            ConfigError: it is something else.
        """
        return cls(*parse_server(server), os.environ.get(TOKEN_VARIABLE))

    def check(self) -> None:
        """Raise unless the server answers.

        Raises:
            RemoteError: it does not.
        """
        self.target.status()

    def fire(self, hook: str, **arguments: Any) -> None:
        """Fire a hook; returns once the server has accepted it."""
        self.target.fire_hook(hook, **arguments)

    def finish(self, hook: str, **arguments: Any) -> list[str]:
        """Fire the last hook and wait for its end, which comes after that of all ordered ones before."""
        self.target.fire_hook(hook, wait_for_task=True, **arguments)
        return []

    def endpoint(self) -> tuple[str, int, str | None]:
        """Return address, port and token of the server."""
        return self._endpoint

    def problems(self) -> list[str]:
        """Return nothing: the server tells those who run it."""
        return []

    def is_lost(self, error: RiggerError) -> bool:
        """Tell whether the server cannot be reached any more."""
        return isinstance(error, ConnectionLostError)

    def close(self) -> None:
        """Close the connection."""
        self.target.close()
