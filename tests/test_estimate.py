"""How long functions take, as measured, and what is decided by it."""

from __future__ import annotations

import pytest

from rigger_mp.engine.estimate import Estimates
from rigger_mp.engine.placement import ANY
from rigger_mp.engine.registry import Function
from rigger_mp.engine.slots import saved_by_fan_out

ADD = Function("a.add", "a", "a", ANY, True, (), "", 0)


def upper(*measured: float) -> float:
    estimates = Estimates()
    for seconds in measured:
        estimates.record(ADD.id, seconds)
    estimate = estimates.upper(((ADD,),))
    assert estimate is not None
    return estimate


def test_nothing_is_assumed_of_a_function_that_was_never_called() -> None:
    assert Estimates().upper(((ADD,),)) is None
    assert Estimates().upper(()) == 0


def test_a_slow_first_call_is_forgotten() -> None:
    assert upper(1.0, 0.001) == pytest.approx(upper(0.001))
    assert upper(0.001, 1.0) > 0.1, "a slow second call is none"
    assert upper(1.0, 1.0, 0.001) > 0.1, "nor is a quick third one"


def test_an_estimate_is_hardly_exceeded_and_follows_what_is_measured() -> None:
    assert 0.01 <= upper(*[0.01] * 50) < 0.011
    assert upper(*[0.01, 0.02] * 25) > 0.02
    assert upper(*[1.0] * 10, *[0.01] * 100) < 0.02


def test_a_stage_is_shared_out_only_for_more_than_its_messages_take() -> None:
    assert saved_by_fan_out([0.05] * 4, 2) == pytest.approx(0.1, rel=0.01)
    assert saved_by_fan_out([0.05] * 4, 4) == pytest.approx(0.15, rel=0.01)
    assert saved_by_fan_out([0.5, 0.001], 2) < 0.001
    assert saved_by_fan_out([0.00001] * 200, 2) < 0
