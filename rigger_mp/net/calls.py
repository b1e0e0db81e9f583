"""What clients send and what they make of the replies; pure, for both clients."""

from __future__ import annotations

import asyncio
import concurrent.futures
import itertools
import secrets
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, TypeVar

from rigger_mp import errors
from rigger_mp.errors import DeadlockError, EncodingError, Failure, HookError, ProtocolError, RemoteError, RiggerError
from rigger_mp.net import protocol
from rigger_mp.net.strict_json import JsonError, dump_json

Grab = bool | Sequence[str]
"""Whether the output is wanted, or the names that are."""


class RemoteFuture(concurrent.futures.Future[Any]):
    """The future of what was asked of a server; it cannot be cancelled: what was sent was sent.

    Attributes:
        tid: the name of the event's task at the server, once it has replied; ``""`` before.

    Args:
        must_not_wait: tells whether the present thread is the one that ends it.
    """

    def __init__(self, must_not_wait: Callable[[], bool] = bool) -> None:
        super().__init__()
        self.tid = ""
        self._must_not_wait = must_not_wait

    def result(self, timeout: float | None = None) -> Any:
        """Return the result, waiting for it up to ``timeout`` seconds.

        Raises:
            RiggerError: what the event, or asking for it, ended in.
            TimeoutError: it has not ended yet.
            DeadlockError: it has not ended yet, and this is the client's own thread: a callback of a future.
        """
        self._refuse_to_wait()
        return super().result(timeout)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Return what :meth:`result` would raise, or ``None``.

        Raises:
            TimeoutError, DeadlockError: as :meth:`result` does.
        """
        self._refuse_to_wait()
        return super().exception(timeout)

    def _refuse_to_wait(self) -> None:
        if not self.done() and self._must_not_wait():
            raise DeadlockError(
                "this thread is the client's own (callbacks of futures run in it), it must not wait; use submit(...)"
            )

    def cancel(self) -> bool:
        """Return ``False``."""
        return False


class AsyncRemoteFuture(asyncio.Future[Any]):
    """As :class:`RemoteFuture`, to be awaited."""

    tid = ""


class OwnReply:
    """What a caller that reads the reply itself gets; a future takes its place where another thread is to set it.

    Attributes:
        tid: as of :class:`RemoteFuture`.
    """

    __slots__ = ("_done", "_error", "_result", "tid")

    def __init__(self) -> None:
        self.tid = ""
        self._done = False
        self._result: Any = None
        self._error: BaseException | None = None

    def done(self) -> bool:
        """Whether it is there."""
        return self._done

    def set_result(self, result: Any) -> None:
        """Take what :meth:`result` returns."""
        self._done, self._result = True, result

    def set_exception(self, error: BaseException) -> None:
        """Take what :meth:`result` raises."""
        self._done, self._error = True, error

    def result(self) -> Any:
        """Return the result; it has been set."""
        if self._error is not None:
            raise self._error
        return self._result


F = TypeVar("F", RemoteFuture, AsyncRemoteFuture, OwnReply | RemoteFuture)


class Numbering:
    """Gives calls their numbers, and events their keys.

    Args:
        keyed: events get keys.
    """

    def __init__(self, *, keyed: bool) -> None:
        self._name = secrets.token_hex(8) if keyed else ""
        self._numbers = itertools.count(1)

    def number(self, call: Call[Any], *, keyed: bool) -> None:
        """Give a call its number, and, ``keyed``, its key."""
        call.number = next(self._numbers)
        if keyed and self._name:
            call.key = f"{self._name}-{call.number}"
        call.is_repeatable = not keyed or bool(call.key)


class Call(Generic[F]):
    """A line on its way to the server and back.

    Attributes:
        number: its ``id``.
        line: what is sent.
        key: its idempotency key, ``""``: it has none.
        is_repeatable: it may be sent again when nobody knows whether it arrived.
        waits: the reply may take as long as an event does.
        hook: the event's, ``""`` for other lines.
        future: gets the result.
        sent_to: the server that may have accepted it, ``""``: none.
        refused_at: when the server first said that it does not run, ``None``: it has not.
    """

    __slots__ = (
        "_grab", "_quiet", "future", "hook", "is_repeatable", "key", "line", "number", "refused_at", "sent_to",
        "waits",
    )  # fmt: skip

    def __init__(self, future: F, *, quiet: bool) -> None:
        self.future: F = future
        self.number = 0
        self.line = b""
        self.key = ""
        self.is_repeatable = False
        self.hook = ""
        self.sent_to = ""
        self.waits = False
        self.refused_at: float | None = None
        self._grab: Grab = False
        self._quiet = quiet

    def encode_event(self, hook: str, data: Mapping[str, Any], grab: Grab, wait: bool) -> None:
        """Make it an event.

        Raises:
            EncodingError: JSON cannot express an argument.
        """
        fields: dict[str, Any] = {"hook_name": hook, "data": data, "id": self.number}
        if self.key:
            fields["key"] = self.key
        if isinstance(grab, bool):
            if grab:
                fields["grab_result"] = True
        else:
            fields["results"] = list(grab)
        if wait:
            fields["wait_for_task"] = True
        self.hook, self._grab, self.waits = hook, grab, bool(wait or grab is not False)
        self.line = _encode(fields)

    def encode(self, event: str, **fields: Any) -> None:
        """Make it another line of the protocol."""
        self.line = _encode({"event_name": event, "id": self.number, **fields})

    def take(self, reply: Mapping[str, Any]) -> None:
        """Take the server's reply."""
        self.future.tid = str(reply.get("tid", ""))
        if not self.hook:
            self._succeed(dict(reply)) if self._is_answer(reply) else self.fail(error_of(reply, ""))
        elif reply.get("message") == "OK":
            self._succeed(self._result(reply))
        else:
            self.fail(error_of(reply, self.hook))

    def take_accepted(self, tid: str) -> None:
        """Take the server's reply that it has accepted the event."""
        self.future.tid = tid
        self._succeed(None)

    def _is_answer(self, reply: Mapping[str, Any]) -> bool:
        # The error of an ended task is what was asked for, not what went wrong.
        return reply.get("message") != "ERROR" or "tid" in reply

    def _result(self, reply: Mapping[str, Any]) -> Any:
        if self._grab is not False:
            return reply.get("output")
        return True if self.waits else None

    def _succeed(self, result: Any) -> None:
        if not self.future.done():
            _set(self.future.set_result, result)

    def fail(self, error: BaseException) -> None:
        """Say what went wrong."""
        if self.future.done():
            return
        if self._quiet:
            _set(self.future.set_result, None)
        else:
            _set(self.future.set_exception, error)


