"""What crosses the engine's processes, typed, and its form on the wire.

Messages are named tuples of builtins. A frame is a list of ``(tag, fields)`` pairs, written with
:mod:`marshal`: both ends run the same interpreter, it is several times as fast as pickle for such tuples,
and reading it can run no code, so that the dispatcher holds no way to execute what a worker sent. Values of
users are ``bytes`` in it (:mod:`rigger_mp.encoding`), or beside it: the ``segments`` of a message hold its large
values (:mod:`rigger_mp.engine.descriptors`).

::

    user's process ── Event Series Write Bind Unbind Configure Reload Option Inquire Drain Stop ──▶ dispatcher
    user's process ◀─ Outcome Completed Squashed Log Output Record ── dispatcher
    user's process ◀─ Answer Ready Refused Reloaded ManagerLost Stopped ── dispatcher
    dispatcher     ── Host Job Load Forget ─────────▶ worker, archive
    dispatcher     ◀─ Hosted Done DoneOfSeries Nested Log Output Record Worn ─ worker, archive
    dispatcher     ── Publish Republish ─────────────▶ Manager
"""

# Not from __future__ import annotations: typing compiles each annotation of a named tuple that is a string.
import marshal
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

Group = tuple[bytes, ...]
"""The updates of one stage: one :func:`~rigger_mp.encoding.dump_updates` per function, in their order."""
CommitEntry = tuple[Group, ...]
"""Groups committed to the global namespace at once."""
Segments = tuple[Any, ...]
"""Segments that values of a message are in: objects in a process, ``(id, content or None)`` on the wire."""

OK, FAILED, WORKER_LOST, TIME_LIMIT, ENGINE_LOST, NESTING, NOT_KEPT, QUARANTINED, NOT_STARTED = range(9)
"""Statuses of an :class:`Outcome`."""

NOBODY_WAITS = -2
"""See :class:`Event`."""

CALL_EVENT, CALL_CONFIGURE = range(2)
"""Kinds of a :class:`Job`."""


class FailureRecord(NamedTuple):
    """A failed function, as :class:`rigger_mp.errors.Failure`, the exception pickled or ``b""``."""

    function: str
    stage: str
    type_name: str
    message: str
    traceback: str
    exception: bytes


class Result(NamedTuple):
    """What one function did: encoded updates (``b""``: none), its failure, seconds it ran."""

    local: bytes
    globals: bytes
    failure: tuple[Any, ...] | None
    seconds: float


class Event(NamedTuple):
    """A hook to fire. ``token`` is the sender's; 0 where nobody waits.

    ``since`` is the version of the globals that the sender has and wants to go on from, -1: it does not;
    ``NOBODY_WAITS``: nor does it want the outcome, unless that is a failure.
    """

    token: int
    hook: str
    arguments: bytes
    segments: Segments = ()
    since: int = -1


class Series(NamedTuple):
    """Events of one hook, sent one after another, that nobody waits for: the token and the arguments of each."""

    hook: str
    events: Sequence[tuple[int, bytes]]


class Write(NamedTuple):
    """Assign to the global namespace; with ``clear``, forget every other name."""

    token: int
    updates: bytes
    clear: bool


class Bind(NamedTuple):
    """Bind a callback: ``function`` is its pickle, ``reads`` the parameters that it names."""

    token: int
    hook: str
    stage: str
    name: str
    label: str
    function: bytes
    reads: tuple[str, ...]
    concurrent: bool


class Unbind(NamedTuple):
    """Take a callback away."""

    token: int
    hook: str
    stage: str
    name: str


class Configure(NamedTuple):
    """Call ``configure`` of an instance, wherever it has a copy."""

    token: int
    ident: str
    arguments: bytes


class Reload(NamedTuple):
    """Put another generation in the place of the present one; answered by :class:`Reloaded`.

    ``boot`` is the pickled :class:`~rigger_mp.engine.blueprint.Boot`. ``tolerated`` names the instances that
    need not work; ``strict``: every other has to, even those that did not work before.
    """

    token: int
    boot: bytes
    tolerated: tuple[str, ...]
    strict: bool


class Option(NamedTuple):
    """Set ``squash_exceptions`` for the events that follow."""

    token: int
    squash: bool


class Inquire(NamedTuple):
    """Ask for the dispatcher's statistics."""

    token: int


class Drain(NamedTuple):
    """Tell when nothing accepted is unfinished, background handlers included."""

    token: int


class Stop(NamedTuple):
    """Finish what was accepted, then end."""

    token: int


class Outcome(NamedTuple):
    """How an event ended; ``updates`` are the local updates by stage, ``version`` that of the globals.

    ``news`` is what was committed since the version that the event named, ``None`` if it named none or too old a one.
    """

    token: int
    status: int
    updates: tuple[Group, ...]
    failures: tuple[tuple[Any, ...], ...]
    version: int
    detail: str
    hook: str
    segments: Segments = ()
    news: tuple[CommitEntry, ...] | None = None


class Completed(NamedTuple):
    """Events that ended well and that nobody waits for, by their tokens; ``version`` is that of the globals."""

    tokens: tuple[int, ...]
    version: int


class Squashed(NamedTuple):
    """Failures that no caller gets: squashed ones, and those of background and nested hooks."""

    hook: str
    failures: tuple[tuple[Any, ...], ...]


class Log(NamedTuple):
    """A message for ``Rigger.log_message``."""

    text: str


class Output(NamedTuple):
    """What a hook printed.

    Attributes:
        text: whole lines, but for the last that a function printed.
        stream: ``stdout`` or ``stderr``.
        hook, plugin: the hook and the instance that ran, ``""`` if none did.
        event: the number of its event, 0 of a nested one's.
        pid: the worker process.
    """

    text: str
    stream: str
    hook: str
    plugin: str
    event: int
    pid: int


