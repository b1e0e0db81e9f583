"""The protocol: JSON lines over TCP. This text is its one reference.

**Lines.** Both sides send JSON objects (RFC 8259), one a line, UTF-8, ended by LF or CR LF; blank lines are
ignored. A last line may lack its end. The server answers each line with one line, which holds the line's
``id`` if it had one that can be read. Replies may come in another order than the lines: use ``id`` to tell them apart.

**Events.** ::

    {"hook_name": "start_session", "data": {"arg1": "value1", "arg2": "value2"}}

===================  ============  =======================================================================
``event_name``       string        may be left out, or be ``"fire_hook"``
``hook_name``        string        the hook to fire
``data``             object        its local namespace; left out: empty
``id``               any           comes back in the reply
``grab_result``      boolean       reply when the event has ended, with its ``output``
``wait_for_task``    boolean       reply when the event has ended, without
``results``          array of      only these names come back in ``output``; implies ``grab_result``
                     strings
``key``              string        idempotency key, up to 256 characters: see below
===================  ============  =======================================================================

Without ``grab_result``, ``wait_for_task`` and ``results`` the reply is sent as soon as the event is accepted::

    {"message": "OK", "tid": "5f0c9a3e-1"}

From then on it will run, come what may to the connection. Else the one reply is sent when the event has ended::

    {"message": "OK", "tid": "5f0c9a3e-2", "status": 2, "output": {"sum": 3}}
    {"message": "ERROR", "tid": "5f0c9a3e-3", "status": 2, "error": {"type": "HookError", ...}}

``output`` is the combined namespace of the event: locals, then globals, without ``config`` unless ``results``
names it; names asked for that do not exist are left out. Values that JSON cannot express become their
``repr`` (:func:`rigger_mp.net.strict_json.dump_any`).

**Errors.** ``error`` holds ``type`` (a class of :mod:`rigger_mp.errors`), ``message``, ``traceback`` (text, may be
empty), and for a ``HookError`` ``failures``: an array of objects with ``function``, ``stage``, ``type``,
``message`` and ``traceback``. An error without ``tid`` means that the line did nothing:

=========================  ===============================================================================
``ProtocolError``          the line is wrong: its message says where; the connection goes on
``LimitError``             a limit was reached: line too long, too many connections or keys, reply too large
``AuthenticationError``    authenticate first; or the token is wrong, and the connection is closed
``NotRunningError``        the server is stopping, or not ready yet
``KeyReuseError``          the ``key`` was used for another event
=========================  ===============================================================================

An error without ``id`` may concern the connection as a whole; it is then closed.

**Other lines**, told apart by ``event_name``; each may have an ``id``:

=================  =========================================  ==============================================
``event_name``     fields                                     reply
=================  =========================================  ==============================================
``hello``                                                     ``{"message": "OK", "protocol": 1, "server":
                                                              "rigger_mp 0.1.0", "instance": "9f86d081...",
                                                              "authenticate": false, "limits": {...}}``
``ping``                                                      ``{"message": "PONG"}``
``auth``           ``token``: string                          ``{"message": "OK"}``
``task_check``     ``tid``: string; ``grab_result``: boolean  ``{"message": "OK", "tid": ..., "status": 1}``,
                                                              or ``{"message": "NOT FOUND"}``
``task_delete``    ``tid``: string, or ``keys``: array of     ``{"message": "OK"}``
                   strings
``status``                                                    ``{"message": "OK", "stats": {...}}``, as
                                                              :meth:`rigger_mp.Rigger.stats`
``shutdown``                                                  ``{"message": "OK"}``; from this machine, or
                                                              authenticated
=================  =========================================  ==============================================

``status`` of a task is 1 while its event waits or runs, 2 when it has ended; then ``task_check`` returns its
``error``, or with ``grab_result`` its ``output``. What has ended is kept for a while (``server_results``,
``server_results_time``), unless its reply was sent to who waited for it. ``task_delete`` with ``tid`` forgets a
result, with ``keys`` idempotency keys whose replies have been received.

**Authentication.** Where the server has a token, only ``hello``, ``ping`` and ``auth`` are answered before
``auth`` succeeded, lines may have 4096 bytes until then, and that must be within ``server_auth_timeout``.

**Repeating.** Whoever lost the connection before the reply came cannot know whether the event was accepted.
An event with a ``key`` may be sent again, over any connection: within ``server_idempotency_time`` the same key
with the same event runs nothing and gets the first one's reply (when it has ended, if it waits). The same key with
another event is a ``KeyReuseError``. An event refused without a ``tid`` leaves its key unused.

Keys are remembered by what ``hello`` calls ``instance``. A server that comes back with another one does not know them:
then nobody can tell whether an event that has no reply ran, and to send it again may run it twice. With
``server_store`` the instance stays the same however the server ended, and the events with it: those that it had
accepted and not started run in the next server, with or without key; what is sent again under its key gets the
first one's reply, or, where the server was killed between its start and its reply, an ``EngineLost``.

**Back-pressure.** Where ``queue_size`` events are pending, or ``server_max_in_flight`` of one connection, or its
replies are not read, the server stops reading from that connection until that is over. Nothing is lost.
A connection that does not read its replies for ``server_write_timeout`` is dropped.

**Stopping.** From then on events are refused with ``NotRunningError``; every accepted one runs, replies are
sent, the last of them ``{"message": "BYE"}``, and connections are closed. A line that has no reply then did nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rigger_mp import errors
from rigger_mp.errors import HookError, ProtocolError
from rigger_mp.net.strict_json import JsonError, dump_any, parse_json, read_field

PROTOCOL = 1
RUNNING, ENDED = 1, 2
"""Statuses of a task."""
MAX_NAME = 1024
MAX_KEY = 256
MAX_LINE_BEFORE_AUTH = 4096

FIRE, PING, HELLO, AUTH = "fire_hook", "ping", "hello", "auth"
TASK_CHECK, TASK_DELETE, STATUS, SHUTDOWN = "task_check", "task_delete", "status", "shutdown"
BEFORE_AUTH = frozenset({HELLO, PING, AUTH})

_FIELDS: dict[str, frozenset[str]] = {
    FIRE: frozenset({"hook_name", "data", "grab_result", "wait_for_task", "results", "key"}),
    PING: frozenset(),
    HELLO: frozenset(),
    AUTH: frozenset({"token"}),
    TASK_CHECK: frozenset({"tid", "grab_result"}),
    TASK_DELETE: frozenset({"tid", "keys"}),
    STATUS: frozenset(),
    SHUTDOWN: frozenset(),
}
_COMMON = frozenset({"event_name", "id"})
_NO_ID = object()


@dataclass(slots=True)
class Request:
    """A line that was understood; fields that its kind does not have are at their defaults.

    Attributes:
        event: its ``event_name``.
        reply_id: the ``id`` for the reply, already as JSON, ``b""`` if there is none.
        grab: reply with the output when the event has ended.
        wait: reply when the event has ended.
        results: the only names wanted in the output, ``None``: all.
    """

    event: str
    reply_id: bytes = b""
    hook: str = ""
    data: dict[str, Any] | None = None
    grab: bool = False
    wait: bool = False
    results: tuple[str, ...] | None = None
    key: str = ""
    tid: str = ""
    keys: tuple[str, ...] = ()
    token: str = ""


class RefusedLine(Exception):
    """Raised when a line is refused; holds the reply's ``id`` and the error."""

    def __init__(self, reply_id: bytes, error: errors.RiggerError) -> None:
        super().__init__(str(error))
        self.reply_id = reply_id
        self.error = error


