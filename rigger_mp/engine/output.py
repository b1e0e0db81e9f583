"""What hooks print and log, sent to the user's process with its origin.

::

    print ──▶ sys.stdout, a LineStream ─┐
                                        ├─▶ Origin: hook, plugin, event, pid ──▶ dispatcher ──▶ user's process
    logging ──▶ RecordHandler ──────────┘

Lines travel before the result of the event that printed them. What C code writes to descriptors 1 and 2 goes
where the user's process had them when the engine started; so does what a child of a hook prints.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
import threading
from collections.abc import Callable, Mapping
from typing import Any

from rigger_mp.engine import messages as m
from rigger_mp.plain_text import plain_text

LONGEST_PART = 1 << 16
"""Bytes that travel at once: more is sent in parts, which are whole lines unless these are longer."""
LONGEST_TEXT = 1 << 18
"""Characters of a log record's message or attribute; what is longer is cut."""
_PLAIN = (int, float, bool, type(None))

Send = Callable[[Any], None]


class Origin:
    """Which event, hook and plugin instance this process runs.

    Attributes:
        process_name: ``worker-0``, ``archive``.
        hook, function_id, event: of the function that runs, or ran last.
    """

    def __init__(self, process_name: str) -> None:
        self.process_name = process_name
        self.pid = os.getpid()
        self.hook = ""
        self.function_id = ""
        self.event = 0
        self._thread = threading.get_ident()

    def describe(self) -> tuple[str, str, int, int]:
        """Return hook, plugin instance, event and pid; of a thread that a hook left behind only the pid is known."""
        if threading.get_ident() != self._thread:
            return "", "", 0, self.pid
        return self.hook, self.function_id.partition("\0")[0], self.event, self.pid


class LineStream(io.RawIOBase):
    """Takes bytes and sends whole lines.

    Args:
        name: ``stdout`` or ``stderr``.
        origin: what runs here.
        send: sends a message to the dispatcher.
        original: the stream in whose place it is.
        begun: where it keeps, by stream and thread, what has no end of line yet.
    """

    def __init__(
        self, name: str, origin: Origin, send: Send, original: Any, begun: dict[tuple[str, int], bytes]
    ) -> None:
        super().__init__()
        self._name = name
        self._origin = origin
        self._send = send
        self._original = original
        self._begun = begun

    def writable(self) -> bool:
        """Return true."""
        return True

    def fileno(self) -> int:
        """Return the descriptor of the original stream."""
        return int(self._original.fileno())

    def write(self, data: Any) -> int:
        """Take some bytes."""
        data = bytes(data)
        if os.getpid() != self._origin.pid:
            os.write(self.fileno(), data)  # a child of a hook must not write between the messages of its parent
            return len(data)
        for start in range(0, len(data), LONGEST_PART):
            self._take(data[start : start + LONGEST_PART])
        return len(data)

    def _take(self, data: bytes) -> None:
        key = self._name, threading.get_ident()
        lines, newline, rest = (self._begun.pop(key, b"") + data).rpartition(b"\n")
        if newline:
            self._tell(lines + newline)
        if len(rest) > LONGEST_PART:
            end = _end_of_whole_characters(rest)
            self._tell(rest[:end])
            rest = rest[end:]
        if rest:
            self._begun[key] = rest

    def finish_lines(self) -> None:
        """Send what has no end of line yet, of this thread and of those that have ended."""
        running = {thread.ident for thread in threading.enumerate()} - {threading.get_ident()}
        for name, thread in list(self._begun):
            if name == self._name and thread not in running:
                self._tell(self._begun.pop((name, thread)))

    def _tell(self, data: bytes) -> None:
        self._send(m.Output(data.decode("utf-8", "backslashreplace"), self._name, *self._origin.describe()))


