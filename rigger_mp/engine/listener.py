"""Whom the engine tells what no caller gets, and how: user code that must not stop the results thread."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from logging import LogRecord
from typing import Any

from rigger_mp.engine import messages as m
from rigger_mp.engine.endings import exception_of
from rigger_mp.engine.output import make_record


@dataclass(frozen=True, slots=True)
class Listener:
    """See the module.

    Attributes:
        failed: gets the exception of a squashed failure, or of an event that nobody waits for.
        logged: gets messages.
        printed: gets what hooks printed.
        recorded: gets the log records of hooks.
    """

    failed: Callable[[BaseException], None]
    logged: Callable[[str], None]
    printed: Callable[[m.Output], None]
    recorded: Callable[[LogRecord], None]

    def hear(self, message: m.Squashed | m.Log | m.Output | m.Record) -> None:
        """Pass on a message of the dispatcher."""
        match message:
            case m.Squashed():
                for fields in message.failures:
                    guard(self.failed, exception_of(message.hook, fields))
            case m.Log():
                guard(self.logged, message.text)
            case m.Output():
                guard(self.printed, message)
            case m.Record():
                guard(self.recorded, make_record(message.fields))


def guard(call: Callable[[Any], None], argument: Any) -> None:
    """Call user code that must not stop the thread; what it raises is reported, as an exception of a thread is."""
    try:
        call(argument)
    except BaseException as error:  # see above
        thread = threading.current_thread()
        if thread is threading.main_thread():
            raise  # a caller that reads its own outcome, and a Ctrl-C meant for it
        threading.excepthook(threading.ExceptHookArgs((type(error), error, error.__traceback__, thread)))
