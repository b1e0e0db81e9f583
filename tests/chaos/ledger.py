"""The check: what was fired, what came of it, what the ledger says, what was killed → violations. Pure.

::

    events ─┐
    outcomes ├─▶ History ─▶ check ─▶ ["event 12 (plain): ...", ...]
    runs     │
    kills   ─┘

A run is a line that a function wrote when it began. What a function updated is in the globals once its event
has succeeded. A kill, or a crash of the event's own making, allows exactly one loss.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from .kinds import BY_NAME, ENGINE_LOST, OK, QUARANTINED, TIME_LIMIT, WORKER_LOST, Kind

DEATHS = (WORKER_LOST, QUARANTINED, TIME_LIMIT)
LOSSES = (*DEATHS, ENGINE_LOST)
UNKNOWN = "ConnectionLostError"
"""The outcome of a client's event of which nobody knows whether the server has accepted it."""
_DEATH = re.compile(r"\(pid (\d+)\)")
_COUNTED = re.compile(r"(\d+) (nested event|background handler)")
MOST_CHILDREN = 3
"""Events that one hook fires."""
_HOOK = re.compile(r"hook '(\w+)'")


@dataclass(frozen=True, slots=True)
class Event:
    """An event that was fired; ``via`` is ``"rigger"``, ``"client"`` or ``"hook"``."""

    number: str
    kind: str
    via: str = "rigger"


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an event ended: ``"ok"`` or an exception's name, its text, what the event answered, and when."""

    name: str
    detail: str = ""
    answers: Mapping[str, Any] = field(default_factory=dict)
    at: float = 0.0


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a function for an event, in one process."""

    event: str
    function: str
    pid: int


@dataclass(frozen=True, slots=True)
class Kill:
    """A signal that was sent to a process of the engine."""

    pid: int
    role: str
    signal: str
    at: float = 0.0


@dataclass(slots=True)
class History:
    """Everything that is known at the end.

    Attributes:
        events: by number, in the order fired.
        outcomes: by the event's number.
        runs: those of each process in their order.
        fired: numbers of the events that hooks have fired: a line in the ledger says that the call returned.
        reports: losses and failures of what nobody waited for.
        globals: the global namespace at the end.
    """

    events: dict[str, Event] = field(default_factory=dict)
    outcomes: dict[str, list[Outcome]] = field(default_factory=lambda: defaultdict(list))
    runs: list[Run] = field(default_factory=list)
    fired: set[str] = field(default_factory=set)
    kills: list[Kill] = field(default_factory=list)
    reports: list[Outcome] = field(default_factory=list)
    globals: Mapping[str, Any] = field(default_factory=dict)

    def kind(self, number: str) -> Kind:
        """Return the kind of an event, of one that a hook fired as well."""
        event = self.events.get(number)
        return BY_NAME[event.kind if event is not None else "child"]

    def killed(self, role: str) -> bool:
        """Tell whether a process of that role was killed."""
        return any(kill.role == role and kill.signal == "SIGKILL" for kill in self.kills)


def read_ledger(history: History, files: Mapping[int, Iterable[str]]) -> None:
    """Add the lines of the ledger, by process id, to a history."""
    for pid, lines in files.items():
        for line in lines:
            word, *fields = line.split()
            if word == "run":
                history.runs.append(Run(fields[0], fields[1], pid))
            elif word == "fired":
                history.fired.add(fields[0])


def timeline(history: History) -> list[str]:
    """Return what was killed and what was lost, by ``time.monotonic()``, for a look at what went wrong."""
    lines = [(kill.at, f"{kill.signal} {kill.role} {kill.pid}") for kill in history.kills]
    lines += [(report.at, f"reported {report.name}: {report.detail}") for report in history.reports]
    for event, _, outcome in _watched(history):
        lines.append((outcome.at, f"seen: {_name(event)} ended in {outcome.name}: {outcome.detail}"))
    return [f"{at:.4f} {text}" for at, text in sorted(lines)]


def check(history: History) -> list[str]:
    """Return every violation of a promise, as text."""
    checks = (
        _check_one_outcome, _check_natural_ends, _check_answers, _check_runs, _check_blame, _check_updates,
        _check_unwatched, _check_order, _check_total,
    )  # fmt: skip
    return [violation for one in checks for violation in one(history)]


def _watched(history: History) -> Iterator[tuple[Event, Kind, Outcome]]:
    for number, event in history.events.items():
        if BY_NAME[event.kind].watched and history.outcomes.get(number):
            yield event, BY_NAME[event.kind], history.outcomes[number][0]


def _name(event: Event) -> str:
    return f"event {event.number} ({event.kind}, via {event.via})"


# -- outcomes --------------------------------------------------------------------------------------------


def _check_one_outcome(history: History) -> Iterator[str]:
    for number, event in history.events.items():
        count = len(history.outcomes.get(number, ()))
        if BY_NAME[event.kind].watched and count != 1:
            yield f"{_name(event)} has {count} outcomes, expected 1"
    for number in history.outcomes.keys() - history.events.keys():
        yield f"event {number} has an outcome and was never fired"


def _check_natural_ends(history: History) -> Iterator[str]:
    allowed = {ENGINE_LOST} if history.killed("dispatcher") else set()
    for event, kind, outcome in _watched(history):
        natural = {*kind.ends, WORKER_LOST, *allowed, *((UNKNOWN,) if event.via == "client" else ())}
        if outcome.name not in natural:
            yield f"{_name(event)} ended in {outcome.name}: {outcome.detail}"


def _check_answers(history: History) -> Iterator[str]:
    for event, _, outcome in _watched(history):
        wrong = outcome.answers.get("wrong")
        if wrong:
            yield f"{_name(event)} was answered wrongly: {wrong}"


# -- runs ------------------------------------------------------------------------------------------------


def _check_runs(history: History) -> Iterator[str]:
    runs = Counter((run.event, run.function) for run in history.runs)
    for (number, function), count in runs.items():
        kind = history.kind(number)
        if number not in history.events and "." not in number:
            yield f"event {number} ran {function} and was never fired"
        elif count > 1 + kind.retries:
            yield f"event {number} ({kind.name}) ran {function} {count} times, allowed are {1 + kind.retries}"
    for event, kind, outcome in _watched(history):
        for function in kind.functions if outcome.name == OK else ():
            if not runs[event.number, function]:
                yield f"{_name(event)} succeeded, but {function} never ran"


# -- blame -----------------------------------------------------------------------------------------------


def _check_blame(history: History) -> Iterator[str]:
    """A loss names a process that died, and every kill is blamed on one event at most."""
    kills = Counter(kill.pid for kill in history.kills if kill.signal == "SIGKILL")
    stopped = {kill.pid for kill in history.kills if kill.signal == "SIGSTOP"}
    ran_in = defaultdict(set)
    for run in history.runs:
        if run.function in history.kind(run.event).functions:
            ran_in[run.event].add(run.pid)
    for title, number, kind, outcome in _losses(history):
        pid = _dead_pid(outcome)
        if pid is None:
            yield f"{title} ended in {outcome.name} that names no process: {outcome.detail}"
            continue
        if outcome.name == TIME_LIMIT and not (kind and kind.limited):
            yield f"{title} has no time limit: {outcome.detail}"
        if kind and (kind.crashes or kind.limited) and pid in ran_in[number]:
            continue
        # Its time goes on while its process stands still, be it before the line in the ledger.
        if kind and kind.limited and outcome.name == TIME_LIMIT and pid in stopped and not ran_in[number]:
            continue
        kills[pid] -= 1
        if kills[pid] < 0:
            yield f"{title} is blamed for a death of pid {pid} that is not its own: {outcome.detail}"
        if kind and len(kind.functions) == 1 and not kind.retries and ran_in[number] - {pid}:
            yield f"{title} ran in {sorted(ran_in[number])}, and is blamed on pid {pid}: {outcome.detail}"


def _losses(history: History) -> Iterator[tuple[str, str, Kind | None, Outcome]]:
    for event, kind, outcome in _watched(history):
        if outcome.name in DEATHS:
            yield _name(event), event.number, kind, outcome
    for report in history.reports:
        if report.name in DEATHS:
            yield f"a {_hook_of(report)!r} that nobody waited for", "", None, report


def _dead_pid(outcome: Outcome) -> int | None:
    found = _DEATH.findall(outcome.detail)
    return int(found[0]) if found else None


def _hook_of(report: Outcome) -> str:
    found = _HOOK.search(report.detail)
    return found.group(1) if found else ""


# -- updates of globals ----------------------------------------------------------------------------------


def _committed(history: History) -> dict[str, Mapping[str, Any]]:
    chaos: dict[str, Mapping[str, Any]] = dict(history.globals.get("chaos", {}))
    return chaos


def _check_updates(history: History) -> Iterator[str]:
    """The globals are the fold of the updates of successful events."""
    committed = _committed(history)
    for function, updates in committed.items():
        keys, order = Counter(dict.fromkeys(updates["keys"], 1)), Counter(updates["order"])
        for number in (order - keys) + (keys - order):
            yield f"event {number}: {function} is in the globals {keys[number]} and {order[number]} times, expected 1"
    for event, kind, outcome in _watched(history):
        for function in kind.functions:
            present = event.number in committed.get(function, {}).get("keys", ())
            if present != _expected(kind, function, outcome, present):
                state = "in" if present else "missing from"
                yield f"{_name(event)} ended in {outcome.name}, and the update of {function} is {state} the globals"
    for function, updates in committed.items():
        ran = {run.event for run in history.runs if run.function == function}
        for number in updates["keys"].keys() - ran:
            yield f"event {number}: the globals have an update of {function}, which never ran"


def _expected(kind: Kind, function: str, outcome: Outcome, present: bool) -> bool:
    if outcome.name == OK:
        return True
    if outcome.name in (UNKNOWN, ENGINE_LOST):
        return present
    if function in kind.earlier and kind.ordered:
        return present  # a stage that was finished before counts
    return False


@dataclass(slots=True)
class _Balance:
    """What ran unwatched for one hook: what is missing from the globals must have been reported lost.

    Attributes:
        missing: ``(event, function)`` of what is missing.
        reported: how many losses were reported of the hook.
        possible: how many more may be reported: nobody knows whether they were ever begun.
    """

    hook: str
    missing: list[tuple[str, str]]
    reported: int
    possible: int = 0

    @property
    def silent(self) -> int:
        """How many losses were not reported of the hook."""
        return max(0, len(self.missing) - self.reported)


def _check_unwatched(history: History) -> Iterator[str]:
    """What nobody waited for has either updated the globals, or was reported lost."""
    nested = [_children(history)]
    background = [*_background(history), _fired_and_forgotten(history, "filed_only")]
    alone = [_fired_and_forgotten(history, "forgotten"), _fired_and_forgotten(history, "volley")]
    counted = _counted_losses(history)
    for balances, pool in ((nested, counted["nested event"]), (background, counted["background handler"]), (alone, 0)):
        silent = sum(balance.silent for balance in balances)
        if silent > pool:
            missing = [entry for balance in balances for entry in balance.missing]
            hooks = ", ".join(repr(balance.hook) for balance in balances)
            yield (
                f"{len(missing)} of what {hooks} ran unwatched is missing from the globals, and "
                f"{len(missing) - silent + pool} losses were reported; missing are {missing[:5]}"
            )
        for balance in balances:
            if balance.reported > len(balance.missing) + balance.possible:
                yield (
                    f"{balance.reported} losses of what {balance.hook!r} ran unwatched were reported, "
                    f"{len(balance.missing)} is missing: {balance.missing[:5]}"
                )
    for report in history.reports:
        if report.name not in LOSSES or (report.name == ENGINE_LOST and not history.killed("dispatcher")):
            yield f"an unwatched {_hook_of(report)!r} ended in {report.name}: {report.detail}"


def _counted_losses(history: History) -> Counter[str]:
    """Return how many losses were only counted, because a dispatcher died with their names."""
    counted: Counter[str] = Counter()
    for report in history.reports:
        if report.name == ENGINE_LOST:
            for number, what in _COUNTED.findall(report.detail):
                counted[what] += int(number)
    return counted


def _fired_and_forgotten(history: History, kind: str) -> _Balance:
    numbers = {event.number for event in history.events.values() if event.kind == kind}
    # A dispatcher may die after the last update and before it could tell that the event has ended.
    untold = sum(1 for report in history.reports if report.name == ENGINE_LOST and _hook_of(report) == kind)
    return _Balance(kind, _missing(history, kind, numbers), _reported(history, kind), untold)


def _children(history: History) -> _Balance:
    """Return the balance of nested events; those that a lost event fired last may not be in the ledger."""
    numbers = history.fired | {run.event for run in history.runs if run.function == "child"}
    lost = [event for event, kind, outcome in _watched(history) if kind.name == "family" and outcome.name != OK]
    reported = _reported(history, "child")
    return _Balance("child", _missing(history, "child", numbers), reported, MOST_CHILDREN * (len(lost) + reported))


def _background(history: History) -> Iterator[_Balance]:
    for kind in BY_NAME.values():
        if kind.background:
            ended = [(event.number, outcome.name) for event, of, outcome in _watched(history) if of is kind]
            certain = {number for number, name in ended if name == OK}
            missing = [entry for function in kind.background for entry in _missing(history, function, certain)]
            possible = len(kind.background) * (len(ended) - len(certain))
            yield _Balance(kind.name, missing, _reported(history, kind.name), possible)


def _missing(history: History, function: str, numbers: set[str]) -> list[tuple[str, str]]:
    committed = set(_committed(history).get(function, {}).get("keys", ()))
    return [(number, function) for number in sorted(numbers - committed)]


def _reported(history: History, hook: str) -> int:
    return sum(1 for report in history.reports if _hook_of(report) == hook)


# -- order -----------------------------------------------------------------------------------------------


def _check_order(history: History) -> Iterator[str]:
    """Ordered events commit, and stateful instances run, in the order fired."""
    for function, updates in _committed(history).items():
        kinds = [kind for kind in BY_NAME.values() if kind.ordered and function in kind.functions]
        if kinds:
            yield from _check_rising(history, updates["order"], f"{function} committed")
    stateful = {function for kind in BY_NAME.values() for function in kind.stateful}
    by_process: dict[tuple[int, str], list[str]] = defaultdict(list)
    for run in history.runs:
        if run.function in stateful:
            by_process[run.pid, run.function].append(run.event)
    for (pid, function), numbers in by_process.items():
        yield from _check_rising(history, numbers, f"{function} ran in pid {pid}")


def _check_rising(history: History, numbers: Iterable[str], what: str) -> Iterator[str]:
    latest = -1
    for number in numbers:
        event = history.events.get(number)
        if event is None or event.via != "rigger":
            continue
        if int(number) < latest:
            yield f"{what} event {number} after event {latest}, which was fired later"
        latest = int(number)


def _check_total(history: History) -> Iterator[str]:
    """Each counting event saw the total that the one before it left."""
    totals = [
        (int(outcome.answers["total"]), event)
        for event, _, outcome in _watched(history)
        if outcome.name == OK and "total" in outcome.answers
    ]
    counted = Counter(total for total, _ in totals)
    for total, event in totals:
        if counted[total] > 1:
            yield f"{_name(event)} counted to {total}, as {counted[total] - 1} others did"
    final = history.globals.get("total", 0)
    uncertain = any(outcome.name in (UNKNOWN, ENGINE_LOST) for _, _, outcome in _watched(history))
    if not uncertain and final != len(totals):
        yield f"the total is {final}, and {len(totals)} counting events succeeded"
    if uncertain and final < len(totals):
        yield f"the total is {final}, and {len(totals)} counting events succeeded"
    rising = -1
    for total, event in totals:
        if event.via == "rigger":
            if total < rising:
                yield f"{_name(event)} counted to {total}, after an earlier event had counted to {rising}"
            rising = total
