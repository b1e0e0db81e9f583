"""How a service writes what it has to say: text for people, or one JSON object a line for programs.

Each object has ``time`` (ISO 8601, UTC), ``level``, ``source`` (``rigger``, ``stdout``, ``stderr``, or a logger's name)
and ``message``; of what comes from a hook also ``hook``, ``plugin``, ``event`` and ``worker_pid``.
"""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any

from rigger_mp.engine.messages import Output

FORMATS = ("text", "json")
LEVELS = ("debug", "info", "warning", "error", "critical")
TEXT_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_ORIGIN = ("hook", "plugin", "event", "worker_pid")


def line_of_message(message: str) -> str:
    """Return the line for something that the service itself says."""
    return _line(datetime.now(UTC), "info", "rigger", message, {})


def lines_of_output(output: Output) -> list[str]:
    """Return a line for each line that a hook printed."""
    origin = {"hook": output.hook, "plugin": output.plugin, "event": output.event, "worker_pid": output.pid}
    now = datetime.now(UTC)
    return [_line(now, "info", output.stream, text, origin) for text in output.text.splitlines()]


class JsonFormatter(logging.Formatter):
    """Formats log records as JSON lines."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a record, its traceback in ``message``."""
        text = record.getMessage()
        if record.exc_info and not record.exc_text:
            record.exc_text = self.formatException(record.exc_info)
        if record.exc_text:
            text = f"{text}\n{record.exc_text}"
        origin = {name: value for name in _ORIGIN if (value := getattr(record, name, None)) is not None}
        moment = datetime.fromtimestamp(record.created, UTC)
        return _line(moment, record.levelname.lower(), record.name, text, origin)


def _line(moment: datetime, level: str, source: str, message: str, origin: dict[str, Any]) -> str:
    fields = {"time": moment.isoformat(timespec="milliseconds"), "level": level, "source": source}
    return json.dumps({**fields, "message": message, **origin})


def handle_records(log_format: str, level: str) -> None:
    """Write log records to standard error, unless the configuration has said where they go."""
    root = logging.getLogger()
    if not root.handlers:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(JsonFormatter() if log_format == "json" else logging.Formatter(TEXT_FORMAT))
        root.addHandler(handler)
        root.setLevel(level.upper())
