"""What a hook function or callback takes, found out once by its signature."""

# Not from __future__ import annotations: typing compiles each annotation of a named tuple that is a string.
import inspect
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from rigger_mp.plain_text import plain_text


class HostCallable(NamedTuple):
    """A function with what calling it needs.

    Attributes:
        func: the function.
        label: what people call it by: ``adder.add``; of a callback, its name.
        stage: ``"pre"``, ``"hook"``, ``"post"`` or ``"background"``.
        parameters: ``(name, required)`` of each parameter that it names.
        positional: the names that must be passed by position.
        takes_all: it has a ``**kwargs`` parameter.
        is_async: it is an ``async def`` function.
        time_limit: seconds that it may run, ``None`` for ever.
    """

    func: Callable[..., Any]
    label: str
    stage: str
    parameters: tuple[tuple[str, bool], ...]
    positional: tuple[str, ...]
    takes_all: bool
    is_async: bool
    time_limit: float | None

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the parameters."""
        return tuple(name for name, _ in self.parameters)

    def takes_at_least(self, count: int) -> bool:
        """Tell whether it can be called with ``count`` positional arguments."""
        try:
            inspect.signature(self.func).bind(*range(count))
        except TypeError:
            return False
        return True

    def take_positional(self, values: dict[str, Any]) -> list[Any]:
        """Take the arguments that must be passed by position out of ``values``."""
        args: list[Any] = []
        for name in self.positional:
            if name not in values:
                break  # it has a default, and so have those after it
            args.append(values.pop(name))
        return args


def describe_callable(
    func: Callable[..., Any],
    *,
    owner: str = "",
    label: str = "",
    stage: str = "hook",
    time_limit: float | None = None,
) -> HostCallable:
    """Inspect a function.

    Args:
        func: anything callable whose signature Python can tell.
        owner: the ident of its plugin instance.
        label: its name, where ``owner`` and the function's own name do not give it.
        stage: where it runs.
        time_limit: seconds that it may run.

    Raises:
        ValueError: Python cannot tell its signature.
        TypeError: it is not callable.
    """
    kinds = inspect.Parameter
    parameters = list(inspect.signature(func).parameters.values())
    named = [p for p in parameters if p.kind not in (kinds.VAR_POSITIONAL, kinds.VAR_KEYWORD)]
    return HostCallable(
        func=func,
        label=label or _label(func, owner),
        stage=stage,
        parameters=tuple((p.name, p.default is kinds.empty) for p in named),
        positional=tuple(p.name for p in named if p.kind is kinds.POSITIONAL_ONLY),
        takes_all=any(p.kind is kinds.VAR_KEYWORD for p in parameters),
        is_async=_is_async(func),
        time_limit=time_limit,
    )


def _label(func: Callable[..., Any], owner: str) -> str:
    name = getattr(func, "__name__", type(func).__name__)
    return f"{owner}.{name}" if owner else plain_text(name)


def _is_async(func: Any) -> bool:
    while isinstance(func, partial):
        func = func.func
    return inspect.iscoroutinefunction(func) or inspect.iscoroutinefunction(getattr(func, "__call__", None))  # noqa: B004
