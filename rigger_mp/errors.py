"""Every exception of rigger_mp, in one tree rooted at :class:`RiggerError`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class RiggerError(Exception):
    """Root of the tree: raised, as one of its subclasses, for everything that rigger_mp reports."""


class ConfigError(RiggerError):
    """Raised when a configuration is wrong; the message lists every mistake, each with its place."""


class PluginError(RiggerError):
    """Raised when a plugin cannot be found, imported, registered or initialised."""


class PluginNotFoundError(PluginError):
    """Raised when a plugin that the configuration names does not exist (with ``strict: true``)."""


class DuplicatePluginError(PluginError):
    """Raised when a second, different plugin class is registered under a name already taken."""


class PluginInitError(PluginError):
    """Raised when the constructor or ``plugin_initialize`` of a plugin fails (with ``strict: true``)."""


class UnknownCallbackError(RiggerError, KeyError):
    """Raised when a callback is to be unregistered that is not registered."""

    def __str__(self) -> str:
        return Exception.__str__(self)


class EncodingError(RiggerError, TypeError):
    """Raised when a value cannot be pickled and so cannot travel to another process."""


class NotRunningError(RiggerError, RuntimeError):
    """Raised when an event is fired at an engine that is not started, or is stopping or stopped."""


class StartError(RiggerError):
    """Raised when a process of the engine fails to start."""


class SpoolError(RiggerError):
    """Raised when the archive's spool cannot be opened, read or written, and so cannot keep a background job."""


class QueueFull(RiggerError):
    """Raised when ``queue_size`` events are pending and the caller must not wait for room."""


class NestingLimitExceeded(RiggerError):
    """Raised when hooks fire hooks more than ``max_nesting`` levels deep."""


class DeadlockError(RiggerError, RuntimeError):
    """Raised when a call would wait for an event on the thread that delivers the outcomes of events."""


class MissingArgumentsError(RiggerError, TypeError):
    """Raised when a function names a parameter that neither namespace has."""


class HookResultError(RiggerError, TypeError):
    """Raised when a function returns neither ``None`` nor ``(local_updates, global_updates)``."""


class RemoteTraceback(RiggerError):
    """Raised nowhere: the cause of an exception that happened in another process, as text."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f"\n{self.text.rstrip()}"


class Failure(NamedTuple):
    """What one failed function left behind.

    Attributes:
        function: its name, qualified by the instance: ``adder.add``; of a callback, its own name.
        stage: ``"pre"``, ``"hook"``, ``"post"`` or ``"background"``.
        type_name: the exception's class name.
        message: ``str(exception)``.
        traceback: the traceback's text, as formatted in the process where it happened.
        exception: the exception itself, or ``None`` if it could not travel.
    """

    function: str
    stage: str
    type_name: str
    message: str
    traceback: str
    exception: BaseException | None


class HookError(RiggerError):
    """Raised when functions of an event failed.

    ``failures`` holds one :class:`Failure` for each function that failed in the stage; the original
    exception of the first is ``__cause__`` where it could travel.
    """

    def __init__(self, hook: str, failures: Sequence[Failure]) -> None:
        self.hook = hook
        self.failures = tuple(failures)
        super().__init__(self._describe())
        if self.failures:
            self.__cause__ = self.failures[0].exception

    def _describe(self) -> str:
        parts = [f"hook {self.hook!r}: {len(self.failures)} function(s) failed"]
        parts += [
            f"{failure.function} ({failure.stage}): {failure.type_name}: {failure.message}\n{failure.traceback}"
            for failure in self.failures
        ]
        return "\n\n".join(parts).rstrip()

    def __reduce__(self) -> tuple[type[HookError], tuple[str, tuple[Failure, ...]]]:
        return type(self), (self.hook, self.failures)


class EventLost(RiggerError):
    """Raised, as one of its subclasses, when an accepted event ended without a result."""


class WorkerLost(EventLost):
    """Raised when the process that ran the event died: killed, exited, or crashed."""


class EventQuarantined(WorkerLost):
    """Raised when the event's process died at every attempt that ``max_retries`` allows: it is not run again."""


class WorkerNotStarted(EventLost, StartError):
    """Raised when the event needs a process that has been given up, because it could not be started."""


class TimeLimitExceeded(EventLost):
    """Raised when the event ran longer than its ``time_limit`` and its process was killed."""


class EngineLost(EventLost):
    """Raised when the engine stopped or its dispatcher died before the event was finished."""


class RemoteError(RiggerError):
    """Root of what can go wrong between a client and a server."""


class ProtocolError(RemoteError, ValueError):
    """Raised when a line breaks the protocol, or the other side does not speak it."""


class LimitError(RemoteError):
    """Raised when a limit of the server is reached: a line too long, too many connections or keys."""


class AuthenticationError(RemoteError, PermissionError):
    """Raised when the server asks for a token and got none, or a wrong one."""


class KeyReuseError(RemoteError):
    """Raised when an idempotency key was used before, for another event."""


class ConnectionLostError(RemoteError, ConnectionError):
    """Raised when the server cannot be reached, or the connection ended before the reply came."""


class ServerRestartedError(ConnectionLostError):
    """Raised when the server was restarted before the reply came and forgot the event: it may have run."""


class ReplyTimeoutError(RemoteError, TimeoutError):
    """Raised when the server did not reply in time; the event may run nevertheless."""


class TaskNotFoundError(RemoteError, KeyError):
    """Raised when the server does not know a task: it never did, or has forgotten it."""

    def __str__(self) -> str:
        return Exception.__str__(self)
