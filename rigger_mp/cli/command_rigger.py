"""The engine as the commands use it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace
from typing import Any

from rigger_mp.candidate import Candidate
from rigger_mp.cli.log_format import line_of_message, lines_of_output
from rigger_mp.config import Settings
from rigger_mp.engine.messages import Output
from rigger_mp.rigger import Rigger


def write_line(line: str) -> None:
    """Write a line to standard error, if anybody still reads that: nobody must not keep a service from stopping."""
    with suppress(OSError, ValueError):
        print(line, file=sys.stderr, flush=True)


class CommandRigger(Rigger):
    """An engine whose configuration is read before its start, and whose messages go to standard error.

    Args:
        config: the path of the configuration.
        prints_aside: what plugins print goes to standard error, because standard output is for data.
        overrides: keys that take the place of the configuration's.

    Attributes:
        say: writes a line to the user.
        log_format: ``text`` or ``json``.
    """

    def __init__(
        self, config: str, *, prints_aside: bool = False, log_format: str = "text", **overrides: Any
    ) -> None:
        super().__init__(config)
        self._prints_aside = prints_aside
        self.log_format = log_format
        self.say: Callable[[str], None] = write_line if log_format == "text" else self._say_as_json
        self.read_config(self.config_file)
        self._overrides = overrides
        self.config = {**self.config, **overrides}

    def parse_config(self) -> None:
        """Start with the configuration that was read."""
        with _standard_output_aside() if self._prints_aside else nullcontext():
            self.setup_plugin_instances()
        self.start_server()

    def _read_candidate(self, source: str | os.PathLike[str] | Mapping[str, Any]) -> Candidate:
        candidate = super()._read_candidate(source)
        config = {**candidate.config, **self._overrides}
        return replace(candidate, config=config, settings=Settings.from_config(config))

    def log_message(self, message: object) -> None:
        """Say it."""
        self.say(str(message))

    def _say_as_json(self, message: str) -> None:
        write_line(line_of_message(message))

    def handle_output(self, output: Output) -> None:
        """Write what a hook printed."""
        if self.log_format == "json":
            for line in lines_of_output(output):
                write_line(line)
        else:
            super().handle_output(output._replace(stream="stderr") if self._prints_aside else output)


@contextmanager
def _standard_output_aside() -> Iterator[None]:
    """Start processes whose standard output is this one's standard error."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
