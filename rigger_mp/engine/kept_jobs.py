"""Background jobs as the scheduler and the spool speak of them; neither knows the other."""

# Not from __future__ import annotations: typing compiles each annotation of a named tuple that is a string.
import marshal
from typing import Any, NamedTuple

from rigger_mp.engine.messages import Group, Segments
from rigger_mp.engine.segments import Segment
from rigger_mp.namespace import Chain

_CHECKSUM = 4
_FORMAT = 4
"""The version of :mod:`marshal`'s form, which every supported interpreter reads."""


class DamagedPayloadError(Exception):
    """Raised when the payload of a job is not what was written."""


class Payload(NamedTuple):
    """What a function needs to run: the event's local namespace, and the globals as they were.

    ``segments`` are what large values among the locals are in.
    """

    arguments: bytes
    updates: tuple[Group, ...]
    overlay: tuple[Group, ...]
    pinned: dict[str, Chain] | None
    segments: Segments = ()

    def dump(self) -> bytes:
        """Return it as bytes that need nothing else and can be read by a later engine.

        Raises:
            ValueError: it is too large.
        """
        contents = tuple((segment.id, segment.read()) for segment in self.segments)
        data = marshal.dumps(tuple(self._replace(segments=contents)), _FORMAT)
        return _checksum(data) + data

    @classmethod
    def load(cls, data: bytes) -> "Payload":
        """Return what was dumped.

        Raises:
            DamagedPayloadError: these are other bytes; reading them might crash the interpreter.
        """
        checksum, data = data[:_CHECKSUM], data[_CHECKSUM:]
        if _checksum(data) != checksum:
            raise DamagedPayloadError
        fields: tuple[Any, ...] = marshal.loads(data)
        payload = cls._make(fields)
        return payload._replace(segments=tuple(Segment(id_, content=content) for id_, content in payload.segments))


class NewJob(NamedTuple):
    """A background function that an event hands over."""

    hook: str
    function: str
    label: str
    depth: int
    payload: Payload


class KeptJob(NamedTuple):
    """A job found in the spool. ``attempts``: how often it was started and not finished; ``payload``: dumped."""

    key: int
    hook: str
    function: str
    label: str
    depth: int
    attempts: int
    payload: bytes


class Finished(NamedTuple):
    """A job that need not be kept any longer."""

    key: int


class Interrupted(NamedTuple):
    """A job whose process died while it ran, and that will be run again."""

    key: int


class Died(NamedTuple):
    """A job that will not be run again unless somebody says so.

    ``attempts``: how often it was started; ``traceback``: the remote one, or ``""``.
    """

    key: int
    attempts: int
    reason: str
    traceback: str


Change = Finished | Interrupted | Died


def _checksum(data: bytes) -> bytes:
    import zlib  # noqa: PLC0415 - a library that only a spool needs

    return zlib.crc32(data).to_bytes(_CHECKSUM, "big")
