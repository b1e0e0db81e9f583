"""Events that change the global namespace, and engines with many plugins and hooks."""

from __future__ import annotations

import time
from itertools import pairwise
from typing import Any

from bench import tally
from bench.peers.engine import EventEngine, Program, open_engine
from bench.tasks import noop
from bench.workload import Evidence, Sample, Size, Workload, counted, sum_below

WARM_UP = 50
TENTHS = 10
FEW = 20
"""How many plugins or hooks the larger number is compared with."""


def note(key: str, value: int) -> Any:
    """Make one update of the global namespace."""
    tally.add(value)
    return None, {key: value}


def before_hook(value: int) -> Any:
    """Be the pre callback."""
    return note("before", value)


def in_hook(value: int) -> Any:
    """Be the plugin's hook."""
    return note("inside", value)


def after_hook(value: int) -> Any:
    """Be the post callback."""
    return note("after", value)


CALLBACKS_PROGRAM = Program(
    plugins={"one": {"event": in_hook}},
    callbacks={("event", "pre"): before_hook, ("event", "post"): after_hook},
)


def callbacks(peer: str, size: Size) -> Sample:
    """Fire events that nobody waits for; wait until all are done."""
    count = size["events"]
    with open_engine(peer, CALLBACKS_PROGRAM) as engine:
        for _ in range(min(WARM_UP, count)):
            engine.fire("event", value=0)
        engine.drain()
        before = tally.read()
        start = time.perf_counter()
        for value in range(count):
            engine.fire("event", value=value)
        engine.drain()
        seconds = time.perf_counter() - start
        last = engine.read_globals()
        evidence = counted(before, last=[last[key] for key in ("before", "inside", "after")])
    return Sample({"per_event": seconds / count, "events_per_second": count / seconds}, evidence)


def expect_callbacks(_peer: str, size: Size) -> Evidence:
    """Expect three calls an event, and the last event's updates to be the last."""
    count = size["events"]
    return {"calls": 3 * count, "sum": 3 * sum_below(count), "last": [count - 1] * 3}


CALLBACKS = Workload(
    name="callbacks",
    title="pre callback + hook + post callback",
    about="Each of the three makes one update of the global namespace; all are fired with wait=False, then drained.",
    metric="per_event",
    unit="us",
    peers=("rigger_mp", "riggerlib", "riggerlib-threaded"),
    run=callbacks,
    expect=expect_callbacks,
    full={"events": 20_000},
    quick={"events": 2000},
    smaller={"riggerlib-threaded": {"events": 200}},
)


def add_entry(value: int) -> Any:
    """Add one entry to a nested mapping of the global namespace."""
    tally.add(value)
    return None, {"session": {"entries": {f"entry-{value}": value}}}


def count_entries(session: Any) -> Any:
    """Read the nested mapping; note how long it is, and when that was."""
    count = len(session["entries"])
    tally.add(count)
    return None, {"read": {str(count): time.monotonic()}}


GROWTH_PROGRAM = Program(
    plugins={"one": {"write": add_entry, "read": count_entries}}, globals={"session": {"entries": {}}}
)


