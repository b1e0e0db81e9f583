"""What must hold of everything that a :class:`scheduler_model.World` did.

The model is naive: plain values and :func:`recursive_update`, no chains, no replicas.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterable
from typing import Any

from scheduler_model import Accepted, Call, Execution, World

from rigger_mp.encoding import load_chain, load_names, recursive_update
from rigger_mp.engine import messages as m
from rigger_mp.engine.kept_jobs import Died, Finished, Interrupted


def check_history(world: World) -> None:
    """Check everything that a drained world did."""
    check_outcomes(world)
    check_order(world)
    check_generations(world)
    check_actors(world)
    check_retries(world)
    check_commits(world)
    check_globals(world)
    check_background(world)
    check_kept(world)


def check_outcomes(world: World) -> None:
    """Every accepted event ended exactly once, as its calls say; every loss has its culprit."""
    counters = world.scheduler.counters
    events = [accepted for accepted in world.accepted.values() if accepted.kind == "event"]
    assert counters.accepted == len(events) + world.nested_refused
    assert counters.succeeded + counters.failed + counters.lost == counters.accepted
    for accepted in world.accepted.values():
        assert len(accepted.outcomes) == (0 if accepted.silent else 1)
        if accepted.outcomes and accepted.kind == "event":
            _check_status(world, accepted)


def _check_status(world: World, accepted: Accepted) -> None:
    (outcome,) = accepted.outcomes
    calls = _foreground_calls(world, accepted.number)
    failed = any(call.failed for call in calls if call.delivered)
    if outcome.status == m.OK:
        called = [call.function.id for call in calls if call.delivered]
        assert sorted(called) == sorted(id_ for stage in accepted.plan.ids for id_ in stage)
        assert accepted.squash or not failed
    elif outcome.status == m.FAILED:
        assert failed
        assert not accepted.squash
        assert outcome.failures
    elif outcome.status == m.NOT_KEPT:
        assert accepted.number in world.refused
        assert not any(run.event == accepted.number for run in world.executions), "what was not kept was run"
    else:
        gone = world.anything_gone
        culprits = [run for run in world.executions if run.event == accepted.number and run.lost]
        assert gone or any(not run.background for run in culprits), "an event was lost that ran nowhere"
        if outcome.status == m.QUARANTINED:
            assert sum(not run.background for run in culprits) > 1


def check_kept(world: World) -> None:
    """What the spool keeps leaves it once, as it ended, and is counted as interrupted when its process died."""
    runs: dict[int, list[Execution]] = {}
    for run in world.executions:
        if run.background:
            assert (run.job.kept is not None) == world.scheduler.durable
        if run.job.kept is not None:
            runs.setdefault(run.job.kept[0], []).append(run)
    for key, changes in world.kept.items():
        *interrupted, last = changes
        assert all(isinstance(change, Interrupted) for change in interrupted)
        lost = [run for run in runs.get(key, ()) if run.lost]
        finished = [run for run in runs.get(key, ()) if run.calls[0].delivered]
        assert len(finished) <= 1
        if finished and not finished[0].calls[0].failed:
            assert last == Finished(key)
        else:
            assert isinstance(last, Died)
            assert last.attempts == len(lost) + len(finished)


def _foreground_calls(world: World, event: int) -> list[Call]:
    runs = [run for run in world.executions if run.event == event]
    return [call for run in runs for call in run.calls if call.stage >= 0]


def _delivered_calls(world: World, event: int) -> list[Call]:
    return [call for call in _foreground_calls(world, event) if call.delivered]


def check_order(world: World) -> None:
    """An ordered event overlaps nothing, and stands in the order of acceptance."""
    spans: dict[int, tuple[int, int]] = {}
    for run in world.executions:
        if not run.background:
            start, end = spans.get(run.event, (run.start, run.end))
            spans[run.event] = min(start, run.start), max(end, run.end)
    latest_end = latest_ordered_end = 0
    for number, (start, end) in sorted(spans.items()):
        ordered = not world.accepted[number].plan.concurrent
        assert start > (latest_end if ordered else latest_ordered_end), f"event {number} started too early"
        latest_end = max(latest_end, end)
        if ordered:
            latest_ordered_end = max(latest_ordered_end, end)


def check_generations(world: World) -> None:
    """A generation starts on events when the former one has ended all of them; and so with background handlers."""
    for background in (False, True):
        runs = [run for run in world.executions if run.background is background and run.calls]
        for before, after in itertools.pairwise(sorted(runs, key=lambda run: run.start)):
            generations = [int(run.calls[0].function.id.split(":")[0]) for run in (before, after)]
            assert generations == sorted(generations)
            assert generations[0] == generations[1] or before.end < after.start


def check_actors(world: World) -> None:
    """A stateful instance starts on events in the order in which they were fired."""
    first: dict[str, list[int]] = {}
    for run in world.executions:
        for actor in {call.function.actor for call in run.calls if call.function.actor}:
            events = first.setdefault(actor, [])
            if run.event not in events:
                events.append(run.event)
    for actor, events in first.items():
        assert events == sorted(events), f"{actor} saw {events}"


def check_retries(world: World) -> None:
    """What lost its process runs again as often as it may, and nothing later reaches its instances meanwhile."""
    tasks: dict[tuple[int, tuple[tuple[str, ...], ...]], list[Execution]] = {}
    for run in (run for run in world.executions if run.job.stages):
        tasks.setdefault((run.event, run.job.stages), []).append(run)
    for runs in tasks.values():
        *lost, last = runs
        assert all(run.lost for run in lost), "something ran again that was not lost"
        functions = [world.functions[id_] for stage in last.job.stages for id_ in stage]
        assert len(lost) <= max(function.max_retries for function in functions)
    _check_turns(tasks.values())


def _check_turns(tasks: Iterable[list[Execution]]) -> None:
    contacts: dict[str, dict[int, tuple[int, int]]] = {}
    for runs in tasks:
        for actor in {call.function.actor for run in runs for call in run.calls if call.function.actor}:
            first = runs[0].start, runs[-1].start
            events = contacts.setdefault(actor, {})
            events[runs[0].event] = min(first, events.get(runs[0].event, first))
    for actor, events in contacts.items():
        latest = 0
        for event, (start, final) in sorted(events.items()):
            assert start > latest, f"event {event} reached {actor} before an earlier one was done with its retries"
            latest = max(latest, final)


def _commit_owners(world: World) -> list[set[int]]:
    marks = {call.updates: call.event for run in world.executions for call in run.calls if call.updates}
    entries = world.scheduler.commits
    return [{marks.get(update, 0) for group in entry for update in group} for entry in entries]


def check_commits(world: World) -> None:
    """Every update of an accepted stage was committed exactly once, and no other."""
    committed = [update for entry in world.scheduler.commits for group in entry for update in group]
    calls = [call for run in world.executions for call in run.calls]
    expected = [call.updates for call in calls if _is_accepted(world, call)]
    ours = {call.updates for call in calls}
    assert sorted(update for update in committed if update in ours) == sorted(expected)
    assert world.log.version == len(world.scheduler.commits)


def _is_accepted(world: World, call: Call) -> bool:
    if not call.updates or not call.delivered or call.failed:
        return False
    if call.stage < 0:
        return True
    accepted = world.accepted[call.event]
    stages: dict[int, list[Call]] = {}
    for other in _foreground_calls(world, call.event):
        if other.delivered:
            stages.setdefault(other.stage, []).append(other)
    if not accepted.squash and any(other.failed for other in stages[call.stage]):
        return False
    if len(stages[call.stage]) < len(accepted.plan.stages[call.stage]):
        return False
    # An ordered event commits stage by stage, a concurrent one at its end.
    return not accepted.plan.concurrent or not _was_lost(world, accepted)


def _was_lost(world: World, accepted: Accepted) -> bool:
    if accepted.outcomes:
        return accepted.outcomes[0].status not in (m.OK, m.FAILED)
    calls = _delivered_calls(world, accepted.number)
    if not accepted.squash and any(call.failed for call in calls):
        return world.threaded and _failed_stage_is_incomplete(accepted, calls)
    return len(calls) < sum(map(len, accepted.plan.stages))


def _failed_stage_is_incomplete(accepted: Accepted, calls: list[Call]) -> bool:
    stage = next(call.stage for call in calls if call.failed)
    return sum(call.stage == stage for call in calls) < len(accepted.plan.stages[stage])


def fold_states(world: World) -> list[dict[str, Any]]:
    """The globals after each commit, by the naive model."""
    states: list[dict[str, Any]] = [{}]
    for entry in world.scheduler.commits:
        state = copy.deepcopy(states[-1])
        for group in entry:
            _merge_group(state, group, world.list_merge)
        states.append(state)
    return states


def _merge_group(state: dict[str, Any], group: m.Group, list_merge: str) -> None:
    collected: dict[str, Any] = {}
    for update in group:
        names = load_names(update)
        if any(type(link) is tuple and link[0] in "dMLo" for link in names.values()):
            _assign(state, names)
            return
        recursive_update(collected, {name: load_chain((link,)) for name, link in names.items()}, list_merge)
    recursive_update(state, collected, list_merge)


def _assign(state: dict[str, Any], names: dict[str, Any]) -> None:
    for name, link in names.items():
        if type(link) is tuple and link[0] == "d":
            state.pop(name, None)
        else:
            state[name] = load_chain((link,))


def check_globals(world: World) -> None:
    """The sum of the commits is the namespace, and every event saw one consistent state, a legal one."""
    states = fold_states(world)
    namespace = world.log.namespace
    assert {name: namespace.load(name) for name in namespace} == states[-1]
    owners = _commit_owners(world)
    for accepted in world.accepted.values():
        if accepted.kind == "event":
            _check_view(world, accepted, states, owners)


def _check_view(
    world: World, accepted: Accepted, states: list[dict[str, Any]], owners: list[set[int]]
) -> None:
    calls = _delivered_calls(world, accepted.number)
    lowest, highest = _legal_versions(world, accepted, owners)
    stages = _stage_groups(accepted, calls)
    versions = range(lowest, highest + 1)
    for outcome in accepted.outcomes:
        assert outcome.version >= lowest, f"event {accepted.number} was told of too old a version"
    assert any(_sees(calls, stages, states[k], world.list_merge) for k in versions), (
        f"event {accepted.number} saw no state of versions {lowest}..{highest}"
    )


def check_background(world: World) -> None:
    """A background handler sees the globals of one moment, and with them what its event's pre stage did."""
    states = fold_states(world)
    for run in world.executions:
        if run.background and not run.lost:
            accepted = world.accepted[run.event]
            (call,) = run.calls
            shown = _states_shown(world, accepted, states)
            assert any(call.seen == _pick(state, call) for state in shown)


