"""The plugin host: makes plugin instances and runs their functions. The only place where user code runs.

A host lives in a worker process or in the archive process. It holds a replica of the global namespace, kept
up to date by the jobs themselves. Every ``BaseException`` of user code is caught here.
"""

from __future__ import annotations

import importlib
import os
import pickle
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, NoReturn

from rigger_mp.encoding import Encoded, collect, load_chain, load_names, load_part
from rigger_mp.engine import messages as m
from rigger_mp.engine.callables import HostCallable, describe_callable
from rigger_mp.engine.commit_log import Delta, merged_updates
from rigger_mp.engine.failures import describe_failure
from rigger_mp.engine.job_updates import Fields, Returned, Updates, encode_results, has_failed, without_locals
from rigger_mp.engine.journal import Journal
from rigger_mp.engine.output import Forwarder, set_log_levels
from rigger_mp.engine.replica import Replica
from rigger_mp.engine.returned import encode_returned
from rigger_mp.engine.segments import Segment, by_id, dump_with_segment
from rigger_mp.engine.spec import InstanceSpec
from rigger_mp.errors import MissingArgumentsError, PluginInitError
from rigger_mp.namespace import Chain, Namespace, extend_chain
from rigger_mp.plain_text import plain_name, plain_text
from rigger_mp.plugin import current_link
from rigger_mp.plugin_loading import load_class

Send = Callable[[Any], None]
Results = tuple[tuple[Fields, ...], ...]


@dataclass(frozen=True, slots=True)
class HostSettings:
    """What every host of an engine is told.

    Attributes:
        config: the configuration, pickled.
        list_merge: ``"extend"`` or ``"replace"``.
        threaded: false: a failure keeps the later functions of its stage from running.
        time_limit: seconds a function may run, where nothing else is said.
        hook_limits: ``time_limit`` in seconds by hook.
        max_memory: bytes the process may use before it is replaced.
        log_levels: the levels of the loggers in the user's process, by name.
        argv: ``sys.argv`` there, for plugins that look at it.
    """

    config: bytes
    list_merge: str
    threaded: bool
    time_limit: float | None
    hook_limits: dict[str, float]
    max_memory: int | None = None
    log_levels: Mapping[str, int] = field(default_factory=dict)
    argv: tuple[str, ...] = ()


class Link:
    """What instances see of the engine: :class:`rigger_mp.plugin.EngineLink`."""

    def __init__(self, send: Send, config: bytes) -> None:
        self._send = send
        self._config = config
        self.depth = 0

    @property
    def config(self) -> Any:
        """A copy of the engine's configuration."""
        return pickle.loads(self._config)

    def fire_hook(self, hook: str, /, **kwargs: Any) -> None:
        """Queue an event behind those already accepted, and return at once."""
        from rigger_mp.encoding import dump_arguments  # noqa: PLC0415

        arguments, segments = dump_with_segment(dump_arguments, kwargs)
        self._send(m.Nested(plain_name(hook, "a hook"), arguments, self.depth + 1, segments))

    def log_message(self, message: object) -> None:
        """Have ``Rigger.log_message`` called in the user's process."""
        self._send(m.Log(plain_text(message)))


