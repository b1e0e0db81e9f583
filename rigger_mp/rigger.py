"""The public face of an engine: :class:`Rigger`.

A plugin's module often imports it beside the base class, and so does every worker then, which starts no engine. What
starts one is therefore imported with this module in the user's process, and elsewhere on first use.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from rigger_mp.callbacks import Callbacks
from rigger_mp.encoding import dump_arguments, dump_assignments, dump_value
from rigger_mp.engine import messages as m
from rigger_mp.engine.output import handle_record, write_output
from rigger_mp.engine.segments import dump_with_segment
from rigger_mp.errors import NotRunningError, PluginError
from rigger_mp.future import HookFuture
from rigger_mp.global_data import GlobalData, checked_names
from rigger_mp.instance import InstanceHandle, list_handles
from rigger_mp.plain_text import plain_name
from rigger_mp.plugin_classes import check_classes, check_registration

if TYPE_CHECKING:
    from rigger_mp.candidate import Candidate
    from rigger_mp.config import Settings
    from rigger_mp.deployment import Deployment
    from rigger_mp.discovery import Found
    from rigger_mp.engine.engine import Engine
    from rigger_mp.engine.messages import Output
    from rigger_mp.engine.pending import Waiter
    from rigger_mp.engine.segments import Arguments
    from rigger_mp.reloader import Running
    from rigger_mp.result import HookResult

# Only the engine's own processes have the module that they boot with.
if "rigger_mp.engine.boot" not in sys.modules:
    for _module in ("deployment", "discovery", "engine.stats"):
        import_module(f"rigger_mp.{_module}")

Callback = Callable[..., Any]


class Rigger:
    """An event-hook engine: plugins and callbacks respond to the hooks that you fire.

    Use it as a context manager: it starts on entry, and on exit finishes everything that was fired::

        with Rigger("rigger.yaml") as rigger:
            rigger.fire_hook("start_session", name="nightly")

    or as riggerlib is used: register plugins, :meth:`parse_config`, set ``initialized = True``, fire.

    Args:
        config: a path of a YAML file, a mapping, or ``None``: then set ``config`` before the start.
        plugins: plugin classes by name, as :meth:`register_plugin` would take them.

    Attributes:
        config: the configuration, a mapping. Changes after the start have no effect, until :meth:`reload`.
        initialized: whether events may be fired; a context manager and :meth:`start` set it.
        plugins: the registered plugin classes by name.
    """

    def __init__(
        self,
        config: str | os.PathLike[str] | Mapping[str, Any] | None = None,
        plugins: Mapping[str, type] | None = None,
    ) -> None:
        self.config: Mapping[str, Any] = config if isinstance(config, Mapping) else {}
        self.config_file = None if config is None or isinstance(config, Mapping) else Path(config)
        self.plugins: dict[str, type] = {}
        self.initialized = False
        self._engine: Engine | None = None
        self._deployment: Deployment | None = None
        self._squash: bool | None = None
        self._settings: Settings | None = None
        self._initial_globals: dict[str, Any] = {}
        self._callbacks = Callbacks()
        self._instances: dict[str, InstanceHandle] = {}
        self._lifecycle = threading.RLock()
        for name, plugin in (plugins or {}).items():
            self.register_plugin(plugin, name)

    # -- life --------------------------------------------------------------------------------------------

    def __reduce__(self) -> Any:
        raise TypeError(
            "a Rigger stays in its own process: a callback must not refer to one; "
            "a plugin fires with self.fire_hook(...)"
        )

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> Self:
        """Start the engine and wait until every instance is initialised; returns the engine itself.

        Raises:
            ConfigError: the configuration is wrong.
            PluginError: with ``strict: true``: an instance cannot be made.
            StartError: a process failed to start, or the archive's spool cannot be opened.
            NotRunningError: it was stopped.
        """
        if self._engine is None:
            self.parse_config()
        elif self._engine.stopped:
            raise NotRunningError("the engine was stopped, and is not started again: make another Rigger")
        self.initialized = True
        return self

    def stop(self, graceful_timeout: float | None = None) -> None:
        """Accept no more events, finish those accepted, and end every process; once that is done, do nothing.

        Args:
            graceful_timeout: seconds to finish in; then everything is killed and what was not finished
                ends in ``EngineLost``; background jobs in a spool stay there for the next start. Default:
                the configuration's.
        """
        deployment = self._deployment
        if deployment is None or not deployment.can_stop:
            return
        if graceful_timeout is None:
            graceful_timeout = self._current_settings().graceful_timeout
        for text in deployment.stop(graceful_timeout):
            self.log_message(text)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the engine has been stopped, by another thread or by a client.

        Args:
            timeout: seconds to wait, ``None`` for ever.

        Returns:
            Whether it has been stopped.
        """
        return self._running().wait_until_stopped(timeout)

    def drain(self, timeout: float | None = None) -> None:
        """Wait until nothing that was fired is unfinished, nested and background hooks included.

        Args:
            timeout: seconds to wait, ``None`` for ever.

        Raises:
            TimeoutError: something had not ended by then.
        """
        engine = self._running()
        engine.refuse_on_results_thread("drain()")
        engine.request(m.Drain).result(timeout)

    def reload(
        self,
        config: str | os.PathLike[str] | Mapping[str, Any] | None = None,
        plugins: Mapping[str, type] | None = None,
    ) -> None:
        """Put configuration and plugin code, as they are now, in the place of what runs; no event is lost or run twice.

        New processes start beside those that serve and import every plugin anew. When all their instances are made they
        take over, in the order of events: what was fired before ends with the old code and configuration, what is fired
        after this method has returned runs with the new. The old processes then end; background handlers that
        still wait in the old archive process are finished there, before the new one begins.

        The new instances are made while the old ones still serve: what only one process can have, such as a port,
        had better be taken when it is first needed. They start with fresh state, and get the ``configure`` calls
        recorded for their names. Callbacks are kept; those that are not ``concurrent`` start with fresh state,
        too. The global namespace is kept. A second reload waits for the first.

        If anything is wrong, the old configuration and the old processes stay, untouched. An instance that does not
        work is only tolerated where it had not worked before, and not with ``strict: true``.

        Args:
            config: the new configuration, a path or a mapping. ``None``: the file is read again; where there is
                none, ``config`` is taken as it is now.
            plugins: plugin classes by name that are new, or take the place of registered ones. Classes that
                Python can import are imported anew anyway; those defined in ``__main__`` are not.

        Raises:
            ConfigError: the configuration is wrong, or changes what only a restart can: ``queue_size``, ``list_merge``,
                ``max_output``, ``retry_delay``, ``archive.spool``, or of a running server what begins with ``server_``.
            PluginError: an instance cannot be made.
            StartError: a process failed to start.
            NotRunningError: the engine is not started, or stopped meanwhile.
            EngineLost: the engine ended before it was done.
            DeadlockError: called on the thread that delivers outcomes.
        """
        self._running().refuse_on_results_thread("reload()")
        assert self._deployment is not None
        said = self._deployment.reloader.reload(
            lambda: self._read_candidate(config if config is not None else self.config_file or self.config),
            lambda: {**self.plugins, **check_classes(plugins or {})},
            self._squash,
        )
        for text in said:
            self.log_message(text)

    def _read_candidate(self, source: str | os.PathLike[str] | Mapping[str, Any]) -> Candidate:
        from rigger_mp.candidate import read_candidate  # noqa: PLC0415 - see the module

        return read_candidate(source)

    def _adopt(self, running: Running) -> None:
        candidate = running.candidate
        self.config, self.config_file, self._settings = candidate.config, candidate.config_file, candidate.settings
        self.plugins = dict(running.plugins)
        self._instances = list_handles(self, self.config, self._instances)

    def parse_config(self) -> None:
        """Read the configuration, make the plugin instances, start the server if it is enabled.

        Override it to do these three otherwise; calling this one is not needed then.
        """
        self.read_config(self.config_file)
        self.setup_plugin_instances()
        self.start_server()

    def read_config(self, config_file: str | os.PathLike[str] | None) -> None:
        """Read a YAML file into ``config``; with ``None``, check the ``config`` that is there.

        Raises:
            ConfigError: with every mistake, as ``file:line:column: what is wrong, what was expected``.
        """
        from rigger_mp.config import check_mapping, read_yaml  # noqa: PLC0415 - see the module

        if config_file is None:
            warnings = check_mapping(self.config)
        else:
            loaded = read_yaml(config_file)
            self.config, warnings = loaded.config, loaded.warnings
        for warning in warnings:
            self.log_message(warning)

    def setup_plugin_instances(self) -> None:
        """Find the plugins of all enabled instances and start the engine's processes with them.

        An instance that cannot be made is named in :meth:`log_message` and left out.

        Raises:
            ConfigError: the configuration is wrong.
            PluginError: with ``strict: true``: an instance cannot be made.
            StartError: a process failed to start, or the archive's spool cannot be opened.
        """
        from rigger_mp.config import configure_logging  # noqa: PLC0415 - see the module
        from rigger_mp.discovery import find_instances  # noqa: PLC0415

        with self._lifecycle:
            if self._engine is not None:
                raise NotRunningError("the engine was started before; make another Rigger")
            candidate = self._candidate()
            configure_logging(candidate.settings.logging)
            found = find_instances(self.config, self.plugins, candidate.base)
            self._report(found.problems, candidate.settings)
            self._instances = list_handles(self, self.config, self._instances)
            self._launch(candidate, found)

    def _launch(self, candidate: Candidate, found: Found) -> None:
        from rigger_mp.deployment import Deployment  # noqa: PLC0415 - see the module
        from rigger_mp.engine.listener import Listener  # noqa: PLC0415
        from rigger_mp.reloader import Running, encode_config  # noqa: PLC0415

        running = Running(candidate, self.plugins, found, encode_config(self.config))
        listener = Listener(self._on_failure, self.log_message, self.handle_output, self.handle_record)
        self._deployment = Deployment(running, self.squash_exceptions, listener, self._adopt)
        self._engine = engine = self._deployment.engine
        self._deployment.wait_until_ready(self.stop)
        try:
            self._report(engine.problems, candidate.settings)
            if self._initial_globals:
                self._write(dump_assignments(self._initial_globals), True)
            for binding in self._callbacks:
                engine.tell(binding.message())
        except BaseException:
            self.stop(0.0)
            raise

    def _report(self, problems: tuple[str, ...], settings: Settings) -> None:
        if problems and settings.strict:
            raise PluginError("strict: true, and not every instance can be made:\n" + "\n".join(problems))
        for problem in problems:
            self.log_message(problem)

    def _current_settings(self) -> Settings:
        if self._settings is None:
            from rigger_mp.config import Settings  # noqa: PLC0415 - see the module

            self._settings = Settings.from_config(self.config)
        return self._settings

    def _candidate(self) -> Candidate:
        from rigger_mp.candidate import Candidate  # noqa: PLC0415 - see the module

        return Candidate(self.config, self.config_file, self._current_settings(), ())

    def _running(self) -> Engine:
        if self._engine is None:
            raise NotRunningError(
                "the engine is not started: use 'with Rigger(...) as rigger:', call start(), "
                "or call parse_config() and set initialized = True"
            )
        return self._engine

    # -- events ------------------------------------------------------------------------------------------

    def fire_hook(self, hook: str, /, *, wait: bool = True, **kwargs: Any) -> HookResult | None:
        """Fire a hook and wait for its end.

        Args:
            hook: the event's name.
            wait: false: return ``None`` as soon as the event is accepted; what goes wrong is given to
                :meth:`handle_failure`.
            kwargs: the event's local namespace. Each value travels by value.

        Returns:
            The event's namespaces when it ended: locals, then globals.

        Raises:
            HookError: functions of the event failed (``squash_exceptions: false``).
            EventLost: as one of its subclasses: the process that ran it was lost.
            SpoolError: its background functions could not be written to the spool; none of them is run.
            EncodingError: an argument cannot be pickled.
            NotRunningError: the engine is not started, or stopped.
            DeadlockError: called, with ``wait``, where it would wait for ever: in a callback of a future,
                in ``handle_failure`` or ``log_message``.
            TypeError: the event's name is no string.
        """
        if not wait:
            self._submit(hook, kwargs, None)
            return None
        engine = self._running()
        engine.refuse_on_results_thread(f"fire_hook({hook!r})")
        self._check_initialized()
        hook = hook if type(hook) is str else plain_name(hook, "a hook")
        return engine.call(hook, dump_with_segment(dump_arguments, kwargs)).open()

    def submit(self, hook: str, /, **kwargs: Any) -> HookFuture:
        """Fire a hook and return a future of what :meth:`fire_hook` would return.

        Waits only for room in the queue (``queue_size``).

        Raises:
            EncodingError: an argument cannot be pickled.
            NotRunningError: the engine is not started, or stopped.
            QueueFull: there is no room, and this is the thread that delivers outcomes.
            TypeError: the event's name is no string.
        """
        future = self._running().make_future()
        self._submit(hook, kwargs, future)
        return future

    def _submit(self, hook: str, kwargs: dict[str, Any], future: HookFuture | None) -> None:
        engine = self._running()
        self._check_initialized()
        hook = hook if type(hook) is str else plain_name(hook, "a hook")
        engine.submit(hook, dump_with_segment(dump_arguments, kwargs), future)

    def _check_initialized(self) -> None:
        if not self.initialized:
            raise NotRunningError("set initialized = True before firing hooks (start() does)")

    # -- namespaces --------------------------------------------------------------------------------------

    @property
    def global_data(self) -> Any:
        """The global namespace: a live mapping (:class:`GlobalData`); assign a mapping to replace it all.

        Reading waits for nothing; assigning is sequenced with the events and returns when it is done.
        """
        if self._engine is None:
            return self._initial_globals
        return GlobalData(self._engine.reader, lambda: self._running().latest_version, self._write)

    @global_data.setter
    def global_data(self, values: Mapping[str, Any]) -> None:
        if isinstance(values, GlobalData) and self._engine is not None and values.is_read_by(self._engine.reader):
            return  # global_data |= ... has done it already
        if self._engine is None:
            self._initial_globals = dict(checked_names(values))
        else:
            self._write(dump_assignments(checked_names(values)), True)

    def _write(self, updates: bytes, clear: bool) -> None:
        engine = self._running()
        engine.refuse_on_results_thread("assigning to global_data")
        engine.request(lambda token: m.Write(token, updates, clear)).result()

    # -- options -----------------------------------------------------------------------------------------

    @property
    def squash_exceptions(self) -> bool:
        """Whether a failing function is only given to :meth:`handle_failure` and its event goes on."""
        if self._squash is not None:
            return self._squash
        return bool(self.config.get("squash_exceptions", False))

    @squash_exceptions.setter
    def squash_exceptions(self, squash: bool) -> None:
        self._squash = bool(squash)
        if self._engine is not None and self._engine.accepting:
            self._engine.tell(m.Option(0, self._squash))

    # -- plugins -----------------------------------------------------------------------------------------

    def register_plugin(self, cls: type, plugin_name: str | None = None) -> None:
        """Make a plugin class known under a name, for instances to refer to.

        Raises:
            DuplicatePluginError: another class has the name.
            PluginError: it is no class, or the name is missing.
        """
        self.plugins[check_registration(self.plugins, plugin_name, cls)] = cls

    def get_instance_obj(self, name: str) -> InstanceHandle | None:
        """Return a handle of an instance, ``None`` if there is none; the instance itself is elsewhere."""
        return self._instances.get(name)

    def get_instance_data(self, name: str) -> Any:
        """Return an instance's entry in the configuration, ``None`` if there is none."""
        handle = self._instances.get(name)
        return handle.data if handle is not None else None

    def configure_plugin(self, name: str, /, *args: Any, **kwargs: Any) -> None:
        """Call ``configure`` of an instance, in order with the events; again whenever it is made anew.

        An instance that is not in the configuration, or not enabled, is left alone.

        Raises:
            HookError: ``configure`` failed.
            EncodingError: an argument cannot be pickled.
        """
        engine = self._running()
        if name not in self._instances:
            self.log_message(f"instance [{name}] does not exist: is the configuration correct?")
            return
        engine.refuse_on_results_thread("configure_plugin()")
        call = dump_value((args, kwargs))
        ident = plain_name(name, "an instance")
        engine.request(lambda token: m.Configure(token, ident, call)).result()

    # -- callbacks ---------------------------------------------------------------------------------------

    def register_hook_callback(
        self,
        hook_name: str,
        ctype: str = "pre",
        callback: Callback | None = None,
        name: str | None = None,
        *,
        concurrent: bool = False,
    ) -> str:
        """Call a function before (``"pre"``) or after (``"post"``) the hook functions of an event.

        It holds for the events fired from now on. A callback of the same hook, type and name is replaced.

        Args:
            hook_name: the event.
            ctype: ``"pre"`` or ``"post"``.
            callback: any callable; it runs in a worker process, in a copy of its own.
            name: what to unregister it by.
            concurrent: any worker may run it, and it does not mind overlapping with other events.

        Returns:
            The name.

        Raises:
            ValueError: ``ctype`` is neither, or Python cannot tell what ``callback`` takes.
            TypeError: ``callback`` cannot be called.
            EncodingError: the callback cannot be pickled.
        """
        binding = self._callbacks.make(hook_name, ctype, callback, name, concurrent=concurrent)
        if self._engine is not None:
            self._engine.tell(binding.message())
        self._callbacks.keep(binding)
        return binding.name

    def unregister_hook_callback(self, hook_name: str, ctype: str, name: str) -> None:
        """Take a callback away, for the events fired from now on.

        Raises:
            UnknownCallbackError: there is none of that name.
        """
        binding = self._callbacks.find(hook_name, ctype, name)
        if self._engine is not None:
            self._engine.tell(m.Unbind(0, binding.hook, binding.stage, binding.name))
        self._callbacks.drop(binding)

    # -- what users override -----------------------------------------------------------------------------

    def handle_failure(self, exc: tuple[Any, Any, Any]) -> None:
        """Handle a failure that no caller gets: a squashed one, or that of a background or nested hook.

        Override it. It is called in the user's process, in the thread that delivers outcomes.

        Args:
            exc: like ``sys.exc_info()``; the exception's cause holds the remote traceback.
        """
        import traceback  # noqa: PLC0415 - only where something failed

        self.log_message("".join(traceback.format_exception(*exc)))

    def log_message(self, message: object) -> None:
        """Say something to the user; override it. The default prints."""
        print(message)

    def handle_output(self, output: Output) -> None:
        """Handle what a hook printed; override it. The default writes it to the stream of the same name here.

        Args:
            output: its ``text`` and ``stream`` (``stdout``, ``stderr``), and the ``hook``, ``plugin``, ``event``
                and ``pid`` that it comes from.
        """
        write_output(output)

    def handle_record(self, record: logging.LogRecord) -> None:
        """Handle a log record of a hook; override it. The default gives it to the logger of its name here.

        Args:
            record: has ``hook``, ``plugin``, ``event`` and ``worker_pid``, which say where it comes from, as
                attributes.
        """
        handle_record(record)

    def _on_failure(self, error: BaseException) -> None:
        self.handle_failure((type(error), error, error.__traceback__))

    # -- looking in --------------------------------------------------------------------------------------

    def stats(self) -> dict[str, Any]:
        """Return what has happened so far.

        ``generation`` (1, and one more with each :meth:`reload`), ``events`` (accepted, ended, succeeded, failed,
        lost, pending), ``hooks`` and ``functions`` by name (counts, seconds; for a hook whether it is concurrent,
        and which functions keep it ordered), and ``processes`` (role, pid, jobs, CPU seconds, memory in
        bytes, restarts).
        """
        from rigger_mp.engine.stats import complete_stats  # noqa: PLC0415 - see the module

        engine = self._running()
        return complete_stats(engine.ask_stats(), engine.pids, engine.dispatcher_restarts)

    # -- the server --------------------------------------------------------------------------------------

    def start_server(self) -> None:
        """Start the TCP server if ``server_enabled`` is set; the process then lives until it is stopped.

        Raises:
            ConfigError: other machines could reach it unprotected, or a file that it needs cannot be read.
            StartError: it cannot listen at ``server_address`` and ``server_port``.
        """
        if self._current_settings().server_enabled and self.server_address is None:
            try:
                self._serve()
            except BaseException:
                self.stop(0.0)
                raise

    def _serve(self) -> None:
        self._running()
        from rigger_mp.deployment import Owner  # noqa: PLC0415 - see the module

        assert self._deployment is not None
        self._deployment.serve(
            self._candidate(), Owner(self._try_submit, self.stats, self.stop_server, self.log_message)
        )

    def _try_submit(
        self, hook: str, arguments: Arguments, waiter: Waiter, note: Callable[[int], None] | None, since: int
    ) -> bool:
        self._check_initialized()
        return self._running().try_submit(hook, arguments, waiter, note, since)

    @property
    def server_address(self) -> tuple[str, int] | None:
        """The host and port that the TCP server listens at, ``None`` if it was not started."""
        return self._deployment.server_address if self._deployment is not None else None

    def stop_server(self) -> None:
        """Stop the TCP server and the engine, as :meth:`stop`."""
        self.stop()


def _format_failure(exc: tuple[Any, Any, Any]) -> Iterator[str]:
    import traceback  # noqa: PLC0415 - only where something failed

    yield from traceback.format_exception(*exc)
