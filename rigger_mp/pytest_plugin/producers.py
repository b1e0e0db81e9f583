"""Where hooks are fired: at an engine of this process, or at a server."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any, NamedTuple, Protocol

from rigger_mp import RiggerClient
from rigger_mp.cli.remote import TOKEN_VARIABLE, parse_server
from rigger_mp.errors import ConfigError, ConnectionLostError, NotRunningError, RiggerError
from rigger_mp.net.security import client_context
from rigger_mp.pytest_plugin.session_rigger import SessionRigger


class Endpoint(NamedTuple):
    """Where a server is, and how to get in: what a worker of pytest-xdist is told.

    Attributes:
        address: host name or address.
        port: its TCP port.
        token: what it asks for, ``""``: nothing.
        tls_ca: file with the certificate that must have signed the server's, ``""``: no TLS.
    """

    address: str
    port: int
    token: str = ""
    tls_ca: str = ""


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

    def endpoint(self) -> Endpoint:
        """Return where other processes can fire hooks."""

    def problems(self) -> list[str]:
        """Return what went wrong and nobody was told."""

    def is_lost(self, error: RiggerError) -> bool:
        """Tell whether no further hook can be fired after an error."""

    def close(self) -> None:
        """Stop; twice does no harm."""


class EngineProducer:
    """Fires at an engine of this process.

    Args:
        rigger: the engine, started.
    """

    def __init__(self, rigger: SessionRigger) -> None:
        self.target = rigger

    def fire(self, hook: str, **arguments: Any) -> None:
        """Fire a hook; nobody waits for its end."""
        self.target.fire_and_note(hook, arguments)

    def finish(self, hook: str, **arguments: Any) -> list[str]:
        """Fire the last hook after the end of all others, and wait for it, background hooks included."""
        self.target.drain()
        try:
            self.target.fire_hook(hook, **arguments)
        finally:
            self.target.drain()
        return [*_report_lines(self.target.global_data.get("report")), *self._archive_lines()]

    def _archive_lines(self) -> list[str]:
        archives = self.target.global_data.get("archive")
        if not isinstance(archives, Mapping):
            return []
        entries = [each for each in archives.values() if isinstance(each, Mapping)]
        return [f"archive: {entry['path']}" for entry in entries if "path" in entry]

    def endpoint(self) -> Endpoint:
        """Return where the engine's server is."""
        return Endpoint(*self.target.endpoint())

    def problems(self) -> list[str]:
        """Return what the engine had to say."""
        return self.target.problems

    def is_lost(self, error: RiggerError) -> bool:
        """Tell whether the engine has stopped."""
        return isinstance(error, NotRunningError)

    def close(self) -> None:
        """Stop the engine."""
        self.target.stop()


class RemoteHooks:
    """What a test fires hooks with at a server: as at an engine of the same process.

    Args:
        client: connected to the server.
    """

    def __init__(self, client: RiggerClient) -> None:
        self._client = client

    def fire_hook(self, hook: str, /, *, wait: bool = True, **kwargs: Any) -> Any:
        """Fire a hook, wait for its end and return its namespaces, a mapping.

        Args:
            hook: the event's name.
            wait: false: return ``None`` as soon as the event is accepted.
            kwargs: the event's local namespace; values that JSON can express.

        Raises:
            RiggerError: as :meth:`rigger_mp.RiggerClient.fire_hook`.
        """
        return self._client.submit(hook, grab_result=wait, **kwargs).result()

    def submit(self, hook: str, /, **kwargs: Any) -> Future[Any]:
        """Fire a hook and return a future of what :meth:`fire_hook` would return.

        Raises:
            RiggerError: as :meth:`rigger_mp.RiggerClient.submit`.
        """
        return self._client.submit(hook, grab_result=True, **kwargs)


class RemoteProducer:
    """Fires at a server.

    Args:
        endpoint: where it is.

    Raises:
        ConfigError: the certificate's file cannot be read.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        try:
            tls = client_context(endpoint.tls_ca) if endpoint.tls_ca else None
        except OSError as error:
            raise ConfigError(f"--rigger-tls-ca {endpoint.tls_ca}: {error}") from error
        self._client = RiggerClient(endpoint.address, endpoint.port, token=endpoint.token, tls=tls)
        self.target = RemoteHooks(self._client)
        self._failures_before: dict[str, int] = {}

    @classmethod
    def at(cls, server: str, tls_ca: str = "") -> RemoteProducer:
        """Return the producer for a server given as ``HOST:PORT``.

        Raises:
            ConfigError: it is something else.
        """
        address, port = parse_server(server)
        return cls(Endpoint(address, port, os.environ.get(TOKEN_VARIABLE, ""), tls_ca))

    def check(self) -> None:
        """Raise unless the server answers.

        Raises:
            RemoteError: it does not.
        """
        self._failures_before = self._count_failures()

    def fire(self, hook: str, **arguments: Any) -> None:
        """Fire a hook; returns once the server has accepted it: should this process crash then, it runs."""
        self._client.fire_hook(hook, **arguments)

    def finish(self, hook: str, **arguments: Any) -> list[str]:
        """Fire the last hook and wait for its end, which comes after that of all ordered ones before."""
        output = self._client.fire_hook(hook, grab_result=["report"], **arguments)
        return _report_lines(output.get("report"))

    def endpoint(self) -> Endpoint:
        """Return where the server is."""
        return self._endpoint

    def problems(self) -> list[str]:
        """Return for which hooks events failed meanwhile, those of other clients included."""
        with contextlib.suppress(RiggerError):  # the server has gone: that was told before
            failed = {
                hook: count - self._failures_before.get(hook, 0) for hook, count in self._count_failures().items()
            }
            return [f"{hook}: {count} failed at the server" for hook, count in failed.items() if count > 0]
        return []

    def _count_failures(self) -> dict[str, int]:
        hooks = self._client.status()["hooks"]
        return {hook: int(counts["failures"]) for hook, counts in hooks.items()}

    def is_lost(self, error: RiggerError) -> bool:
        """Tell whether the server cannot be reached any more, or stops."""
        return isinstance(error, (ConnectionLostError, NotRunningError))

    def close(self) -> None:
        """Close the connection."""
        self._client.close()


def _report_lines(report: Any) -> list[str]:
    return [f"report: {report['html']}"] if isinstance(report, Mapping) and "html" in report else []
