"""From settings and plugin instances to what a dispatcher is told."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from rigger_mp.config import Settings
from rigger_mp.engine.blueprint import Boot, InstancePlan, Limits
from rigger_mp.engine.callables import describe_callable
from rigger_mp.engine.host import HostSettings
from rigger_mp.engine.launch import program_arguments
from rigger_mp.engine.output import log_levels
from rigger_mp.engine.spec import InstanceSpec


def build_boot(
    settings: Settings,
    instances: Iterable[InstanceSpec],
    config: bytes,
    squash: bool,
    base: Path | None = None,
    *,
    generation: int = 1,
) -> Boot:
    """Return everything that a dispatcher needs to start.

    Args:
        settings: the engine's settings.
        instances: the enabled instances.
        config: the configuration, pickled.
        squash: whether failures are squashed.
        base: what a relative path of the spool is relative to; default: here.
        generation: counts reloads, from 1.
    """
    instances = tuple(instances)
    return Boot(
        workers=settings.workers,
        instances=tuple(_plan(spec) for spec in instances),
        settings=pickle.dumps(_host_settings(settings, config)),
        limits=_limits(settings, instances),
        threaded=settings.threaded,
        squash=squash,
        list_merge=settings.list_merge,
        queue_size=settings.queue_size,
        max_nesting=settings.max_nesting,
        overrides=_by_hook(settings, "concurrent"),
        hook_retries=_by_hook(settings, "max_retries"),
        retry_delay=settings.retry_delay,
        default_retries=settings.max_retries,
        archive_retries=settings.archive.get("max_retries", settings.max_retries),
        spool=os.fspath(spool_path(settings, base) or ""),
        synchronous=settings.archive.get("synchronous", "normal"),
        max_output=settings.max_output,
        generation=generation,
    )


def spool_path(settings: Settings, base: Path | None = None) -> Path | None:
    """Return the absolute path of the archive's spool, ``None`` if there is none.

    Args:
        settings: the engine's settings.
        base: what a relative path is relative to; default: here.
    """
    spool = settings.archive.get("spool")
    return (base or Path()).absolute() / spool if spool else None


def _plan(spec: InstanceSpec) -> InstancePlan:
    return InstancePlan(
        spec.ident, pickle.dumps(spec), spec.stateless, spec.background, spec.dedicated, spec.max_retries
    )


def _by_hook(settings: Settings, key: str) -> dict[str, Any]:
    return {hook: options[key] for hook, options in settings.hooks.items() if options.get(key) is not None}


def _host_settings(settings: Settings, config: bytes) -> HostSettings:
    return HostSettings(
        config,
        settings.list_merge,
        settings.threaded,
        settings.time_limit,
        _by_hook(settings, "time_limit"),
        settings.max_memory_per_child,
        log_levels(),
        program_arguments(),
    )


def _limits(settings: Settings, instances: Iterable[InstanceSpec]) -> Limits:
    limited = settings.time_limit or _by_hook(settings, "time_limit") or any(i.time_limit for i in instances)
    return Limits(
        settings.max_restarts, settings.restart_period, settings.max_tasks_per_child, time_limited=bool(limited)
    )


def describe_callback(callback: Callable[..., Any], name: str) -> tuple[str, tuple[str, ...]]:
    """Return what people call a callback by, and the parameters that it names."""
    described = describe_callable(callback)
    label = described.label if described.label != "<lambda>" else f"<lambda> {name}"
    return label, described.names