class Record(NamedTuple):
    """A log record, as the names and plain values of its attributes."""

    fields: tuple[tuple[str, Any], ...]


class Answer(NamedTuple):
    """The statistics, marshalled."""

    token: int
    stats: bytes


class Ready(NamedTuple):
    """Every instance has been tried; ``problems`` names those that could not be initialised."""

    problems: tuple[str, ...]
    hooks: tuple[tuple[str, tuple[str, ...]], ...]


class Reloaded(NamedTuple):
    """A new generation has taken over, or was refused: why. ``kind`` is the exception's name, ``""``: none."""

    token: int
    kind: str
    refusal: str
    problems: tuple[str, ...]
    hooks: tuple[tuple[str, tuple[str, ...]], ...]


class Refused(NamedTuple):
    """The dispatcher cannot start, for a reason that the user can do something about."""

    detail: str


class ManagerLost(NamedTuple):
    """The Manager takes no commits any more; nothing else is missing."""

    version: int


class Stopped(NamedTuple):
    """Everything accepted has ended; nothing follows."""

    version: int


class Job(NamedTuple):
    """Functions for a host to run.

    ``stages`` holds function ids by stage. ``arguments`` and ``updates`` are the event's local namespace.
    ``delta`` is what the host's replica of the globals lacks. ``overlay`` are the event's own uncommitted
    updates of globals. ``pinned`` are chains of globals to be read in place of the replica's.
    ``commit`` says that the host applies the updates of globals to its replica stage by stage.
    ``token`` is that of the event, to be marked as started; 0: it is not marked. ``kept`` is the
    ``(key, attempt)`` of a job that the spool keeps. ``series`` are the tokens and arguments of the events of a series,
    to be run one after another; that at place ``n`` counts as job ``job + n``.
    """

    job: int
    kind: int
    hook: str
    stages: tuple[tuple[str, ...], ...]
    arguments: bytes
    updates: tuple[Group, ...]
    delta: Any
    overlay: tuple[Group, ...]
    pinned: Any
    commit: bool
    squash: bool
    depth: int
    token: int = 0
    segments: Segments = ()
    kept: tuple[int, int] | None = None
    series: tuple[tuple[int, bytes], ...] = ()


class Host(NamedTuple):
    """Instances to make, each an ``(ident, setup, configure calls)``; answered by :class:`Hosted`.

    ``left_out`` are ``(ident, problem)`` of those that are not to be made any more.
    """

    settings: bytes
    instances: tuple[tuple[str, bytes, tuple[bytes, ...]], ...]
    left_out: tuple[tuple[str, str], ...] = ()


class Load(NamedTuple):
    """A callback that jobs may name from now on."""

    function_id: str
    label: str
    stage: str
    function: bytes


class Forget(NamedTuple):
    """A callback that no job will name again."""

    function_id: str


class Done(NamedTuple):
    """The results of a job, by stage."""

    job: int
    results: tuple[tuple[tuple[Any, ...], ...], ...]
    segments: Segments = ()


class DoneOfSeries(NamedTuple):
    """The results of events of a job's series, that at a place and those behind it.

    Each has what :class:`Done` has of an event, but for local updates, which nobody wants.
    """

    job: int
    place: int
    results: Sequence[tuple[tuple[tuple[Any, ...], ...], ...]]


class Nested(NamedTuple):
    """A hook fired from inside a hook."""

    hook: str
    arguments: bytes
    depth: int
    segments: Segments = ()


class Worn(NamedTuple):
    """The process has grown beyond ``max_memory_per_child`` bytes."""

    memory: int


class HostedFunction(NamedTuple):
    """A function that an instance bound to an event."""

    function_id: str
    ident: str
    event: str
    label: str
    reads: tuple[str, ...]
    bg: bool
    concurrent: bool


class Hosted(NamedTuple):
    """What a host could initialise: its functions, and ``(ident, problem)`` of the rest."""

    functions: tuple[tuple[Any, ...], ...]
    problems: tuple[tuple[str, str], ...]


class Publish(NamedTuple):
    """Commits that follow ``version``; versions below ``floor`` will not be read again.

    Each is told with how many versions it makes; more than one, and nobody will read those in between.
    """

    version: int
    entries: tuple[tuple[int, CommitEntry], ...]
    floor: int


class Republish(NamedTuple):
    """The whole global namespace, as of ``version``."""

    version: int
    chains: Any


_CLASSES: dict[str, Any] = {
    cls.__name__: cls
    for cls in (
        Event, Series, Write, Bind, Unbind, Configure, Reload, Option, Inquire, Drain, Stop,
        Outcome, Completed, Squashed, Log, Output, Record, Answer, Ready, Refused, Reloaded, ManagerLost, Stopped,
        Job, Host, Load, Forget, Done, DoneOfSeries, Nested, Worn, Hosted, Publish, Republish,
    )
}  # fmt: skip


def pack(messages: Iterable[Any]) -> bytes:
    """Return the frame of some messages."""
    return marshal.dumps([(type(message).__name__, tuple(message)) for message in messages])


def pack_done_of_series(job: int, place: int, results: Any) -> bytes:
    """Return the frame of one :class:`DoneOfSeries` with the results of one event; it is packed more than any other."""
    return marshal.dumps([("DoneOfSeries", (job, place, (results,)))])


def unpack(frame: bytes | bytearray | memoryview) -> list[Any]:
    """Return the messages of a frame."""
    return [_CLASSES[tag]._make(fields) for tag, fields in marshal.loads(frame)]
