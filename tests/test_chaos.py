"""A short seeded run of the chaos suite; ``python -m tests.chaos`` runs longer ones."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from chaos.killer import Habits
from chaos.run import Options, run

REPOSITORY = Path(__file__).parent.parent


def test_nothing_that_is_killed_breaks_a_promise() -> None:
    lines: list[str] = []
    verdict = run(Options(seconds=6.0, seed=20, habits=Habits(pause=0.15), progress=lines.append))
    assert verdict.violations == [], "\n".join([*lines, *verdict.summary, f"ledger: {verdict.folder}"])
    text = "\n".join(verdict.summary)
    assert "SIGKILL worker" in text
    assert " ok" in text
    assert verdict.folder is None


def test_the_command_line_teaches() -> None:
    for module in ("tests.chaos", "tests.chaos.soak"):
        command = [sys.executable, "-m", module, "--help"]
        done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=True)
        assert "examples:" in done.stdout
