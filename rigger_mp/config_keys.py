"""The configuration keys: one table for validation, defaults, hints and the JSON Schema."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, Literal

from rigger_mp.net.limits import PREFIX, Limits

KeyType = Literal["boolean", "integer", "number", "string", "object", "array"]

MOST_SECONDS = 1e9
"""The longest time (32 years): clocks and waits of the operating system overflow not far above."""


@dataclass(frozen=True, slots=True)
class Key:
    """One key and what may stand behind it.

    Attributes:
        name: the key.
        types: JSON Schema types of its value.
        help: one line: meaning and unit.
        default: its value if it is absent.
        minimum: the least number.
        above: the number that it must exceed.
        maximum: the greatest number.
        choices: the only values.
        nullable: null may stand for "none".
        required: it must be there.
        keys: of an object, its own keys.
        values: of an object whose keys are names, the keys of each value.
    """

    name: str
    types: tuple[KeyType, ...]
    help: str
    default: Any = None
    minimum: float | None = None
    above: float | None = None
    maximum: float | None = None
    choices: tuple[Any, ...] = ()
    nullable: bool = False
    required: bool = False
    keys: tuple[Key, ...] = ()
    values: tuple[Key, ...] = ()


def usable_cpus() -> int:
    """Return how many CPUs this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _limit(
    name: str, text: str, *, minimum: float | None = None, above: float | None = None, maximum: float | None = None
) -> Key:
    default = getattr(Limits, name)
    types: tuple[KeyType, ...] = ("integer",) if isinstance(default, int) else ("number",)
    if types == ("number",):
        maximum = MOST_SECONDS
    return Key(PREFIX + name, types, text, default, minimum, above, maximum)


TIME_LIMIT = Key(
    "time_limit",
    ("number",),
    "seconds a function may run before its process is killed",
    above=0,
    maximum=MOST_SECONDS,
    nullable=True,
)
MAX_RETRIES = Key(
    "max_retries",
    ("integer",),
    "how often an event is run again whose process died; then it is quarantined",
    default=0,
    minimum=0,
)

INSTANCE_KEYS = (
    Key("enabled", ("boolean",), "whether the instance is made", default=True),
    Key("plugin", ("string",), "name, package.module:Class, entry point, or file in plugin_path", required=True),
    Key("background", ("boolean",), "run it in the archive process, nobody waits for it", default=False),
    Key("dedicated", ("boolean",), "give it a worker process of its own", default=False),
    Key("stateless", ("boolean",), "any worker may run it (default: what the plugin class says)", nullable=True),
    TIME_LIMIT,
    MAX_RETRIES,
)

HOOK_KEYS = (
    Key("concurrent", ("boolean",), "whether events of this hook may overlap with others", nullable=True),
    TIME_LIMIT,
    MAX_RETRIES,
)

ARCHIVE_KEYS = (
    Key(
        "spool",
        ("string",),
        "file that keeps background jobs until they are done, also if everything is killed"
        ", relative to the configuration's directory",
        nullable=True,
    ),
    Key(
        "max_retries",
        ("integer",),
        "how often a background job is run again that was running when its process was "
        "killed; then it is a dead letter (default: the engine's max_retries)",
        minimum=0,
    ),
    Key(
        "synchronous",
        ("string",),
        "full: what the spool keeps survives a power failure, too; each write waits for the disk",
        "normal",
        choices=("normal", "full"),
    ),
)

SERVER_KEYS = (
    Key("server_insecure", ("boolean",), "let other machines connect without TLS and token", default=False),
    Key("server_token_file", ("string",), "file that holds the token clients must send", nullable=True),
    Key("server_token_env", ("string",), "variable that holds the token (RIGGER_MP_TOKEN)", nullable=True),
    Key("server_tls_cert", ("string",), "PEM file of the server's certificate", nullable=True),
    Key("server_tls_key", ("string",), "PEM file of its key (default: in the certificate's file)", nullable=True),
    Key("server_tls_client_ca", ("string",), "PEM file; clients need a certificate signed by it", nullable=True),
    Key("server_store", ("string",), "file that keeps accepted events and their keys over a kill", nullable=True),
    _limit("max_line", "bytes of a line that a client sends", minimum=256),
    _limit("max_nesting", "how deep its objects and arrays may contain each other", minimum=2, maximum=500),
    _limit("max_connections", "connections at once", minimum=1),
    _limit("auth_timeout", "seconds that a connection may stay unauthenticated", above=0),
    _limit("idle_timeout", "seconds without a line until a connection is closed", above=0),
    _limit("max_in_flight", "events of one connection that have not ended; then its lines wait", minimum=1),
    _limit("max_reply_bytes", "bytes of one reply, and of those one connection has not read", minimum=65_536),
    _limit("write_timeout", "seconds for a connection to read its replies until it is dropped", above=0),
    _limit("results", "ended events whose results clients may ask for", minimum=0),
    _limit("results_time", "seconds that they may", above=0),
    _limit("idempotency_time", "seconds that an idempotency key is remembered", above=0),
    _limit("idempotency_keys", "keys remembered; then events with further ones are refused", minimum=1),
    _limit("kept_bytes", "bytes that kept results, and replies of keys, may hold, each", minimum=0),
)