def _set(set_outcome: Callable[[Any], None], outcome: Any) -> None:
    """Set a future; a callback of it may raise anything, and must not end the client's thread."""
    try:
        set_outcome(outcome)
    except BaseException as error:  # it is reported, as an exception of a thread is
        thread = threading.current_thread()
        if thread is threading.main_thread():
            raise  # a caller that reads its own reply, and a Ctrl-C meant for it
        threading.excepthook(threading.ExceptHookArgs((type(error), error, error.__traceback__, thread)))


def _encode(fields: Mapping[str, Any]) -> bytes:
    try:
        return dump_json(fields) + b"\n"
    except JsonError as error:
        raise EncodingError(f"the event cannot be sent: {error}") from error


def error_of(reply: Mapping[str, Any], hook: str) -> RiggerError:
    """Return the exception that an error reply tells of."""
    described = reply.get("error")
    if not isinstance(described, dict):
        return ProtocolError(f"the server's reply is not understood: {dict(reply)!r}")
    name, message = str(described.get("type")), str(described.get("message"))
    if name == "HookError":
        return HookError(hook, [_failure(fields) for fields in described.get("failures", ())])
    known = getattr(errors, name, None)
    if isinstance(known, type) and issubclass(known, RiggerError):
        return known(message)
    return RemoteError(f"{name}: {message}")


def _failure(fields: Mapping[str, Any]) -> Failure:
    return Failure(
        function=str(fields.get("function", "")),
        stage=str(fields.get("stage", "")),
        type_name=str(fields.get("type", "")),
        message=str(fields.get("message", "")),
        traceback=str(fields.get("traceback", "")),
        exception=None,
    )


def delete_keys_line(keys: Sequence[str]) -> bytes:
    """Return the line that has the server forget keys whose replies have arrived."""
    return _encode({"event_name": protocol.TASK_DELETE, "keys": list(keys)})
