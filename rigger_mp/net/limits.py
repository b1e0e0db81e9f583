"""The limits of the server, one table: :class:`Limits`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

PREFIX = "server_"
"""A limit's configuration key is its name after this."""


@dataclass(frozen=True)
class Limits:
    """What the server bounds; each is a configuration key: ``server_`` and the name.

    Attributes:
        max_line: bytes of a line.
        max_nesting: how deep a line's objects and arrays may contain each other.
        max_connections: connections at once; more are told so and closed.
        auth_timeout: seconds that a connection may stay unauthenticated, where a token is asked for, or be
            without a first byte on a TLS port.
        idle_timeout: seconds without a complete line, and without an event under way, until a connection
            is closed.
        max_in_flight: events of one connection that have not ended; at that many, its lines wait.
        max_reply_bytes: bytes of replies that wait for one connection to read them; at that many, its
            further replies and lines wait. One reply that is larger becomes an error.
        write_timeout: seconds for a connection to read what waits for it, then it is dropped.
        results: ended events whose results clients may still ask for.
        results_time: seconds that they may.
        idempotency_time: seconds that a ``key`` is remembered.
        idempotency_keys: keys remembered; at that many, further events with keys are refused.
        kept_bytes: bytes of arguments and replies that results and keys may hold, each; the oldest go first.
    """

    max_line: int = 1_048_576
    max_nesting: int = 64
    max_connections: int = 1024
    auth_timeout: float = 2.0
    idle_timeout: float = 300.0
    max_in_flight: int = 10_000
    max_reply_bytes: int = 4_194_304
    write_timeout: float = 10.0
    results: int = 1000
    results_time: float = 120.0
    idempotency_time: float = 120.0
    idempotency_keys: int = 100_000
    kept_bytes: int = 67_108_864

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Return the limits that a configuration sets, the others at their defaults.

        Args:
            config: a configuration that has been checked.
        """
        set_there = {
            field.name: config[PREFIX + field.name]
            for field in dataclasses.fields(cls)
            if config.get(PREFIX + field.name) is not None
        }
        return cls(**set_there)