def parse_line(line: bytes, max_nesting: int) -> Request:
    """Return what a line asks for.

    Raises:
        RefusedLine: it is wrong.
    """
    try:
        fields = parse_json(line, max_nesting)
    except JsonError as error:
        reply_id = read_field(line, "id", max_nesting, _NO_ID)
        raise RefusedLine(_encoded(reply_id), ProtocolError(f"the line is refused: {error}")) from None
    if type(fields) is not dict:
        raise RefusedLine(b"", ProtocolError("the line is not a JSON object, such as " + _EXAMPLE))
    encoded_id = _encoded(fields.get("id", _NO_ID))
    try:
        return _request(fields, encoded_id)
    except ProtocolError as error:
        raise RefusedLine(encoded_id, error) from None


_EXAMPLE = '{"hook_name": "start_session", "data": {"arg1": "value1"}}'


def _encoded(reply_id: Any) -> bytes:
    if reply_id is _NO_ID:
        return b""
    return b"%d" % reply_id if type(reply_id) is int else dump_any(reply_id)


def _request(fields: dict[str, Any], reply_id: bytes) -> Request:
    event = fields.get("event_name", FIRE)
    if type(event) is not str or event not in _FIELDS:
        raise ProtocolError(f"event_name is {_shown(event)}, expected one of {', '.join(_FIELDS)}")
    unknown = fields.keys() - _FIELDS[event] - _COMMON
    if unknown:
        names = ", ".join(sorted(_shown(name) for name in unknown))
        raise ProtocolError(f"unknown field {names} of {event}; expected some of {_list_fields(event)}")
    request = Request(event, reply_id)
    _READERS[event](fields, request)
    return request


def _list_fields(event: str) -> str:
    return ", ".join(sorted(_FIELDS[event] | _COMMON))


def _read_fire(fields: dict[str, Any], request: Request) -> None:
    if "hook_name" not in fields:
        raise ProtocolError("hook_name is missing; a line is such as " + _EXAMPLE)
    request.hook = _text(fields, "hook_name", MAX_NAME)
    data = fields.get("data")
    if data is not None and type(data) is not dict:
        raise ProtocolError(f"data is {_shown(data)}, expected an object: the hook's arguments by name")
    request.data = data or {}
    request.results = _names(fields, "results") if fields.get("results") is not None else None
    request.grab = _flag(fields, "grab_result") or request.results is not None
    request.wait = _flag(fields, "wait_for_task") or request.grab
    if fields.get("key") is not None:
        request.key = _text(fields, "key", MAX_KEY)


