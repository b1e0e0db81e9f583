"""Exceptions on their way: whatever user code makes of them, their text arrives."""

from __future__ import annotations

import pickle

import pytest
from rogue_plugins import Poison, SpeechlessError

from rigger_mp.engine.endings import Ended, exception_of
from rigger_mp.engine.failures import MOST_TEXT, describe_failure, load_failure
from rigger_mp.engine.losses import loss_record
from rigger_mp.engine.messages import FAILED, FailureRecord, Outcome
from rigger_mp.errors import HookError, RemoteTraceback, WorkerLost


class UnspeakableNotesError(Exception):
    """Has notes that cannot be read."""

    @property
    def __notes__(self) -> list[str]:
        raise KeyboardInterrupt


def failed(error: BaseException) -> FailureRecord:
    try:
        raise error
    except BaseException as raised:
        return describe_failure(raised, "plugin.function", "hook")


def test_it_arrives_with_its_cause() -> None:
    failure = load_failure(failed(KeyError("missing")))
    assert isinstance(failure.exception, KeyError)
    assert isinstance(failure.exception.__cause__, RemoteTraceback)
    assert "raise error" in str(failure.exception.__cause__)
    assert (failure.function, failure.stage, failure.type_name) == ("plugin.function", "hook", "KeyError")


@pytest.mark.parametrize(("error", "text"), [(SpeechlessError(), "RuntimeError"), (UnspeakableNotesError("x"), "x")])
def test_one_that_cannot_be_formatted_leaves_its_place(error: BaseException, text: str) -> None:
    record = failed(error)
    assert text in record.message
    assert "raise error" in record.traceback
    assert type(error).__qualname__ in record.traceback


def test_long_texts_are_cut_in_the_middle_and_lone_surrogates_named() -> None:
    record = failed(ValueError("a" * MOST_TEXT + "\ud800" + "z" * MOST_TEXT))
    assert MOST_TEXT < len(record.message) < MOST_TEXT + 100
    assert record.message.startswith("aaa")
    assert record.message.endswith("zzz")
    assert f"... {MOST_TEXT + 6} characters left out ..." in record.message
    assert failed(ValueError("\ud800")).message == "\\ud800"


@pytest.mark.parametrize("exception", [b"", b"no pickle", pickle.dumps(Poison()), pickle.dumps("no exception")])
def test_one_that_cannot_be_loaded_here_is_told_by_its_text(exception: bytes) -> None:
    fields = tuple(failed(ValueError("text"))._replace(exception=exception))
    assert load_failure(fields).exception is None
    told = exception_of("hook", fields)
    assert isinstance(told, HookError)
    assert "ValueError: text" in str(told)


def test_a_loss_is_told_by_its_name() -> None:
    told = exception_of("work", loss_record("work", "WorkerLost", "worker-0 was killed"))
    assert isinstance(told, WorkerLost)
    assert str(told) == "hook 'work': worker-0 was killed"


def test_an_event_that_failed_has_no_values() -> None:
    outcome = Outcome(1, FAILED, (), (tuple(failed(ValueError("text"))),), 0, "", "hook", (), None)
    ended = Ended(outcome, (b"", ()), None, None, None)  # type: ignore[arg-type]
    assert not ended.succeeded
    assert ended.plain_values(None) is None
    assert [type(error) for error in ended.exceptions()] == [ValueError]
    with pytest.raises(HookError, match="ValueError: text"):
        ended.open()
