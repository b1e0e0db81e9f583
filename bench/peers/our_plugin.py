"""The plugin that runs the tasks; what it imports, every worker imports."""

from __future__ import annotations

from bench.tasks import BY_NAME
from rigger_mp import RiggerBasePlugin


class Tasks(RiggerBasePlugin):
    """Each instance answers the hooks that its configuration names."""

    stateless = True

    def plugin_initialize(self) -> None:
        """Bind the tasks."""
        for hook, task in self.data["tasks"].items():
            self.register_plugin_hook(hook, BY_NAME[task])