def _read_auth(fields: dict[str, Any], request: Request) -> None:
    request.token = _text(fields, "token", MAX_LINE_BEFORE_AUTH)


def _read_task_check(fields: dict[str, Any], request: Request) -> None:
    request.tid = _text(fields, "tid", MAX_NAME)
    request.grab = _flag(fields, "grab_result")


def _read_task_delete(fields: dict[str, Any], request: Request) -> None:
    if "keys" in fields:
        request.keys = _names(fields, "keys")
    if "tid" in fields or "keys" not in fields:
        request.tid = _text(fields, "tid", MAX_NAME)


def _read_nothing(_fields: dict[str, Any], _request: Request) -> None:
    """Read a line that has no fields of its own."""


_READERS = {
    FIRE: _read_fire,
    PING: _read_nothing,
    HELLO: _read_nothing,
    AUTH: _read_auth,
    TASK_CHECK: _read_task_check,
    TASK_DELETE: _read_task_delete,
    STATUS: _read_nothing,
    SHUTDOWN: _read_nothing,
}


def _text(fields: dict[str, Any], name: str, longest: int) -> str:
    value = fields.get(name)
    if type(value) is not str or not 0 < len(value) <= longest:
        raise ProtocolError(f"{name} is {_shown(value)}, expected a string of 1 to {longest} characters")
    return value


def _flag(fields: dict[str, Any], name: str) -> bool:
    value = fields.get(name)
    if value is not None and type(value) is not bool:
        raise ProtocolError(f"{name} is {_shown(value)}, expected true or false")
    return bool(value)


def _names(fields: dict[str, Any], name: str) -> tuple[str, ...]:
    value = fields[name]
    if type(value) is not list or not all(type(item) is str for item in value):
        raise ProtocolError(f"{name} is {_shown(value)}, expected an array of strings")
    return tuple(value)


def _shown(value: Any) -> str:
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "an array"
    text = dump_any(value).decode()
    return text if len(text) <= 60 else f"{text[:57]}..."


# -- replies ------------------------------------------------------------------------------------------------


def reply_line(reply_id: bytes, body: bytes) -> bytes:
    """Return a reply as it is sent.

    Args:
        reply_id: as in :class:`Request`.
        body: a JSON object without ``id``, not empty.
    """
    if reply_id:
        return b'{"id":' + reply_id + b"," + body[1:] + b"\n"
    return body + b"\n"


def accepted_body(tid: str) -> bytes:
    """Return the reply to an accepted event."""
    return b'{"message":"OK","tid":"' + tid.encode() + b'"}'


def running_body(tid: str) -> bytes:
    """Return the reply about an event that has not ended."""
    return b'{"message":"OK","tid":"' + tid.encode() + b'","status":1}'


def ended_body(tid: str, output: bytes | None) -> bytes:
    """Return the reply to an event that ended well; ``output`` is JSON."""
    with_output = b',"output":' + output if output is not None else b""
    return b'{"message":"OK","tid":"' + tid.encode() + b'","status":2' + with_output + b"}"


def error_body(error: BaseException, tid: str = "") -> bytes:
    """Return the reply that tells an error; with ``tid``, of an event that was accepted."""
    fields: dict[str, Any] = {"message": "ERROR"}
    if tid:
        fields |= {"tid": tid, "status": ENDED}
    return dump_any({**fields, "error": describe_error(error)})


def describe_error(error: BaseException) -> dict[str, Any]:
    """Return the ``error`` object of a reply."""
    described: dict[str, Any] = {"type": type(error).__name__, "message": str(error), "traceback": ""}
    if isinstance(error, HookError):
        described["message"] = f"hook {error.hook!r}: " + "; ".join(
            f"{failure.function} ({failure.stage}): {failure.type_name}: {failure.message}"
            for failure in error.failures
        )
        described["traceback"] = "\n".join(failure.traceback for failure in error.failures)
        described["failures"] = [
            {
                "function": failure.function,
                "stage": failure.stage,
                "type": failure.type_name,
                "message": failure.message,
                "traceback": failure.traceback,
            }
            for failure in error.failures
        ]
    return described


def greeting(line_start: bytes) -> str:
    """Tell another protocol by the first bytes that it sends.

    Returns:
        What to say to it, ``""`` if it is none that is known.
    """
    if line_start[:2] == b"\x16\x03":
        return "this port speaks JSON lines without TLS, and this is a TLS hello: connect without TLS"
    if line_start.startswith(_HTTP):
        return "this port speaks JSON lines, not HTTP: send lines such as " + _EXAMPLE
    return ""


_HTTP = (
    b"GET ",
    b"POST ",
    b"HEAD ",
    b"PUT ",
    b"DELETE ",
    b"OPTIONS ",
    b"CONNECT ",
    b"PATCH ",
    b"TRACE ",
    b"PRI * ",
)