class RecordHandler(logging.Handler):
    """Sends log records, as mappings of plain values."""

    def __init__(self, origin: Origin, send: Send) -> None:
        super().__init__()
        self._origin = origin
        self._send_message = send

    def emit(self, record: logging.LogRecord) -> None:
        """Send a record."""
        if os.getpid() != self._origin.pid:
            return
        try:
            self._send_message(m.Record(tuple(self._fields(record).items())))
        except Exception:  # noqa: BLE001 - as every handler: logging must not fail what it tells of
            self.handleError(record)

    def _fields(self, record: logging.LogRecord) -> dict[str, Any]:
        fields = {
            name: plain_text(value) if isinstance(value, str) else value
            for name, value in record.__dict__.items()
            if isinstance(value, str) or type(value) in _PLAIN
        }
        fields["msg"] = plain_text(record.getMessage())
        if record.exc_info and not record.exc_text:
            fields["exc_text"] = logging.Formatter().formatException(record.exc_info)
        fields["hook"], fields["plugin"], fields["event"], fields["worker_pid"] = self._origin.describe()
        fields["processName"] = self._origin.process_name
        return {name: _shortened(value) for name, value in fields.items()}


class Forwarder:
    """The streams and the handler of one host process.

    Args:
        process_name: see :class:`Origin`.
        send: sends a message to the dispatcher; safe to call from any thread.
    """

    def __init__(self, process_name: str, send: Send) -> None:
        self.origin = Origin(process_name)
        self._send = send
        self._streams: list[LineStream] = []
        self.begun: dict[tuple[str, int], bytes] = {}

    def install(self) -> None:
        """Take the place of ``sys.stdout`` and ``sys.stderr``, and handle log records."""
        for name in ("stdout", "stderr"):
            original = getattr(sys, name)
            if original is not None:
                setattr(sys, name, self._replacement(name, original))
        logging.getLogger().addHandler(RecordHandler(self.origin, self._send))

    def _replacement(self, name: str, original: Any) -> io.TextIOWrapper:
        stream = LineStream(name, self.origin, self._send, original, self.begun)
        self._streams.append(stream)
        buffer: Any = stream
        return io.TextIOWrapper(buffer, encoding="utf-8", errors="backslashreplace", newline="", write_through=True)

    def begin(self, hook: str, event: int) -> None:
        """Note the event that runs from now on, by its hook and number."""
        self.origin.hook, self.origin.event = hook, event

    def forget_lines(self) -> None:
        """Drop, in a child that a hook forked, the lines that its parent has begun."""
        self.begun.clear()

    def finish_lines(self) -> None:
        """Send lines that a function has begun and not ended."""
        for stream in self._streams:
            stream.finish_lines()


def _end_of_whole_characters(data: bytes) -> int:
    """Return where the last, perhaps incomplete, character of some UTF-8 begins."""
    for end in range(len(data) - 1, max(0, len(data) - 4), -1):
        if data[end] & 0xC0 != 0x80:
            return end
    return len(data)


def _shortened(value: Any) -> Any:
    if type(value) is not str or len(value) <= LONGEST_TEXT:
        return value
    return f"{value[:LONGEST_TEXT]}... ({len(value) - LONGEST_TEXT} more characters)"


def log_levels() -> dict[str, int]:
    """Return the levels of this process's loggers by name, ``""`` for the root, where one was set."""
    levels = {"": logging.getLogger().level}
    for name, logger in logging.Logger.manager.loggerDict.items():
        if isinstance(logger, logging.Logger) and logger.level != logging.NOTSET:
            levels[name] = logger.level
    return levels


def set_log_levels(levels: Mapping[str, int]) -> None:
    """Set what :func:`log_levels` returned in another process."""
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


def make_record(fields: tuple[tuple[str, Any], ...]) -> logging.LogRecord:
    """Return the record of another process."""
    return logging.makeLogRecord(dict(fields))


def handle_record(record: logging.LogRecord) -> None:
    """Give a record of another process to the loggers of this one."""
    logger = logging.getLogger(record.name)
    if logger.isEnabledFor(record.levelno):
        logger.handle(record)


def write_output(output: m.Output) -> None:
    """Write what a hook printed to the stream of the same name, if this process has one and somebody reads it."""
    stream = sys.stdout if output.stream == "stdout" else sys.stderr
    if stream is None or stream.closed:
        return
    with contextlib.suppress(BrokenPipeError):
        try:
            stream.write(output.text)
        except UnicodeEncodeError:
            encoding = stream.encoding or "ascii"
            stream.write(output.text.encode(encoding, "backslashreplace").decode(encoding))
        stream.flush()