class EventView:
    """The namespaces as the functions of one event see them; each read is a private copy."""

    def __init__(self, job: m.Job, arguments: bytes, config: Encoded, replica: Replica) -> None:
        self._list_merge = replica.list_merge
        self._replica = replica
        self._pinned: dict[str, Chain] | None = job.pinned
        self._segments: dict[int, Segment] = by_id(job.segments)
        self._overlay: list[Updates] = merged_updates(job.overlay)
        self._config = config
        self.begin(arguments)
        for group in job.updates:
            self._merge_locals(group)

    def begin(self, arguments: bytes) -> None:
        """Show the local namespace that an event begins with."""
        self._arguments = load_names(arguments, self._segments)
        self._arguments["config"] = self._config
        self._locals: Namespace | None = None

    def update_locals(self, ended: list[Returned], segments: Collection[Segment]) -> None:
        """Merge the local updates of a stage's functions, whose large values are in those segments."""
        group = tuple([fields[0] for fields, _ in ended if fields[0]])
        if group:
            self._segments.update(by_id(segments))
            self._merge_locals(group)

    def _merge_locals(self, group: m.Group) -> None:
        if self._locals is None:
            self._locals = Namespace(self._list_merge, compacts=False)
            self._locals.commit(self._arguments)
        self._locals.commit(collect(load_names(update, self._segments) for update in group))

    def update_globals(self, update: Updates) -> None:
        """Let later stages see updates of globals that are not committed yet."""
        self._overlay.append(update)

    def local_names(self) -> Iterator[str]:
        """Return the names of the local namespace."""
        return iter(self._arguments if self._locals is None else self._locals)

    def load(self, name: str) -> Any:
        """Return the value of a name, the local one if there is one.

        Raises:
            KeyError: neither namespace has it.
        """
        if self._locals is None:
            if name in self._arguments:
                value = self._arguments[name]
                return load_part(value) if type(value) is tuple else value
        elif name in self._locals:
            return self._locals.load(name)
        if self._pinned is None and not self._overlay:
            return self._replica.load(name)
        chain = self._global_chain(name)
        if chain is None:
            raise KeyError(name)
        return load_chain(chain, self._list_merge)

    def _global_chain(self, name: str) -> Chain | None:
        chain: Chain | None
        if self._pinned is not None:
            chain = self._pinned.get(name)
        else:
            chain = self._replica.chain(name) if name in self._replica else None
        for update in self._overlay:
            if name in update:
                chain = extend_chain(chain, update[name], self._list_merge)
        return chain