def growth(peer: str, size: Size) -> Sample:
    """Fire events that make the namespace grow, with a reader after every hundred; compare the tenths."""
    count, every = size["events"], size["reader_every"]
    with open_engine(peer, GROWTH_PROGRAM) as engine:
        before = tally.read()
        engine.fire("read")
        for value in range(count):
            engine.fire("write", value=value)
            if value % every == every - 1:
                engine.fire("read")
        engine.drain()
        namespace = engine.read_globals()
        evidence = counted(before, entries=len(namespace["session"]["entries"]), reads=len(namespace["read"]))
    times = [namespace["read"][str(count * tenth // TENTHS)] for tenth in range(TENTHS + 1)]
    tenths = [(later - earlier) * TENTHS / count for earlier, later in pairwise(times)]
    metrics = {"last_over_first": tenths[-1] / tenths[0], "first_tenth": tenths[0], "last_tenth": tenths[-1]}
    return Sample({**metrics, "per_event": (times[-1] - times[0]) / count}, evidence)


def expect_growth(_peer: str, size: Size) -> Evidence:
    """Expect every reader to have seen exactly what was written before it."""
    count, every = size["events"], size["reader_every"]
    readers = count // every
    seen = every * (readers * (readers + 1) // 2)
    return {"calls": count + readers + 1, "sum": sum_below(count) + seen, "entries": count, "reads": readers + 1}


GROWTH = Workload(
    name="growth",
    title="growing global namespace: last tenth / first tenth, per event",
    about="Each event adds one entry to a nested global mapping, one reader every 100: does it get slower?",
    metric="last_over_first",
    unit="ratio",
    peers=("rigger_mp", "riggerlib"),
    run=growth,
    expect=expect_growth,
    full={"events": 20_000, "reader_every": 100},
    quick={"events": 2000, "reader_every": 100},
)


def many_plugins(peer: str, size: Size) -> Sample:
    """Compare the cost of an event that many plugins answer with that of one that few answer."""
    few, many = (_answered_by(peer, plugins, size["events"]) for plugins in (FEW, size["plugins"]))
    growth_of_cost = (many.metrics["per_event"] / few.metrics["per_event"]) / (size["plugins"] / FEW)
    evidence = {f"{name} {key}": value for name, sample in (("few", few), ("many", many))
                for key, value in sample.evidence.items()}  # fmt: skip
    per_function = many.metrics["per_event"] / size["plugins"]
    return Sample({"growth": growth_of_cost, "per_function": per_function, **many.metrics}, evidence)


def _answered_by(peer: str, plugins: int, events: int) -> Sample:
    program = Program({f"plugin-{number}": {"event": noop} for number in range(plugins)}, stateless=True)
    with open_engine(peer, program) as engine:
        return _timed(engine, ["event"] * events)


def _timed(engine: EventEngine, hooks: list[str]) -> Sample:
    for hook in hooks[:10]:
        engine.fire_and_wait(hook, value=0)
    before = tally.read()
    start = time.perf_counter()
    for value, hook in enumerate(hooks):
        engine.fire(hook, value=value)
    engine.drain()
    seconds = time.perf_counter() - start
    return Sample({"per_event": seconds / len(hooks)}, counted(before))


def expect_many_plugins(_peer: str, size: Size) -> Evidence:
    """Expect every plugin to be called for every event."""
    events, total = size["events"], sum_below(size["events"])
    return {"few calls": FEW * events, "few sum": FEW * total,
            "many calls": size["plugins"] * events, "many sum": size["plugins"] * total}  # fmt: skip


MANY_PLUGINS = Workload(
    name="many-plugins",
    title="200 plugins on one event against 20: cost per function",
    about="The cost of an event that 200 plugins answer, for each function, over that of one that 20 answer.",
    metric="growth",
    unit="ratio",
    peers=("rigger_mp", "riggerlib"),
    run=many_plugins,
    expect=expect_many_plugins,
    full={"events": 300, "plugins": 200},
    quick={"events": 30, "plugins": 200},
)


def many_hooks(peer: str, size: Size) -> Sample:
    """Compare the cost of an event among many registered hooks with that among few."""
    few, many = (_registered(peer, hooks, size["events"]) for hooks in (FEW, size["hooks"]))
    evidence = {f"{name} {key}": value for name, sample in (("few", few), ("many", many))
                for key, value in sample.evidence.items()}  # fmt: skip
    return Sample({"growth": many.metrics["per_event"] / few.metrics["per_event"], **many.metrics}, evidence)


def _registered(peer: str, hooks: int, events: int) -> Sample:
    names = [f"hook-{number}" for number in range(hooks)]
    program = Program({"one": dict.fromkeys(names, noop)}, stateless=True)
    with open_engine(peer, program) as engine:
        for name in names:
            engine.fire(name, value=0)
        engine.drain()
        return _timed(engine, [names[number % hooks] for number in range(events)])


def expect_many_hooks(_peer: str, size: Size) -> Evidence:
    """Expect one call for every event."""
    events, total = size["events"], sum_below(size["events"])
    return {"few calls": events, "few sum": total, "many calls": events, "many sum": total}


MANY_HOOKS = Workload(
    name="many-hooks",
    title="2,000 hooks registered against 20: cost per event",
    about="Events in turn over 2,000 registered hooks, over the same in turn over 20.",
    metric="growth",
    unit="ratio",
    peers=("rigger_mp", "riggerlib"),
    run=many_hooks,
    expect=expect_many_hooks,
    full={"events": 10_000, "hooks": 2000},
    quick={"events": 2000, "hooks": 2000},
)
