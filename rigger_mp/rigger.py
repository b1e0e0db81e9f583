"""The public face of an engine: :class:`Rigger`.

A plugin's module often imports it beside the base class, and so does every worker then, which starts no engine. What
starts one is therefore imported with this module in the user's process, and elsewhere on first use.
"""

from __future__ import annotations

import atexit
import inspect
import itertools
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from rigger_mp.encoding import dump_arguments, dump_assignments, dump_value
from rigger_mp.engine import messages as m
from rigger_mp.engine.output import handle_record, write_output
from rigger_mp.engine.segments import dump_with_segment
from rigger_mp.errors import (
    DuplicatePluginError,
    NotRunningError,
    PluginError,
    SpoolError,
    UnknownCallbackError,
)
from rigger_mp.future import HookFuture
from rigger_mp.global_data import GlobalData, checked_names
from rigger_mp.instance import InstanceHandle

if TYPE_CHECKING:
    from rigger_mp.candidate import Candidate
    from rigger_mp.config import Settings
    from rigger_mp.discovery import Found
    from rigger_mp.engine.engine import Engine
    from rigger_mp.engine.messages import Output
    from rigger_mp.engine.pending import Waiter
    from rigger_mp.engine.segments import Arguments
    from rigger_mp.net.event_store import EventStore
    from rigger_mp.net.server import Server
    from rigger_mp.reloader import Reloader, Running
    from rigger_mp.result import HookResult

# Only the engine's own processes have the module that they boot with.
if "rigger_mp.engine.boot" not in sys.modules:
    for _module in ("reloader", "engine.stats"):
        import_module(f"rigger_mp.{_module}")

