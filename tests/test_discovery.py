"""Plugins are found in four ways; what cannot be found or used is named."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from engine_plugins import Adder, Counter
from quiet import QuietRigger

from rigger_mp.discovery import find_instances
from rigger_mp.engine.finder import Finder
from rigger_mp.engine.spec import PluginSource
from rigger_mp.errors import DuplicatePluginError, PluginError
from rigger_mp.plugin_loading import load_class

PLUGIN = """
from rigger_mp import RiggerBasePlugin
class {name}(RiggerBasePlugin):
    def plugin_initialize(self):
        self.register_plugin_hook("where", lambda: ({{"where": "{name}"}}, None))
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory on ``sys.path``, forgotten afterwards."""
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def offer(folder: Path, package: str, lines: str) -> None:
    """Make an installed package that offers entry points."""
    info = folder / f"{package}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[rigger_mp.plugins]\n{lines}")


def problem_of(plugin: str, folder: Path, registered: dict[str, type] | None = None, **keys: Any) -> str:
    config = {"plugins": {"it": {"plugin": plugin}}, **keys}
    found = find_instances(config, registered or {}, folder)
    assert found.instances == ()
    (problem,) = found.problems
    assert problem.startswith("disabling instance [it]: ")
    return problem


def where(config: dict[str, Any] | Path, **plugins: type) -> str:
    with QuietRigger(config, plugins=plugins) as rigger:
        assert rigger.messages == []
        place: str = rigger.fire_hook("where")["where"]
        return place


def test_by_registration() -> None:
    with QuietRigger({"workers": 1, "plugins": {"a": {"plugin": "adder"}}}, plugins={"adder": Adder}) as rigger:
        assert rigger.fire_hook("add", a=1, b=1)["sum"] == 2


def test_by_module_and_class(folder: Path) -> None:
    (folder / "offered.py").write_text(PLUGIN.format(name="Offered"))
    assert where({"workers": 1, "plugins": {"o": {"plugin": "offered:Offered"}}}) == "Offered"


def test_by_entry_point(folder: Path) -> None:
    (folder / "pointed.py").write_text(PLUGIN.format(name="Pointed"))
    offer(folder, "pointed", "short = pointed:Pointed\nbad = nowhere:Pointed\n")
    assert where({"workers": 1, "plugins": {"p": {"plugin": "short"}}}) == "Pointed"
    assert "ModuleNotFoundError" in problem_of("bad", folder)
    assert "did you mean 'short'?" in problem_of("shrt", folder)


def test_entry_points_that_are_broken(folder: Path) -> None:
    (folder / "pointed.py").write_text(PLUGIN.format(name="Pointed"))
    offer(folder, "one", "bare = pointed\nwrong = pointed:Pointd\nboth = pointed:Pointed\nsame = pointed:Pointed\n")
    offer(folder, "two", "both = other:Pointed\nsame = pointed:Pointed [extra]\nextra = pointed:Pointed [extra]\n")
    assert "plugin [bare] is looked for in 'pointed', expected package.module:Class" in problem_of("bare", folder)
    assert "pointed has no 'Pointd', did you mean 'Pointed'?" in problem_of("wrong", folder)
    assert "several packages: other:Pointed, pointed:Pointed" in problem_of("both", folder)
    config = {"plugins": {name: {"plugin": name} for name in ("same", "extra")}}
    found = find_instances(config, {}, folder)
    assert ([spec.source.attribute for spec in found.instances], found.problems) == (["Pointed"] * 2, ())


def test_by_file_name_relative_to_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "filed.py").write_text(PLUGIN.format(name="Filed"))
    (tmp_path / "rigger.yaml").write_text("workers: 1\nplugin_path: mine\nplugins: {f: {plugin: filed}}\n")
    assert where(tmp_path / "rigger.yaml") == "Filed"


def test_a_file_with_several_classes(tmp_path: Path) -> None:
    (tmp_path / "two.py").write_text(PLUGIN.format(name="One") + PLUGIN.format(name="Two"))
    problem = problem_of("two", tmp_path, plugin_path=".")
    assert "found One, Two" in problem
    assert "two:ClassName" in problem
    config = {"workers": 1, "plugin_path": str(tmp_path), "plugins": {"t": {"plugin": "two:Two"}}}
    assert where(config) == "Two"
    assert "did you mean 'Two'?" in problem_of("two:Tow", tmp_path, plugin_path=".")


def test_one_name_in_two_directories(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "same.py").write_text(PLUGIN.format(name="Same"))
    assert "several directories" in problem_of("same", tmp_path, plugin_path=["a", "b"])
    twice = {"plugins": {"s": {"plugin": "same"}}, "plugin_path": ["a", "a"]}
    assert find_instances(twice, {}, tmp_path).problems == ()


def test_a_class_under_two_names_is_one_class(tmp_path: Path) -> None:
    (tmp_path / "alias.py").write_text(PLUGIN.format(name="One") + "Other = One\n")
    (spec,) = find_instances({"plugins": {"a": {"plugin": "alias"}}, "plugin_path": "."}, {}, tmp_path).instances
    assert spec.source.attribute == "One"


NASTY = "class Nasty(Exception):\n    def __str__(self): raise ValueError\nraise Nasty\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (NASTY, "bad.py:3: Nasty"),
        ("def fail():\n    raise OSError(5)\nfail()\n", "bad.py:2: OSError: 5"),
        ("import nowhere_at_all\n", "bad.py:1: ModuleNotFoundError"),
        ("\n\n1 / 0\n", "bad.py:3: ZeroDivisionError"),
        ("x = (\n", "bad.py:1: SyntaxError"),
        ("import sys\nsys.exit(3)\n", "bad.py:2: SystemExit"),
        ("x = 1\n", "found none"),
    ],
)
def test_a_file_that_cannot_be_imported(folder: Path, text: str, words: str) -> None:
    (folder / "bad.py").write_text(text)
    assert words in problem_of("bad", folder, plugin_path=".")
    if words != "found none":
        assert words in problem_of("bad:Plugin", folder)
        (folder / "outer.py").write_text("\nimport bad\n")
        assert words in problem_of("outer:Plugin", folder)


def test_a_file_that_is_named_like_the_import_system(tmp_path: Path) -> None:
    (tmp_path / "my_importlib.py").write_text("\n1 / 0\n")
    assert "my_importlib.py:2: ZeroDivisionError" in problem_of("my_importlib", tmp_path, plugin_path=".")


def test_a_module_whose_attributes_fail(folder: Path) -> None:
    (folder / "lazy.py").write_text("def __getattr__(name):\n    raise RuntimeError(name)\n")
    assert "lazy.py:2: RuntimeError: Plugin" in problem_of("lazy:Plugin", folder)


@pytest.mark.parametrize("keys", [{}, {"stateless": True}, {"stateless": False}])
def test_what_is_no_plugin_class(folder: Path, keys: dict[str, bool]) -> None:
    (folder / "other.py").write_text("class Plain: pass\nvalue = 5\n")
    (folder / "mine").mkdir()
    (folder / "mine" / "filed.py").write_text("class Plain: pass\n")
    offer(folder, "other", "pointed = other:Plain\n")
    for plugin in ("other:Plain", "other:value", "plain", "pointed", "filed:Plain"):
        config = {"plugin_path": "mine", "plugins": {"it": {"plugin": plugin, **keys}}}
        found = find_instances(config, {"plain": int}, folder)
        assert found.instances == ()
        assert f"plugin [{plugin}] is " in found.problems[0]
        assert "expected a class derived from RiggerBasePlugin" in found.problems[0]


@pytest.mark.parametrize("plugin", ["other:", ":Plain", ":", ".other:Plain", "other:Plain.", "other..x:Plain"])
def test_what_names_no_class(folder: Path, plugin: str) -> None:
    (folder / "other.py").write_text("class Plain: pass\n")
    assert problem_of(plugin, folder).endswith("expected package.module:Class")


def test_an_attribute_that_is_not_there(folder: Path) -> None:
    (folder / "other.py").write_text(PLUGIN.format(name="Offered"))
    assert problem_of("other:Offerd", folder).endswith("other has no 'Offerd', did you mean 'Offered'?")
    assert problem_of("other:Nothing", folder).endswith("other has no 'Nothing'")


@pytest.mark.parametrize("name", ["addre", "shrt", "fild"])
def test_near_misses_of_each_way(folder: Path, name: str) -> None:
    (folder / "filed.py").write_text(PLUGIN.format(name="Filed"))
    offer(folder, "pointed", "short = pointed:Pointed\n")
    right = {"addre": "adder", "shrt": "short", "fild": "filed"}[name]
    problem = problem_of(name, folder, {"adder": Adder}, plugin_path=".")
    assert problem.endswith(f"did you mean {right!r}?")


def test_an_unknown_plugin_is_named_with_where_it_was_looked_for() -> None:
    plugins = {"adder": Adder}
    config = {"workers": 1, "plugins": {"a": {"plugin": "addre"}, "b": {"plugin": "adder"}}}
    with QuietRigger(config, plugins=plugins) as rigger:
        assert rigger.fire_hook("add", a=1, b=1)["sum"] == 2
    (message,) = rigger.messages
    assert message.startswith("disabling instance [a]: Plugin [addre] was not found")
    assert message.endswith("did you mean 'adder'?")


def test_strict_refuses_to_start_and_names_all() -> None:
    entries = {"a": {"plugin": "x"}, "good": {"plugin": "adder"}, "b": {"plugin": "y"}}
    config = {"strict": True, "plugins": entries}
    with pytest.raises(PluginError, match=r"(?s)\[a\].*\[b\]") as caught:
        QuietRigger(config, plugins={"adder": Adder}).start()
    assert "[good]" not in str(caught.value)


def test_a_disabled_instance_is_neither_imported_nor_listed(tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text("raise RuntimeError\n")
    config = {"plugin_path": ".", "plugins": {"a": {"plugin": "bad", "enabled": False}}}
    found = find_instances(config, {}, tmp_path)
    assert (found.instances, found.problems) == ((), ())


def test_two_plugins_of_one_name() -> None:
    rigger = QuietRigger({}, plugins={"it": Adder})
    rigger.register_plugin(Adder, "it")
    with pytest.raises(DuplicatePluginError, match="'it' is taken by Adder"):
        rigger.register_plugin(Counter, "it")


def test_a_class_that_cannot_travel(tmp_path: Path) -> None:
    lock = __import__("threading").Lock()

    class Locked(Adder):
        def held(self) -> Any:
            return lock

    assert "cannot be sent to other processes" in problem_of("locked", tmp_path, {"locked": Locked})


@pytest.mark.parametrize(
    ("plugin", "keys", "stateless"),
    [
        (Adder, {}, True),
        (Adder, {"stateless": False}, False),
        (Adder, {"stateless": None}, True),
        (Counter, {}, False),
        (Counter, {"stateless": True}, True),
        (Counter, {"stateless": None}, False),
    ],
)
def test_statelessness_comes_from_the_class_unless_the_configuration_says(
    plugin: type, keys: dict[str, Any], stateless: bool
) -> None:
    config = {"plugins": {"a": {"plugin": "it", **keys}}}
    (spec,) = find_instances(config, {"it": plugin}).instances
    assert spec.stateless is stateless
    assert load_class(spec.source) is plugin


def test_a_class_that_cannot_be_unpickled() -> None:
    source = PluginSource("pickled", payload=b"\x80\x05cnowhere_at_all\nPlugin\n.")
    with pytest.raises(PluginError, match="ModuleNotFoundError"):
        load_class(source)


def test_importing_the_package_is_light() -> None:
    code = (
        "import sys, rigger_mp; from rigger_mp import RiggerBasePlugin; "
        "heavy = {'yaml', 'psutil', 'multiprocessing.managers', 'asyncio', 'cloudpickle'} & set(sys.modules); "
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_file_that_takes_itself_out_of_the_modules(tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text("import sys\ndel sys.modules[__name__]\n1 / 0\n")
    assert "bad.py:3: ZeroDivisionError" in problem_of("bad", tmp_path, plugin_path=".")


def test_a_name_that_is_too_long_for_a_file(tmp_path: Path) -> None:
    assert "was not found" in problem_of("a" * 300, tmp_path, plugin_path=".")


def test_a_finder_that_is_killed_says_so() -> None:
    finder = Finder()
    os.kill(finder._process.pid, signal.SIGKILL)
    finder._process.wait()
    with pytest.raises(PluginError, match="status -9"):
        finder.find({"plugins": {}}, {}, None)
