"""The load: draws events, fires them at the engine or through a client, and gathers their outcomes."""

from __future__ import annotations

import contextlib
import random
import time
from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass
from typing import Any

from rigger_mp import Rigger, RiggerClient
from rigger_mp.errors import RiggerError

from . import kinds
from .kinds import Kind
from .ledger import Event, History, Outcome
from .plugins import answer_of, digest_of

MOST_PENDING = 300
"""Events that may be unfinished; then the load waits for the oldest."""
MOST_IN_VOLLEY = 60
"""Events of a kind that are fired one after another, so that they may travel together."""
SMALLEST, LARGEST = 1 << 20, 8 << 20
CLIENT_SHARE = 0.2
BLOCKING_SHARE = 0.005
READ_SHARE = 0.01
OUTCOME_TIME = 60.0
"""Seconds in which an event must have ended that nothing holds up any more."""


@dataclass(frozen=True, slots=True)
class Fired:
    """An event that was fired and has not been looked at since."""

    event: Event
    future: Future[Any]
    arguments: dict[str, Any]


class Load:
    """Fires random events in one thread.

    Args:
        rigger: the engine.
        client: a client of its server.
        history: gets events and outcomes.
        rng: decides everything.

    Attributes:
        ended: how many events ended in each outcome.
        trouble: what went wrong and belongs to no outcome.
        interrupted: set it to end the load between two events.
    """

    def __init__(self, rigger: Rigger, client: RiggerClient, history: History, rng: random.Random) -> None:
        self._rigger = rigger
        self._client = client
        self._history = history
        self._rng = rng
        self._pending: deque[Fired] = deque()
        self._number = 0
        self._kinds = [kind for kind in kinds.ALL if kind.weight]
        self._weights = [kind.weight for kind in self._kinds]
        self.ended: Counter[str] = Counter()
        self.trouble: list[str] = []
        self.interrupted = False

    @property
    def fired(self) -> int:
        """How many events were fired."""
        return self._number

    def run(self, until: float, tick: Callable[[], None]) -> None:
        """Fire events until ``time.monotonic()`` says ``until``."""
        while time.monotonic() < until and not self.interrupted:
            for _ in range(self._burst()):
                kind = self._rng.choices(self._kinds, self._weights)[0]
                for _ in range(self._rng.randint(1, MOST_IN_VOLLEY) if kind.name == "volley" else 1):
                    self._fire(kind)
            if self._rng.random() < READ_SHARE:
                self._read_globals()
            while len(self._pending) > MOST_PENDING or (self._pending and self._pending[0].future.done()):
                self._gather(self._pending.popleft())
            time.sleep(self._rng.choice((0.0, 0.0, 0.001, 0.02)))
            tick()

    def finish(self) -> None:
        """Gather what is still unfinished."""
        end = time.monotonic() + OUTCOME_TIME
        while self._pending:
            self._gather(self._pending.popleft(), max(0.1, end - time.monotonic()))

    def _burst(self) -> int:
        return self._rng.choice((1, 1, 2, 5, 40))

    def _fire(self, kind: Kind) -> None:
        self._number += 1
        by_client = not kind.local and self._rng.random() < CLIENT_SHARE
        event = Event(str(self._number), kind.name, "client" if by_client else "rigger")
        arguments = self._arguments(kind, event)
        self._history.events[event.number] = event
        if not kind.watched:
            self._rigger.fire_hook(event.kind, wait=False, **arguments)
        elif by_client:
            grab = self._rng.choice((["answer", "total"], ["answer", "total", "left"]))
            self._pending.append(Fired(event, self._client.submit(kind.name, grab, **arguments), arguments))
        elif self._rng.random() < BLOCKING_SHARE:
            self._fire_and_wait(event, arguments)
        else:
            self._pending.append(Fired(event, self._rigger.submit(kind.name, **arguments), arguments))

    def _fire_and_wait(self, event: Event, arguments: dict[str, Any]) -> None:
        future: Future[Any] = Future()
        try:
            future.set_result(self._rigger.fire_hook(event.kind, **arguments))
        except RiggerError as error:
            future.set_exception(error)
        self._gather(Fired(event, future, arguments))

    def _arguments(self, kind: Kind, event: Event) -> dict[str, Any]:
        rng = self._rng
        arguments: dict[str, Any] = {"event": event.number}
        match kind.name:
            case "slow" | "spin" | "filed_only":
                arguments["seconds"] = round(rng.uniform(0, 0.02), 4)
            case "nearly":
                arguments["margin"] = round(rng.uniform(-0.02, 0.12), 4)
            case "family":
                arguments["children"] = rng.randint(0, 3)
            case "retried":
                arguments["crashes"] = rng.choice((0, 1, 2, 3))
            case "garbage":
                arguments["which"] = rng.randrange(7)
            case "large":
                arguments["value"] = rng.randbytes(1 << 12) * (rng.randint(SMALLEST, LARGEST) >> 12)
        return arguments

    def _read_globals(self) -> None:
        try:
            left, right = self._rigger.global_data["left"], self._rigger.global_data["right"]
        except RiggerError as error:
            self.trouble.append(f"reading globals raised {type(error).__name__}: {error}")
            return
        if int(left) < 0 or "deep" not in right:
            self.trouble.append(f"globals read as left={left!r}, right={right!r}")

    # -- outcomes ----------------------------------------------------------------------------------------

    def _gather(self, fired: Fired, timeout: float = OUTCOME_TIME) -> None:
        event = fired.event
        try:
            error = fired.future.exception(timeout)
        except FutureTimeoutError:
            self.trouble.append(f"event {event.number} ({event.kind}, via {event.via}) has no outcome")
            return
        outcome = self._failed(error) if error is not None else self._succeeded(fired)
        self.ended[outcome.name] += 1
        self._history.outcomes[event.number].append(outcome)

    def _failed(self, error: BaseException) -> Outcome:
        return Outcome(type(error).__name__, str(error)[:2000], at=time.monotonic())

    def _succeeded(self, fired: Fired) -> Outcome:
        try:
            answers = self._read_answers(fired)
        except Exception as error:
            answers = {"wrong": f"reading it raised {error!r}"}
        return Outcome(kinds.OK, answers=answers, at=time.monotonic())

    def _read_answers(self, fired: Fired) -> dict[str, Any]:
        result, event = fired.future.result(), fired.event
        answers = {}
        if result["answer"] != answer_of(event.number):
            answers["wrong"] = f"answer {result['answer']!r}"
        if event.kind.startswith("count"):
            answers["total"] = result["total"]
        if event.kind == "large":
            value = fired.arguments["value"]
            if result["digest"] != digest_of(value) or result["echo"] != value[::-1]:
                answers["wrong"] = "another value than the one sent"
        if event.kind == "poison":
            with contextlib.suppress(ValueError):
                answers["wrong"] = f"poison was read: {result['poison']!r}"
        if event.kind == "swap" and event.via == "rigger" and "deep" not in result["right"]:
            answers["wrong"] = f"right is {result['right']!r}"
        return answers