STAGES = ("pre", "post")
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
        self._squash: bool | None = None
        self._settings: Settings | None = None
        self._initial_globals: dict[str, Any] = {}
        self._callbacks: dict[tuple[str, str], dict[str, Callback]] = {}
        self._concurrent_callbacks: set[tuple[str, str, str]] = set()
        self._callback_names = itertools.count(1)
        self._instances: dict[str, InstanceHandle] = {}
        self._lifecycle = threading.RLock()
        self._server: Server | None = None
        self._reloader: Reloader | None = None
        self._spool = ""
        self._store: EventStore | None = None
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
        """
        if self._engine is None:
            self.parse_config()
        self.initialized = True
        return self

    def stop(self, graceful_timeout: float | None = None) -> None:
        """Accept no more events, finish those accepted, and end every process; once that is done, do nothing.

        Args:
            graceful_timeout: seconds to finish in; then everything is killed and what was not finished
                ends in ``EngineLost``; background jobs in a spool stay there for the next start. Default:
                the configuration's.
        """
        engine = self._engine
        if engine is None or engine.stopped or not engine.is_own_process:
            return  # a forked copy of this process must not stop the engine of the original
        if graceful_timeout is None:
            graceful_timeout = self._current_settings().graceful_timeout
        engine.refuse_on_results_thread("stop()")
        if self._server is not None:
            self._server.refuse()
        if self._reloader is not None:
            self._reloader.stop()
        try:
            engine.stop(graceful_timeout)
        finally:
            if self._server is not None:
                self._server.close()
            if self._store is not None:
                self._store.close()
        atexit.unregister(self._stop_at_exit)
        self._tell_kept()

    def _tell_kept(self) -> None:
        """Tell how many background jobs were not finished and stay in the spool."""
        if not self._spool:
            return
        from rigger_mp.engine.spool_file import read_jobs  # noqa: PLC0415 - SQLite only where it is needed

        try:
            kept = len(read_jobs(Path(self._spool)))
        except SpoolError as error:
            self.log_message(str(error))
            return
        if kept:
            self.log_message(f"{kept} background jobs stay in {self._spool} for the next start")

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
        engine, reloader = self._running(), self._reloader
        engine.refuse_on_results_thread("reload()")
        assert reloader is not None
        said = reloader.reload(
            lambda: self._read_candidate(config if config is not None else self.config_file or self.config),
            lambda: {**self.plugins, **checked_plugins(plugins or {})},
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
        self._adopt_instances()

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
            settings = self._current_settings()
            configure_logging(settings.logging)
            found = find_instances(self.config, self.plugins, self._base)
            self._report(found.problems, settings)
            self._adopt_instances()
            self._launch(settings, found)

    def _adopt_instances(self) -> None:
        known, self._instances = self._instances, {}
        for ident, data in self._entries().items():
            handle = self._instances[ident] = known.get(ident) or InstanceHandle(self, ident, data)
            handle.data = data

    def _launch(self, settings: Settings, found: Found) -> None:
        from rigger_mp.candidate import Candidate  # noqa: PLC0415 - see the module
        from rigger_mp.engine.build import build_boot  # noqa: PLC0415
        from rigger_mp.engine.engine import Engine, Listener  # noqa: PLC0415
        from rigger_mp.reloader import Reloader, Running, encode_config  # noqa: PLC0415

        config = encode_config(self.config)
        boot = build_boot(settings, found.instances, config, self.squash_exceptions, self._base)
        self._spool = boot.spool
        listener = Listener(self._on_failure, self.log_message, self.handle_output, self.handle_record)
        self._store = self._open_store(settings)
        marks_fd = os.dup(self._store.marks_fd) if self._store is not None else None
        self._engine = Engine(boot, ("M", (config,)), listener, marks_fd)
        candidate = Candidate(self.config, self.config_file, settings, ())
        self._reloader = Reloader(self._engine, Running(candidate, self.plugins, found, config), self._adopt)
        self._engine.wait_until_ready()
        atexit.register(self._stop_at_exit)
        try:
            self._report(self._engine.problems, settings)
            if self._initial_globals:
                self._write(dump_assignments(self._initial_globals), True)
            for (hook, stage), callbacks in self._callbacks.items():
                for name, callback in callbacks.items():
                    self._bind(hook, stage, name, callback)
        except BaseException:
            self.stop(0.0)
            raise

    @property
    def _base(self) -> Path | None:
        """What relative paths of the configuration are relative to; ``None``: the current directory."""
        return self.config_file.parent if self.config_file is not None else None

    def _report(self, problems: tuple[str, ...], settings: Settings) -> None:
        if problems and settings.strict:
            raise PluginError("strict: true, and not every instance can be made:\n" + "\n".join(problems))
        for problem in problems:
            self.log_message(problem)

    def _stop_at_exit(self) -> None:
        if self._engine is not None and self._engine.is_own_process:
            self.stop()

    def _current_settings(self) -> Settings:
        if self._settings is None:
            from rigger_mp.config import Settings  # noqa: PLC0415 - see the module

            self._settings = Settings.from_config(self.config)
        return self._settings

    def _entries(self) -> dict[str, Any]:
        return dict(self.config.get("plugins") or {})

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
        """
        if not wait:
            self._submit(hook, kwargs, None)
            return None
        engine = self._running()
        engine.refuse_on_results_thread(f"fire_hook({hook!r})")
        self._check_initialized()
        return engine.call(str(hook), dump_with_segment(dump_arguments, kwargs)).open()

    def submit(self, hook: str, /, **kwargs: Any) -> HookFuture:
        """Fire a hook and return a future of what :meth:`fire_hook` would return.

        Waits only for room in the queue (``queue_size``).

        Raises:
            EncodingError: an argument cannot be pickled.
            NotRunningError: the engine is not started, or stopped.
            QueueFull: there is no room, and this is the thread that delivers outcomes.
        """
        future = self._running().make_future()
        self._submit(hook, kwargs, future)
        return future

    def _submit(self, hook: str, kwargs: dict[str, Any], future: HookFuture | None) -> None:
        engine = self._running()
        self._check_initialized()
        engine.submit(str(hook), dump_with_segment(dump_arguments, kwargs), future)

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
        if not plugin_name:
            raise PluginError("a plugin needs a name: register_plugin(cls, 'name')")
        checked_plugins({plugin_name: cls})
        if self.plugins.get(plugin_name, cls) is not cls:
            raise DuplicatePluginError(
                f"plugin name {plugin_name!r} is taken by {self.plugins[plugin_name].__qualname__}; "
                f"register {cls.__qualname__} under another one"
            )
        self.plugins[plugin_name] = cls

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
        engine.request(lambda token: m.Configure(token, name, call)).result()

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
        if ctype not in STAGES:
            raise ValueError(f"ctype must be 'pre' or 'post', not {ctype!r}")
        if not callable(callback):
            raise TypeError(f"callback of hook {hook_name!r}: expected something callable, got {callback!r}")
        inspect.signature(callback)
        name = name or f"callback-{next(self._callback_names)}"
        key = (hook_name, ctype, name)
        (self._concurrent_callbacks.add if concurrent else self._concurrent_callbacks.discard)(key)
        if self._engine is not None:
            self._bind(hook_name, ctype, name, callback)
        self._callbacks.setdefault((hook_name, ctype), {})[name] = callback
        return name

    def _bind(self, hook: str, stage: str, name: str, callback: Callback) -> None:
        from rigger_mp.engine.build import describe_callback  # noqa: PLC0415 - see the module

        label, reads = describe_callback(callback, name)
        concurrent = (hook, stage, name) in self._concurrent_callbacks
        self._running().tell(m.Bind(0, hook, stage, name, label, dump_value(callback), reads, concurrent))

    def unregister_hook_callback(self, hook_name: str, ctype: str, name: str) -> None:
        """Take a callback away, for the events fired from now on.

        Raises:
            UnknownCallbackError: there is none of that name.
        """
        callbacks = self._callbacks.get((hook_name, ctype), {})
        if name not in callbacks:
            raise UnknownCallbackError(f"hook {hook_name!r} has no {ctype} callback {name!r}")
        if self._engine is not None:
            self._engine.tell(m.Unbind(0, hook_name, ctype, name))
        del callbacks[name]

    # -- what users override -----------------------------------------------------------------------------

    def handle_failure(self, exc: tuple[Any, Any, Any]) -> None:
        """Handle a failure that no caller gets: a squashed one, or that of a background or nested hook.

        Override it. It is called in the user's process, in the thread that delivers outcomes.

        Args:
            exc: like ``sys.exc_info()``; the exception's cause holds the remote traceback.
        """
        self.log_message("".join(_format_failure(exc)))

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
        if self._current_settings().server_enabled and self._server is None:
            try:
                self._server = self._listen()
            except BaseException:
                self.stop(0.0)
                raise

    def _listen(self) -> Server:
        from rigger_mp.net.server import listen  # noqa: PLC0415 - only where it is enabled
        from rigger_mp.net.service import Backend  # noqa: PLC0415

        backend = Backend(
            self._try_submit,
            self._running().look_for,
            self._running().when_room,
            self.stats,
            self._stop_soon,
            self.log_message,
            self._store,
        )
        settings = self._current_settings()
        return listen(settings.server_address, settings.server_port, self.config, backend)

    def _try_submit(
        self, hook: str, arguments: Arguments, waiter: Waiter, note: Callable[[int], None] | None, since: int
    ) -> bool:
        self._check_initialized()
        return self._running().try_submit(hook, arguments, waiter, note, since)

    def _open_store(self, settings: Settings) -> EventStore | None:
        path = self.config.get("server_store")
        if not (settings.server_enabled and path):
            return None
        from rigger_mp.net.event_store import EventStore  # noqa: PLC0415 - only where it is enabled

        return EventStore(Path(path), settings.queue_size)

    @property
    def server_address(self) -> tuple[str, int] | None:
        """The host and port that the TCP server listens at, ``None`` if it was not started."""
        return self._server.address if self._server is not None else None

    def stop_server(self) -> None:
        """Stop the TCP server and the engine, as :meth:`stop`."""
        self.stop()

    def _stop_soon(self) -> None:
        threading.Thread(target=self.stop_server, name="rigger_mp stop").start()


def checked_plugins(plugins: Mapping[str, type]) -> Mapping[str, type]:
    """Return plugin classes by name.

    Raises:
        PluginError: one is no class.
    """
    for name, cls in plugins.items():
        if not isinstance(cls, type):
            raise PluginError(f"plugin {name!r}: expected a class, got {cls!r}")
    return plugins


def _format_failure(exc: tuple[Any, Any, Any]) -> Iterator[str]:
    import traceback  # noqa: PLC0415 - only where something failed

    yield from traceback.format_exception(*exc)
