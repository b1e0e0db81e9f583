"""The callbacks that a user has registered, as the user's process keeps them: bound again whenever an engine starts."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from rigger_mp.encoding import dump_value
from rigger_mp.engine import messages as m
from rigger_mp.errors import UnknownCallbackError
from rigger_mp.plain_text import plain_name

STAGES = ("pre", "post")


@dataclass(frozen=True, slots=True)
class Binding:
    """A callback at its place.

    Attributes:
        hook: the event that it is called at.
        stage: ``"pre"`` or ``"post"``.
        name: what it is unregistered by.
        callback: the callable.
        concurrent: whether any worker may run it, beside other events.
    """

    hook: str
    stage: str
    name: str
    callback: Callable[..., object]
    concurrent: bool

    def message(self) -> m.Bind:
        """Return what tells the engine of it.

        Raises:
            EncodingError: the callback cannot be pickled.
        """
        from rigger_mp.engine.build import describe_callback  # noqa: PLC0415 - imports what starts an engine

        label, reads = describe_callback(self.callback, self.name)
        code = dump_value(self.callback)
        return m.Bind(0, self.hook, self.stage, self.name, label, code, reads, self.concurrent)


class Callbacks:
    """Bindings by hook, stage and name, in the order in which they were first made."""

    def __init__(self) -> None:
        self._bindings: dict[tuple[str, str, str], Binding] = {}
        self._numbers = itertools.count(1)

    def __iter__(self) -> Iterator[Binding]:
        return iter(tuple(self._bindings.values()))

    def make(self, hook: str, stage: str, callback: object, name: str | None, *, concurrent: bool) -> Binding:
        """Return a binding that is not kept yet, named if it was not; see :class:`Binding`.

        Raises:
            ValueError: there is no such stage, or Python cannot tell what ``callback`` takes.
            TypeError: ``callback`` cannot be called, or a name is no string.
        """
        if stage not in STAGES:
            raise ValueError(f"ctype must be 'pre' or 'post', not {stage!r}")
        if not callable(callback):
            raise TypeError(f"callback of hook {hook!r}: expected something callable, got {callback!r}")
        inspect.signature(callback)
        hook = plain_name(hook, "a hook")
        name = plain_name(name or f"callback-{next(self._numbers)}", "a callback")
        return Binding(hook, "pre" if stage == "pre" else "post", name, callback, concurrent)

    def keep(self, binding: Binding) -> None:
        """Keep a binding, in the place of one of the same hook, stage and name."""
        self._bindings[binding.hook, binding.stage, binding.name] = binding

    def find(self, hook: str, stage: str, name: str) -> Binding:
        """Return a binding that is kept.

        Raises:
            UnknownCallbackError: there is none.
        """
        binding = self._bindings.get((hook, stage, name))
        if binding is None:
            raise UnknownCallbackError(f"hook {hook!r} has no {stage} callback {name!r}")
        return binding

    def drop(self, binding: Binding) -> None:
        """Keep a binding no longer."""
        del self._bindings[binding.hook, binding.stage, binding.name]
