"""The plugins ``complexity``, ``checksum`` and ``test_log``, called directly, without an engine."""

from __future__ import annotations

import hashlib
import lzma
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rigger_mp.plugins.checksum import BLOCK, Checksum
from rigger_mp.plugins.checksum import measure as measure_content
from rigger_mp.plugins.complexity import Complexity, measure
from rigger_mp.plugins.test_log import TestLog


class Fired:
    """Stands in for the engine: keeps what an instance fires."""

    def __init__(self) -> None:
        self.hooks: list[tuple[str, dict[str, Any]]] = []

    def fire_hook(self, hook: str, /, **kwargs: Any) -> None:
        self.hooks.append((hook, kwargs))

    def log_message(self, message: object) -> None:
        raise AssertionError(message)


def complexity_of(body: str) -> int:
    """Return the complexity of a function with this body."""
    lines = "".join(f"\n    {line}" for line in body.splitlines())
    return {row.name: row.complexity for row in measure(f"async def f(a, b, c):{lines}\n")}["f"]


@pytest.mark.parametrize(
    ("body", "decisions"),
    [
        ("pass", 0),
        ("if a: pass", 1),
        ("if a: pass\nelse: pass", 1),
        ("if a: pass\nelif b: pass\nelif c: pass\nelse: pass", 3),
        ("return a if b else c", 1),
        ("for x in a: pass\nelse: pass", 1),
        ("async for x in a: pass", 1),
        ("while a: break\nelse: pass", 1),
        ("try: pass\nexcept A: pass\nexcept B: pass\nelse: pass\nfinally: pass", 2),
        ("try: pass\nexcept* A: pass", 1),
        ("assert a", 1),
        ("return a and b and c", 2),
        ("return a and (b or c)", 2),
        ("return [x for x in a]", 1),
        ("return {x: y for x in a if x for y in b if y if c}", 5),
        ("with a: pass", 0),
        ("match a:\n case 1: pass\n case 2 if b: pass\n case _: pass", 3),
        ("match a:\n case 1 | 2: pass\n case x: pass", 1),
        ("match a:\n case 1 | _: pass", 0),
        ("match a:\n case [x] as y: pass\n case x if b: pass", 2),
        ("class C:\n if a: pass", 1),
        ("def g(x=a or b): pass", 1),
        ("@(a or b)\ndef g(): pass", 1),
        ("def g() -> (a or b): pass", 1),
        ("def g():\n if a: pass", 0),
        ("return lambda: a or b", 0),
        ("class C:\n def g(self):\n  if a: pass", 0),
    ],
)
def test_what_counts_as_a_decision(body: str, decisions: int) -> None:
    assert complexity_of(body) == 1 + decisions


def test_functions_are_named_as_python_names_them_and_counted_on_their_own() -> None:
    source = """
if module_level: pass
class Outer:
    class Inner:
        def method(self):
            if a:
                def nested():
                    return b or c
            return lambda: a and b and c
"""
    assert measure(source) == [
        ("Outer.Inner.method", 5, 2),
        ("Outer.Inner.method.<locals>.nested", 7, 2),
        ("Outer.Inner.method.<locals>.<lambda>", 9, 3),
    ]


@given(st.lists(st.sampled_from(["if", "while"]), max_size=40))
def test_nesting_adds_up_and_a_function_around_changes_nothing(words: list[str]) -> None:
    body = "".join(f"{'  ' * (depth + 2)}{word} a:\n" for depth, word in enumerate(words))
    source = f"def outer():\n  def inner():\n{body}{'  ' * (len(words) + 2)}pass\n"
    assert measure(source) == [("outer", 1, 1), ("outer.<locals>.inner", 2, 1 + len(words))]


def test_a_tree_deeper_than_the_stack_is_measured() -> None:
    branches = "".join(f" elif a == {number}: pass\n" for number in range(300))
    assert measure(f"def f(a):\n if a: pass\n{branches}")[0].complexity == 302


