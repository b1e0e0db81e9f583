"""The user's process's handle of a plugin instance, which itself lives in another process."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol


class _Configurer(Protocol):
    def configure_plugin(self, name: str, /, *args: Any, **kwargs: Any) -> None: ...


class InstanceHandle:
    """What ``Rigger.get_instance_obj`` returns.

    Attributes:
        ident: the instance's name.
        data: its entry in the configuration.
    """

    def __init__(self, rigger: _Configurer, ident: str, data: Any) -> None:
        self.ident = ident
        self.data = data
        self._rigger = rigger

    def configure(self, *args: Any, **kwargs: Any) -> None:
        """Call ``configure`` of the instance, as ``Rigger.configure_plugin`` does."""
        self._rigger.configure_plugin(self.ident, *args, **kwargs)

    def __repr__(self) -> str:
        return f"<InstanceHandle of {self.ident!r}>"


def list_handles(
    rigger: _Configurer, config: Mapping[str, Any], known: Mapping[str, InstanceHandle]
) -> dict[str, InstanceHandle]:
    """Return the handles of a configuration's instances by name; a known one is kept, and gets its present data."""
    handles: dict[str, InstanceHandle] = {}
    for ident, data in (config.get("plugins") or {}).items():
        handle = handles[ident] = known.get(ident) or InstanceHandle(rigger, ident, data)
        handle.data = data
    return handles
