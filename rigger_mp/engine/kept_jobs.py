"""Background jobs as the scheduler and the spool speak of them; neither knows the other."""

from __future__ import annotations

import marshal
import zlib
from typing import Any, NamedTuple

from rigger_mp.engine.messages import Group
from rigger_mp.namespace import Chain

_CHECKSUM = 4
_FORMAT = 4
"""The version of :mod:`marshal`'s form, which every supported interpreter reads."""


class DamagedPayloadError(Exception):
    """Raised when the payload of a job is not what was written."""


class Payload(NamedTuple):
    """What a function needs to run: the event's local namespace, and the globals as they were."""

    arguments: bytes
    updates: tuple[Group, ...]
    overlay: tuple[Group, ...]
    pinned: dict[str, Chain] | None

    def dump(self) -> bytes:
        """Return it as bytes that hold nothing else and can be read by a later engine."""
        data = marshal.dumps(tuple(self), _FORMAT)
        return zlib.crc32(data).to_bytes(_CHECKSUM, "big") + data

    @classmethod
    def load(cls, data: bytes) -> Payload:
        """Return what was dumped.

        Raises:
            DamagedPayloadError: these are other bytes; reading them might crash the interpreter.
        """
        checksum, data = data[:_CHECKSUM], data[_CHECKSUM:]
        if zlib.crc32(data).to_bytes(_CHECKSUM, "big") != checksum:
            raise DamagedPayloadError
        fields: tuple[Any, ...] = marshal.loads(data)
        return cls._make(fields)


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
