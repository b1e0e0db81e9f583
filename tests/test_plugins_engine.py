"""All plugins of the shipped audit together, in an engine, as ``plugins/audit.yaml`` wires them."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
import yaml

import rigger_mp.plugins
from rigger_mp import HookError, Rigger

AUDIT = Path(rigger_mp.plugins.__file__).with_name("audit.yaml")


class RecordingRigger(Rigger):
    """Keeps failures that no caller gets."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.failures: list[BaseException] = []
        super().__init__(*args, **kwargs)

    def handle_failure(self, exc: tuple[Any, Any, Any]) -> None:
        self.failures.append(exc[1])


def audit_config(tmp_path: Path, **keys: Any) -> dict[str, Any]:
    """Return the shipped configuration, writing below ``tmp_path``."""
    config: dict[str, Any] = yaml.safe_load(AUDIT.read_text("utf-8")) | {"workers": 2} | keys
    config["plugins"]["report"]["directory"] = str(tmp_path / "audit")
    config["plugins"]["archive"]["path"] = str(tmp_path / "audit.tar.xz")
    return config


def write_sources(directory: Path) -> list[Path]:
    directory.mkdir()
    sources = {"a.py": "def f(x):\n    return x or 1\n", "<script>.py": "f = lambda: 0\n", "bad.py": "def ("}
    sources |= {f"more{number}.py": "def g(): pass\n" * number for number in range(20)}
    for name, source in sources.items():
        (directory / name).write_text(source)
    return sorted(directory.iterdir())


@pytest.mark.parametrize("squash", [False, True])
def test_a_directory_is_audited_reported_and_archived(tmp_path: Path, squash: bool) -> None:
    files = write_sources(tmp_path / "sources")
    with RecordingRigger(audit_config(tmp_path, squash_exceptions=squash)) as rigger:
        rigger.fire_hook("start_session")
        futures = {path.name: rigger.submit("audit_file", path=str(path)) for path in files}
        errors = {name: future.exception() for name, future in futures.items()}
        rigger.fire_hook("finish_session")
        hooks = rigger.stats()["hooks"]
    globals_ = rigger.global_data
    report, archived = globals_["report"], globals_["archive"]["archive"]
    failed = rigger.failures if squash else [error for error in errors.values() if error]
    assert len(failed) == 1
    assert isinstance(failed[0], SyntaxError if squash else HookError)
    assert "bad.py" in str(failed[0])
    assert hooks["audit_file"]["concurrent"]
    data = json.loads(Path(report["json"]).read_text("utf-8"))
    assert (report["rows"], report["not_parsed"]) == (len(files), 1)
    assert [row["path"] for row in data["files"]] == [str(path) for path in files]
    (bad,) = [row for row in data["files"] if row["error"]]
    assert bad["path"] == str(tmp_path / "sources" / "bad.py")
    assert "SyntaxError" in bad["error"]
    assert (bad["sha256"] is not None) == squash
    assert sum(row["functions"] or 0 for row in data["files"]) == len(data["functions"]) == 2 + sum(range(20))
    assert "<script>" not in Path(report["html"]).read_text("utf-8")
    assert archived["bytes"] == (tmp_path / "audit.tar.xz").stat().st_size
    with tarfile.open(archived["path"]) as tar:
        assert sum(member.isreg() for member in tar) == archived["files"] == 5


def test_the_shipped_audit_names_its_inputs_for_the_command() -> None:
    config = yaml.safe_load(AUDIT.read_text("utf-8"))
    assert config["squash_exceptions"] is False
    assert "workers" not in config
    assert config["inputs"] == {
        "hook": "audit_file",
        "files": {"root": "{stdlib}", "pattern": "**/*.py", "argument": "path", "exclude": ["site-packages/**"]},
    }
