"""The engine as the commands use it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from typing import Any

from rigger_mp.rigger import Rigger


class CommandRigger(Rigger):
    """An engine whose configuration is read before its start, and whose messages go to standard error.

    Args:
        config: the path of the configuration.
        overrides: keys that take the place of the configuration's.

    Attributes:
        say: writes a line to the user.
    """

    def __init__(self, config: str, **overrides: Any) -> None:
        super().__init__(config)
        self.say: Callable[[str], None] = partial(print, file=sys.stderr, flush=True)
        self.read_config(self.config_file)
        self.config = {**self.config, **overrides}

    def parse_config(self) -> None:
        """Start with the configuration that was read."""
        self.setup_plugin_instances()
        self.start_server()

    def log_message(self, message: object) -> None:
        """Say it."""
        self.say(str(message))