def test_the_update_is_small_and_not_doubled_by_a_second_audit(tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text("def f(a):\n    return a or 1\n\ndef g(): pass\n")
    entry = {"functions": (("f", 1, 2), ("g", 4, 1)), "max": 2, "total": 3}
    assert Complexity("c", {}).audit_file(path) == (None, {"files": {str(path): {"complexity": entry}}})


def test_a_file_without_functions_has_sums_of_zero(tmp_path: Path) -> None:
    path = tmp_path / "empty.py"
    path.touch()
    entry = {"functions": (), "max": 0, "total": 0}
    assert Complexity("c", {}).audit_file(str(path))[1] == {"files": {str(path): {"complexity": entry}}}


@pytest.mark.parametrize(
    "content",
    [b"def f(:\n", b"x = '\xff'\n", b"# coding: no-such-codec\n", b"x = 1\0\n", b"(" * 10_000],
    ids=["syntax", "encoding", "unknown-codec", "null", "nesting"],
)
def test_a_broken_file_fails_with_its_name_and_leaves_the_reason(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.py"
    path.write_bytes(content)
    fired = Fired()
    with pytest.raises(SyntaxError, match=r"broken\.py") as caught:
        Complexity("c", {}, fired).audit_file(path)
    assert caught.value.filename == str(path)
    reason = f"SyntaxError: {caught.value}"
    assert fired.hooks == [("audit_failed", {"path": str(path), "error": reason})]
    update = Complexity("c", {}).audit_failed(**fired.hooks[0][1])
    assert update == (None, {"files": {str(path): {"error": reason}}})


def test_a_broken_file_fails_in_the_same_way_outside_an_engine(tmp_path: Path) -> None:
    path = tmp_path / "broken.py"
    path.write_text("(")
    with pytest.raises(SyntaxError, match=r"broken\.py"):
        Complexity("c", {}).audit_file(path)


def test_a_missing_file_leaves_its_reason_too(tmp_path: Path) -> None:
    fired = Fired()
    with pytest.raises(FileNotFoundError):
        Complexity("c", {}, fired).audit_file(tmp_path / "gone.py")
    assert fired.hooks[0][1]["error"].startswith("FileNotFoundError: ")


def test_the_encoding_that_a_file_declares_is_honoured(tmp_path: Path) -> None:
    path = tmp_path / "latin.py"
    path.write_bytes(b"# -*- coding: latin-1 -*-\ndef \xe9t\xe9(): pass\n")
    assert measure(path.read_bytes())[0].name == "été"


def test_warnings_about_the_audited_code_are_not_shown() -> None:
    # The suite treats warnings as errors.
    assert measure(b"def f(): return '\\d' is 1\n") == [("f", 1, 1)]


def test_the_measuring_plugins_overlap_on_all_cores() -> None:
    assert Complexity.stateless
    assert Checksum.stateless


@given(content=st.binary(max_size=2000), preset=st.integers(0, 6))
def test_a_checksum_is_that_of_hashlib_and_lzma(tmp_path_factory: Any, content: bytes, preset: int) -> None:
    path = tmp_path_factory.mktemp("content") / "file"
    path.write_bytes(content)
    measured = measure_content(path, preset)
    compressed = lzma.compress(content, preset=preset)
    assert measured == (hashlib.sha256(content).hexdigest(), len(content), len(compressed))


def test_a_file_longer_than_a_block_is_measured_whole(tmp_path: Path) -> None:
    content = bytes(range(256)) * (BLOCK // 256) + b"tail"
    path = tmp_path / "long"
    path.write_bytes(content)
    _, update = Checksum("c", {"preset": 0}).audit_file(path)
    entry = update["files"][str(path)]["checksum"]
    assert entry == {
        "sha256": hashlib.sha256(content).hexdigest(),
        "bytes": len(content),
        "compressed": len(lzma.compress(content, preset=0)),
    }


@pytest.mark.parametrize("preset", [10, -1, "6", 6.0, True, None])
def test_a_wrong_preset_is_refused(preset: object) -> None:
    with pytest.raises(ValueError, match=r"preset.*from 0 to 9"):
        Checksum("c", {"preset": preset})


def test_names_that_are_not_utf_8_are_measured(tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.py"))
    path.write_text("def f(): pass\n")
    for plugin in (Complexity("c", {}), Checksum("c", {})):
        assert list(plugin.audit_file(path)[1]["files"]) == [str(path)]


def test_a_test_log_holds_name_time_and_result(tmp_path: Path) -> None:
    log = TestLog("ident", {})
    log.start_test("my_test", tmp_path / "deep" / "artifact")
    log.finish_test(str(tmp_path / "deep" / "artifact"), "passed")
    name, started, result = (tmp_path / "deep" / "artifact-ident.log").read_text().splitlines()
    assert (name, result) == ("my_test", "passed")
    assert float(started) > 1e9


def test_a_test_log_begins_anew_and_survives_a_finish_without_a_start(tmp_path: Path) -> None:
    log = TestLog("i", {})
    artifact = str(tmp_path / "sub" / "a")
    log.finish_test(artifact, None)
    assert Path(f"{artifact}-i.log").read_text() == "None\n"
    log.start_test("second\udcff", artifact)
    assert Path(f"{artifact}-i.log").read_text().splitlines()[0] == "second\\udcff"


def test_a_test_log_binds_the_events_of_the_page() -> None:
    assert set(TestLog("i", {}).callbacks) == {"start_test", "finish_test"}
