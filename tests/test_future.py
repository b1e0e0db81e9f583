"""The future of an event behaves as those of the standard library do."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, as_completed, wait
from typing import Any

import pytest
from waiting import DEADLINE

from rigger_mp.errors import EngineLost, RiggerError
from rigger_mp.future import HookFuture


class Ends:
    """An ending that opens as a value, or raises."""

    def __init__(self, value: Any) -> None:
        self.value = value
        self.opened = 0

    def open(self) -> Any:
        self.opened += 1
        if isinstance(self.value, RiggerError):
            raise self.value
        return self.value


def in_thread(call: Callable[[], Any]) -> threading.Thread:
    thread = threading.Thread(target=call)
    thread.start()
    return thread


def test_ended_before_anybody_looked() -> None:
    future, ending = HookFuture(), Ends("value")
    future.end(ending)
    called: list[HookFuture] = []
    future.add_done_callback(called.append)
    assert (future.result(), future.exception(), future.done(), future.running()) == ("value", None, True, False)
    assert called == [future]
    assert ending.opened == 1
    assert not future.cancel()


def test_looked_at_before_it_ends() -> None:
    future = HookFuture()
    assert (future.done(), future.running(), future.cancel(), future.cancelled()) == (False, True, False, False)
    with pytest.raises(TimeoutError):
        future.result(timeout=0)
    called: list[HookFuture] = []
    future.add_done_callback(called.append)
    future.end(Ends(EngineLost("gone")))
    assert called == [future]
    with pytest.raises(EngineLost, match="gone"):
        future.result()
    assert isinstance(future.exception(), EngineLost)


def test_whoever_waits_is_woken_whenever_it_ends() -> None:
    for _ in range(300):
        future = HookFuture()
        seen: list[Any] = []
        waiter = in_thread(lambda future=future, seen=seen: seen.append(future.result(DEADLINE)))  # type: ignore[misc]
        future.end(Ends("value"))
        waiter.join(DEADLINE)
        assert seen == ["value"]


def test_wait_and_as_completed_while_others_end() -> None:
    for _ in range(50):
        futures = [HookFuture() for _ in range(40)]
        ender = in_thread(lambda futures=futures: [future.end(Ends(1)) for future in futures])  # type: ignore[misc]
        done, _ = wait(futures, DEADLINE, return_when=FIRST_COMPLETED)
        assert done
        assert set(as_completed(futures, DEADLINE)) == set(futures)
        ender.join(DEADLINE)
