"""Exceptions on their way from the process where they were raised to the one where they are read."""

from __future__ import annotations

import pickle
import traceback
from pathlib import Path
from types import TracebackType

from rigger_mp.encoding import dump_value
from rigger_mp.engine.messages import FailureRecord
from rigger_mp.errors import Failure, RemoteTraceback
from rigger_mp.plain_text import plain_text

_ENGINE = (Path(__file__).parent, Path(__file__).parent.parent)
MOST_TEXT = 1 << 16
"""Characters of a traceback or message that travel."""


def describe_failure(error: BaseException, function: str, stage: str) -> FailureRecord:
    """Describe an exception that user code raised, its traceback without the engine's own frames."""
    return FailureRecord(
        function,
        stage,
        plain_text(type(error).__qualname__),
        _clip(_message(error)),
        _clip(_format(error)),
        _dump_exception(error),
    )


def _message(error: BaseException) -> str:
    try:
        return plain_text(error)
    except BaseException as broken:  # noqa: BLE001 - __str__ is the user's code
        return f"<str() of it raised {type(broken).__name__}>"


def _format(error: BaseException) -> str:
    user_frames = _user_frames(error.__traceback__)
    try:
        return "".join(traceback.format_exception(type(error), error, user_frames))
    except BaseException:  # noqa: BLE001 - __str__ and __repr__ are the user's code
        lines = traceback.format_tb(user_frames)
        return "Traceback (most recent call last):\n" + "".join(lines) + type(error).__qualname__


def _user_frames(frames: TracebackType | None) -> TracebackType | None:
    """Leave out the engine's own frames, which come first."""
    while frames is not None and Path(frames.tb_frame.f_code.co_filename).parent in _ENGINE:
        frames = frames.tb_next
    return frames


def _dump_exception(error: BaseException) -> bytes:
    try:
        data = dump_value(error)
        pickle.loads(data)
    except BaseException:  # noqa: BLE001 - many exceptions do not survive pickling; their text does
        return b""
    return data


def _clip(text: str) -> str:
    # Lone surrogates would be refused where the text is printed or sent on.
    text = text.encode("utf-8", "backslashreplace").decode()
    if len(text) <= MOST_TEXT:
        return text
    half = MOST_TEXT // 2
    return f"{text[:half]}\n... {len(text) - MOST_TEXT} characters left out ...\n{text[-half:]}"


def load_failure(fields: tuple[object, ...]) -> Failure:
    """Return a failure with its exception, whose cause is the remote traceback."""
    record = FailureRecord._make(fields)
    exception = _load_exception(record)
    return Failure(*record[:5], exception)


def _load_exception(record: FailureRecord) -> BaseException | None:
    if not record.exception:
        return None
    try:
        exception = pickle.loads(record.exception)
    except BaseException:  # noqa: BLE001 - it could be loaded where it was raised, and cannot be here
        return None
    if not isinstance(exception, BaseException):
        return None
    exception.__cause__ = RemoteTraceback(record.traceback)
    return exception
