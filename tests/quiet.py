"""An engine that keeps what it says, for tests to look at."""

from __future__ import annotations

from typing import Any

from rigger_mp import Rigger


class QuietRigger(Rigger):
    """Keeps messages and failures."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.messages: list[str] = []
        self.failures: list[BaseException] = []
        super().__init__(*args, **kwargs)

    def log_message(self, message: object) -> None:
        self.messages.append(str(message))

    def handle_failure(self, exc: tuple[Any, Any, Any]) -> None:
        self.failures.append(exc[1])
