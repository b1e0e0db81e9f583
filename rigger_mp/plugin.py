"""The base class of plugins, and what an instance sees of the engine that runs it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from functools import wraps
from typing import Any, NamedTuple, ParamSpec, Protocol, TypeVar

from rigger_mp.errors import PluginError
from rigger_mp.plain_text import plain_name

P = ParamSpec("P")
R = TypeVar("R")


class EngineLink(Protocol):
    """What a plugin instance may ask of the engine, from inside its own process."""

    def fire_hook(self, hook: str, /, **kwargs: Any) -> None:
        """Queue an event behind those already accepted and return at once."""

    def log_message(self, message: object) -> None:
        """Have ``Rigger.log_message`` called in the user's process."""


current_link: ContextVar[EngineLink | None] = ContextVar("current_link", default=None)
"""The engine of the host that is making an instance; lets constructors take ``(ident, data)`` only."""


class HookRegistration(NamedTuple):
    """One function bound to one event by ``register_plugin_hook``."""

    func: Callable[..., Any]
    bg: bool
    concurrent: bool


class RiggerBasePlugin:
    """Base class of every plugin.

    Derive from it, bind functions to events in :meth:`plugin_initialize`, and name an instance of the
    plugin under ``plugins:`` in the configuration. The instance lives in a worker process.

    Attributes:
        stateless: set it to ``True`` on the class to let any worker run the plugin: every worker then
            has a copy, and events overlap. Default: the instance lives in exactly one worker and
            ``self`` keeps its state from hook to hook.
        ident: the instance's name in the configuration.
        data: the instance's own configuration, a mapping.
        configured: whether :meth:`configure` has been called.
    """

    stateless: bool = False

    def __init__(self, ident: str, data: Mapping[str, Any], rigger: EngineLink | None = None) -> None:
        self.callbacks: dict[str, HookRegistration] = {}
        self.ident = ident
        self.data = data
        self.configured = False
        self._link = rigger or current_link.get()
        self.plugin_initialize()

    def plugin_initialize(self) -> None:
        """Bind functions to events with :meth:`register_plugin_hook`; called once per instance."""

    def register_plugin_hook(
        self,
        event: str,
        callback: Callable[..., Any] | None = None,
        bg: bool = False,
        concurrent: bool = False,
    ) -> None:
        """Bind a function to an event; a second function for the same event takes the first's place.

        Args:
            event: the event's name.
            callback: what to call; omitted, the method named like the event.
            bg: run it in the archive process, on the archive's own copy of the instance; the event
                does not wait for it.
            concurrent: it does not mind overlapping with other events.

        Raises:
            PluginError: there is no method named like the event, or ``callback`` cannot be called.
            TypeError: the event's name is no string.
        """
        event = plain_name(event, "a hook")
        func = callback if callback is not None else getattr(self, event, None)
        if not callable(func):
            name = type(self).__name__
            raise PluginError(
                f"plugin instance {self.ident!r}: no function for event {event!r}: "
                f"give register_plugin_hook a callback, or define {name}.{event}"
            )
        self.callbacks[event] = HookRegistration(func, bool(bg), bool(concurrent))

    def configure(self, *args: Any, **kwargs: Any) -> None:
        """Receive what ``Rigger.configure_plugin`` sends; override it and set ``self.configured``."""
        self.configured = True

    def fire_hook(self, hook: str, /, **kwargs: Any) -> None:
        """Queue an event behind those already accepted, and return at once.

        Raises:
            EncodingError: an argument cannot be pickled.
            PluginError: the instance was made outside an engine.
        """
        if self._link is None:
            raise PluginError(f"plugin instance {self.ident!r} runs in no engine: it cannot fire hooks")
        self._link.fire_hook(hook, **kwargs)

    @staticmethod
    def check_configured(func: Callable[P, R]) -> Callable[P, R | None]:
        """Decorate a method so that it does nothing until the instance has been configured."""
        if inspect.iscoroutinefunction(func):

            @wraps(func)
            async def inner_async(*args: P.args, **kwargs: P.kwargs) -> Any:
                return await func(*args, **kwargs) if args[0].configured else None  # type: ignore[attr-defined]

            return inner_async  # type: ignore[return-value]

        @wraps(func)
        def inner(*args: P.args, **kwargs: P.kwargs) -> R | None:
            return func(*args, **kwargs) if args[0].configured else None  # type: ignore[attr-defined]

        return inner