def _states_shown(world: World, accepted: Accepted, states: list[dict[str, Any]]) -> list[dict[str, Any]]:
    groups = _stage_groups(accepted, _delivered_calls(world, accepted.number))[: accepted.plan.handover]
    if not accepted.plan.concurrent:
        own = [number for number, entry in enumerate(world.scheduler.commits, 1) if set(groups) & set(entry)]
        return states[max(own, default=0) :]
    shown = copy.deepcopy(states)
    for state in shown:
        for group in groups:
            _merge_group(state, group, world.list_merge)
    return shown


def _pick(state: dict[str, Any], call: Call) -> dict[str, Any]:
    return {name: state[name] for name in call.function.reads if name in state}


def _legal_versions(world: World, accepted: Accepted, owners: list[set[int]]) -> tuple[int, int]:
    lowest, highest = 0, len(owners)
    background = {call.updates for run in world.executions for call in run.calls if call.stage < 0}
    for version, owner in enumerate(owners, 1):
        entry = world.scheduler.commits[version - 1]
        if any(update in background for group in entry for update in group):
            continue
        number = min(owner) or _writer(world, entry)
        is_barrier = not world.accepted[number].plan.concurrent or not accepted.plan.concurrent
        if number < accepted.number and is_barrier:
            lowest = max(lowest, version)
        elif number >= accepted.number and (is_barrier or number == accepted.number):
            highest = min(highest, version - 1)
    return lowest, highest


def _writer(world: World, entry: m.CommitEntry) -> int:
    names = load_names(entry[-1][0])
    return int(names["stamp"])


def _stage_groups(accepted: Accepted, calls: list[Call]) -> list[tuple[bytes, ...]]:
    order = {function.id: n for n, function in enumerate(accepted.plan.functions)}
    groups = []
    for stage in range(len(accepted.plan.stages)):
        own = sorted((c for c in calls if c.stage == stage), key=lambda call: order[call.function.id])
        groups.append(tuple(call.updates for call in own if call.updates and not call.failed))
    return groups


def _sees(calls: list[Call], groups: list[m.Group], state: dict[str, Any], list_merge: str) -> bool:
    state = copy.deepcopy(state)
    for stage, group in enumerate(groups):
        for call in calls:
            if call.stage == stage and call.seen != _pick(state, call):
                return False
        _merge_group(state, group, list_merge)
    return True