class PluginHost:
    """Instances, callbacks and the replica of one process.

    Args:
        send: sends a message to the dispatcher at once.
        journal: where the running function's deadline is noted.
        forwarder: what functions print and log.

    Attributes:
        forked: this is no host, but a child that a function forked.
    """

    def __init__(self, send: Send, journal: Journal, forwarder: Forwarder) -> None:
        self._send = send
        self._journal = journal
        self._forwarder = forwarder
        self._functions: dict[str, HostCallable] = {}
        self._instances: dict[str, Any] = {}
        self._problems: dict[str, str] = {}
        self._settings = HostSettings(b"", "extend", True, None, {})
        self._config: Encoded = None
        self._replica = Replica()
        self._link = Link(send, b"")
        self.forked = False
        self._runner: Any = None

    @property
    def max_memory(self) -> int | None:
        """Bytes that this process may use before it is replaced."""
        return self._settings.max_memory

    # -- making instances --------------------------------------------------------------------------------

    def host(self, message: m.Host) -> m.Hosted:
        """Make the instances, replay their ``configure`` calls, and tell what they bound."""
        importlib.invalidate_caches()  # directories may have changed since the dispatcher looked at them
        settings: HostSettings = pickle.loads(message.settings)
        self._settings = settings
        set_log_levels(settings.log_levels)
        sys.argv[:] = settings.argv
        self._problems.update(message.left_out)
        self._config = ("M", (settings.config,))
        self._replica = Replica(settings.list_merge)
        self._link = Link(self._send, settings.config)
        functions: list[tuple[Any, ...]] = []
        for number, (ident, setup, calls) in enumerate(message.instances):
            self._journal.making(number)
            self._forwarder.origin.function_id = ident
            try:
                functions += self._make(setup, calls)
            except BaseException as error:  # noqa: BLE001 - a plugin may raise anything at all
                self._problems[ident] = describe_failure(error, ident, "initialize").traceback
        self._journal.making(-1)
        self._forwarder.finish_lines()
        return m.Hosted(tuple(functions), tuple(self._problems.items()))

    def _make(self, setup: bytes, calls: tuple[bytes, ...]) -> list[tuple[Any, ...]]:
        spec: InstanceSpec = pickle.loads(setup)
        instance = self._construct(load_class(spec.source), spec)
        self._instances[spec.ident] = instance
        for call in calls:
            self._configure(spec.ident, call)
        return [tuple(self._bind(spec, event, bound)) for event, bound in instance.callbacks.items()]

    def _construct(self, plugin: Any, spec: InstanceSpec) -> Any:
        token = current_link.set(self._link)
        try:
            if describe_callable(plugin).takes_at_least(3):
                return plugin(spec.ident, spec.data, self._link)
            return plugin(spec.ident, spec.data)
        finally:
            current_link.reset(token)

    def _bind(self, spec: InstanceSpec, event: str, bound: Any) -> m.HostedFunction:
        stage = "background" if spec.background or bound.bg else "hook"
        limits = self._settings
        limit = spec.time_limit or limits.hook_limits.get(event) or limits.time_limit
        called = describe_callable(bound.func, owner=spec.ident, stage=stage, time_limit=limit)
        function_id = f"{spec.ident}\0{event}"
        self._functions[function_id] = called
        return m.HostedFunction(
            function_id, spec.ident, event, called.label, called.names, bound.bg, bound.concurrent
        )

    def load(self, message: m.Load) -> None:
        """Take a callback that jobs may name from now on; one that cannot be loaded fails when it is called."""
        limit = self._settings.time_limit
        try:
            func = pickle.loads(message.function)
            called = describe_callable(func, label=message.label, stage=message.stage, time_limit=limit)
        except BaseException as error:  # noqa: BLE001 - unpickling runs the user's code
            text = describe_failure(error, message.label, message.stage).traceback
            called = describe_callable(_refusal(message.label, text), label=message.label, stage=message.stage)
        self._functions[message.function_id] = called

    def forget(self, message: m.Forget) -> None:
        """Drop a callback."""
        self._functions.pop(message.function_id, None)

    # -- running jobs ------------------------------------------------------------------------------------

    def run(self, job: m.Job) -> m.Done:
        """Run a job's functions, stage by stage, and return their results."""
        self._start(job)
        self._forwarder.begin(job.hook, job.token)
        if job.kind == m.CALL_CONFIGURE:
            return m.Done(job.job, ((tuple(self._call_configure(job)),),))
        segments: list[Segment] = []
        results = self._run_stages(job, EventView(job, job.arguments, self._config, self._replica), segments)
        return m.Done(job.job, results, tuple(segments))

    def start_series(self, job: m.Job) -> EventView:
        """Return what :meth:`run_of_series` takes for the events of a job's series, one after another."""
        self._start(job)
        return EventView(job, job.series[0][1], self._config, self._replica)

    def run_of_series(self, job: m.Job, view: EventView, token: int, arguments: bytes) -> Results:
        """Run a job's functions for one event of its series and return their results."""
        self._forwarder.begin(job.hook, token)
        view.begin(arguments)
        return without_locals(self._run_stages(job, view, []))

    def _start(self, job: m.Job) -> None:
        self._link.depth = job.depth
        self._apply(job.delta)

    def _run_stages(self, job: m.Job, view: EventView, segments: list[Segment]) -> Results:
        stages: list[list[Returned]] = []
        merged: list[Updates] = []
        commits = job.commit
        for stage in job.stages:
            if len(stage) == 1:  # as most are: what follows then looks at one function
                ended = [self._call(stage[0], view, segments)]
                (local, _, failure, _), update = ended[0]
                changes_locals, failed = bool(local), failure is not None
            else:
                ended = self._run_stage(job, stage, view, segments)
                changes_locals, failed = True, has_failed(ended)
                update = collect([updates for _, updates in ended])
            stages.append(ended)
            if failed and not job.squash:
                break
            if changes_locals and len(stages) < len(job.stages):
                view.update_locals(ended, segments)
            if update and commits:
                self._replica.add(update)
            elif update:
                view.update_globals(update)
            merged.append(update)
        return encode_results(stages, merged)

    def _run_stage(
        self, job: m.Job, stage: tuple[str, ...], view: EventView, segments: list[Segment]
    ) -> list[Returned]:
        results: list[Returned] = []
        for function_id in stage:
            results.append(self._call(function_id, view, segments))
            if not (self._settings.threaded or job.squash) and has_failed(results[-1:]):
                break
        return results

    def _apply(self, delta: Delta) -> None:
        if delta is None:
            return
        whole, content = delta
        if whole:
            self._replica.replace(content)
            return
        for entry in content:
            for update in merged_updates(entry):
                self._replica.add(update)

    def _call(self, function_id: str, view: EventView, segments: list[Segment]) -> Returned:
        called = self._functions.get(function_id)
        self._forwarder.origin.function_id = function_id
        start = perf_counter()
        try:
            if called is None:
                self._refuse(function_id)
            if called.time_limit:
                self._journal.limit(time.monotonic() + called.time_limit)
            args, kwargs = self._arguments(called, view)
            returned = called.func(*args, **kwargs)
            if called.is_async:
                returned = self._run_async(returned)
            if self.forked:
                self._end_fork()
            if returned is None:
                return (b"", b"", None, perf_counter() - start), {}
            (local, placed), updates = encode_returned(called.label, returned)
            segments += placed
            return (local, b"", None, perf_counter() - start), updates
        except BaseException as error:
            if os.getpid() != self._forwarder.origin.pid:
                raise  # a child that the function forked ends as any process does
            stage = called.stage if called else "hook"
            failure = describe_failure(error, called.label if called else function_id, stage)
            return (b"", b"", tuple(failure), perf_counter() - start), {}
        finally:
            if called is not None and called.time_limit:
                self._journal.limit(0.0)
            if self._forwarder.begun:
                self._forwarder.finish_lines()

    def _end_fork(self) -> NoReturn:
        """End a child that a function forked, and that has come back from it: what follows is its parent's."""
        raise SystemExit(0)

    def _refuse(self, function_id: str) -> NoReturn:
        ident, _, event = function_id.partition("\0")
        problem = self._problems.get(ident, f"it no longer binds {event!r}")
        raise PluginInitError(f"instance {ident!r} could not be initialised again: {problem}")

    def _arguments(self, called: HostCallable, view: EventView) -> tuple[Sequence[Any], dict[str, Any]]:
        values: dict[str, Any] = {}
        missing: list[str] = []
        for name, required in called.parameters:
            try:
                values[name] = view.load(name)
            except KeyError:
                if required:
                    missing.append(name)
        if missing:
            raise MissingArgumentsError(
                f"{called.label} needs {', '.join(map(repr, missing))}: neither the event's arguments "
                f"nor the globals have {'it' if len(missing) == 1 else 'them'}"
            )
        args = called.take_positional(values) if called.positional else ()
        if called.takes_all:
            for name in view.local_names():
                if name not in values and name not in called.positional:
                    values[name] = view.load(name)
        return args, values

    def _run_async(self, coroutine: Any) -> Any:
        if self._runner is None:
            import asyncio  # noqa: PLC0415 - 30 ms that most hosts never need

            self._runner = asyncio.Runner()
        return self._runner.run(coroutine)

    # -- configure ---------------------------------------------------------------------------------------

    def _call_configure(self, job: m.Job) -> m.Result:
        start = perf_counter()
        try:
            self._configure(job.hook, job.arguments)
        except BaseException as error:  # noqa: BLE001 - a plugin may raise anything at all
            failure = describe_failure(error, f"{job.hook}.configure", "configure")
            return m.Result(b"", b"", tuple(failure), perf_counter() - start)
        return m.Result(b"", b"", None, perf_counter() - start)

    def _configure(self, ident: str, call: bytes) -> None:
        instance = self._instances.get(ident)
        if instance is None:
            raise PluginInitError(f"instance {ident!r} could not be initialised: {self._problems.get(ident)}")
        args, kwargs = pickle.loads(call)
        instance.configure(*args, **kwargs)


def _refusal(label: str, problem: str) -> Callable[[], NoReturn]:
    def refuse() -> NoReturn:
        raise PluginInitError(f"callback {label!r} cannot be unpickled in this process: {problem}")

    return refuse
