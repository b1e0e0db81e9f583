"""What may be registered as a plugin, and under which name."""

from __future__ import annotations

from collections.abc import Mapping

from rigger_mp.errors import DuplicatePluginError, PluginError


def check_classes(plugins: Mapping[str, type]) -> Mapping[str, type]:
    """Return plugin classes by name.

    Raises:
        PluginError: one is no class.
    """
    for name, cls in plugins.items():
        if not isinstance(cls, type):
            raise PluginError(f"plugin {name!r}: expected a class, got {cls!r}")
    return plugins


def check_registration(plugins: Mapping[str, type], name: str | None, cls: type) -> str:
    """Return the name that a class may be registered under.

    Args:
        plugins: the registered classes by name.
        name: the wanted name.
        cls: the class.

    Raises:
        DuplicatePluginError: another class has the name.
        PluginError: it is no class, or the name is missing.
    """
    if not name:
        raise PluginError("a plugin needs a name: register_plugin(cls, 'name')")
    check_classes({name: cls})
    if plugins.get(name, cls) is not cls:
        raise DuplicatePluginError(
            f"plugin name {name!r} is taken by {plugins[name].__qualname__}; "
            f"register {cls.__qualname__} under another one"
        )
    return name