INPUT_KEYS = (
    Key("hook", ("string",), "the hook that rigger-mp run fires for each file", nullable=True),
    Key("events", ("string",), "file of JSON lines, one event each; - is standard input", nullable=True),
    Key(
        "files",
        ("object",),
        "one event for each file that matches",
        nullable=True,
        keys=(
            Key("root", ("string",), "directory; {stdlib} stands for the standard library's", ".", nullable=True),
            Key("pattern", ("string",), "glob pattern relative to root, such as **/*.py", nullable=True),
            Key("argument", ("string",), "the name by which the hook gets the path", "path", nullable=True),
            Key("exclude", ("string", "array"), "patterns of files to leave out", nullable=True),
        ),
    ),
)

KEYS = (
    Key("squash_exceptions", ("boolean",), "a failing function does not end its event", default=False),
    Key("threaded", ("boolean",), "run the functions of one stage in parallel", default=True),
    Key("server_address", ("string",), "address the TCP server binds to", default="127.0.0.1"),
    Key("server_port", ("integer",), "port of the TCP server; 0: any free one", 21212, minimum=0, maximum=65535),
    Key("server_enabled", ("boolean",), "start the TCP server", default=False),
    *SERVER_KEYS,
    Key("plugins", ("object",), "plugin instances by ident", nullable=True, values=INSTANCE_KEYS),
    Key("workers", ("integer",), "worker processes (default: the usable CPUs)", minimum=1, maximum=4096, nullable=True),
    Key("queue_size", ("integer",), "events that may be pending; then firing waits", default=10_000, minimum=1),
    Key("list_merge", ("string",), "what a list update does to a list", "extend", choices=("extend", "replace")),
    Key(
        "graceful_timeout",
        ("number",),
        "seconds that stopping may take before processes are killed",
        default=25.0,
        minimum=0,
        maximum=MOST_SECONDS,
    ),
    TIME_LIMIT,
    MAX_RETRIES,
    Key(
        "retry_delay",
        ("number",),
        "seconds, at most, until the first retry; the next waits up to twice as long, and so on up to 50 times",
        default=0.1,
        minimum=0,
        maximum=1e6,
    ),
    Key(
        "max_tasks_per_child",
        ("integer",),
        "jobs a worker runs before it is replaced",
        minimum=1,
        nullable=True,
    ),
    Key("max_memory_per_child", ("integer",), "bytes a worker may use before it is replaced", minimum=1, nullable=True),
    Key("max_restarts", ("integer",), "starts of a worker that may fail within restart_period", default=5, minimum=0),
    Key("restart_period", ("number",), "seconds that max_restarts refers to", 60.0, above=0, maximum=MOST_SECONDS),
    Key("max_nesting", ("integer",), "how deep hooks may fire hooks", default=1000, minimum=1),
    Key("max_output", ("integer",), "bytes that hooks print or log and that may wait to be shown", 8 << 20, minimum=0),
    Key("logging", ("object",), "log records: what logging.config.dictConfig takes", nullable=True),
    Key("archive", ("object",), "the archive process", nullable=True, keys=ARCHIVE_KEYS),
    Key("hooks", ("object",), "options by hook", nullable=True, values=HOOK_KEYS),
    Key("inputs", ("object",), "what rigger-mp run fires", nullable=True, keys=INPUT_KEYS),
    Key("plugin_path", ("string", "array"), "directories with plugin files", nullable=True),
    Key("strict", ("boolean",), "refuse to start if any instance cannot be made", default=False),
)
