"""An event-hook engine on processes: riggerlib's plugins, callbacks and namespaces on every core."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rigger_mp.encoding import recursive_update
    from rigger_mp.errors import HookError, RiggerError
    from rigger_mp.net.aio_client import AsyncRiggerClient
    from rigger_mp.net.client import RiggerClient
    from rigger_mp.plugin import RiggerBasePlugin
    from rigger_mp.result import HookResult
    from rigger_mp.rigger import Rigger

__all__ = [
    "AsyncRiggerClient",
    "HookError",
    "HookResult",
    "Rigger",
    "RiggerBasePlugin",
    "RiggerClient",
    "RiggerError",
    "recursive_update",
]

_MODULES = {
    "AsyncRiggerClient": "net.aio_client",
    "HookError": "errors",
    "HookResult": "result",
    "Rigger": "rigger",
    "RiggerBasePlugin": "plugin",
    "RiggerClient": "net.client",
    "RiggerError": "errors",
    "recursive_update": "encoding",
}


def __getattr__(name: str) -> Any:
    # Imported on first use: the engine's own processes import this package and need little of it.
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
