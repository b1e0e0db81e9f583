"""Every feature of riggerlib's page, by its name."""

from __future__ import annotations

import itertools
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
from feature_plugins import (
    Caller,
    Configurable,
    Failing,
    Greeter,
    Meeting,
    OldStyle,
    Reader,
    Rebinder,
    Slow,
    TestLog,
)
from quiet import QuietRigger
from waiting import wait_for

from rigger_mp import HookError, Rigger
from rigger_mp.config import Settings
from rigger_mp.errors import DuplicatePluginError, NotRunningError, PluginError, UnknownCallbackError

PLUGINS: dict[str, type] = {
    "test": TestLog,
    "greeter": Greeter,
    "rebinder": Rebinder,
    "reader": Reader,
    "slow": Slow,
    "meeting": Meeting,
    "failing": Failing,
    "configurable": Configurable,
    "caller": Caller,
    "old": OldStyle,
}


def engine(options: dict[str, Any] | None = None, **instances: Any) -> QuietRigger:
    """Return an engine with an instance for each keyword: the plugin's name, or an entry."""
    entries = {
        ident: {"enabled": True, **({"plugin": entry} if isinstance(entry, str) else entry)}
        for ident, entry in instances.items()
    }
    return QuietRigger({"workers": 2, **(options or {}), "plugins": entries}, plugins=PLUGINS)


def overlap(intervals: list[tuple[float, float]]) -> bool:
    """Tell whether any two intervals have a moment in common."""
    ordered = sorted(intervals)
    return any(later[0] < earlier[1] for earlier, later in itertools.pairwise(ordered))


# -- plugins --------------------------------------------------------------------------------------------------


def test_plugins_respond_to_the_events_they_are_bound_to() -> None:
    with engine(greeter="greeter") as rigger:
        assert rigger.fire_hook("greet", name="Ann")["greetings"] == ["greeter: hello Ann"]
        assert rigger.fire_hook("part", name="Ann")["goodbyes"] == ["greeter: goodbye Ann"]
        assert rigger.fire_hook("nobody_listens", name="Ann").local_data == {"name": "Ann"}


def test_several_instances_of_one_plugin_each_have_their_configuration() -> None:
    with engine(one="greeter", two={"plugin": "greeter", "word": "good day"}) as rigger:
        assert rigger.fire_hook("greet", name="Ann")["greetings"] == ["one: hello Ann", "two: good day Ann"]


def test_an_instance_that_is_not_enabled_is_left_out() -> None:
    with engine(one="greeter", two={"plugin": "greeter", "enabled": False}) as rigger:
        assert rigger.fire_hook("greet", name="Ann")["greetings"] == ["one: hello Ann"]


def test_each_event_has_a_single_function_of_a_plugin() -> None:
    with engine(rebinder="rebinder") as rigger:
        assert rigger.fire_hook("ask")["answers"] == ["second"]


# -- callbacks ------------------------------------------------------------------------------------------------


def test_pre_and_post_hook_callbacks_run_before_and_after_the_hook() -> None:
    with engine(reader="reader") as rigger:
        rigger.register_hook_callback("read", "pre", lambda: ({"path": ["pre"]}, None))
        rigger.register_hook_callback("read", "post", lambda path: ({"before_post": path}, None))
        # The hook's own list extends the one that it was given.
        assert rigger.fire_hook("read")["before_post"] == ["pre", "pre", "hook"]


@pytest.mark.parametrize("stage", ["pre", "post"])
def test_several_callbacks_of_one_event_all_run(stage: str) -> None:
    with engine(reader="reader") as rigger:
        for number in range(3):
            rigger.register_hook_callback("read", stage, lambda number=number: ({"ran": [number]}, None))
        assert sorted(rigger.fire_hook("read")["ran"]) == [0, 1, 2]


def test_named_callbacks_are_replaced_and_removed_by_their_name_while_running() -> None:
    with engine(reader="reader") as rigger:
        assert rigger.register_hook_callback("read", "pre", lambda: ({"value": 1}, None), "setter") == "setter"
        assert rigger.fire_hook("read")["seen"] == 1
        rigger.register_hook_callback("read", "pre", lambda: ({"value": 2}, None), name="setter")
        assert rigger.fire_hook("read")["seen"] == 2
        rigger.unregister_hook_callback("read", "pre", "setter")
        assert rigger.fire_hook("read")["seen"] == "nothing"
        with pytest.raises(UnknownCallbackError, match="hook 'read' has no pre callback 'setter'"):
            rigger.unregister_hook_callback("read", "pre", "setter")


def test_unnamed_callbacks_are_removed_by_the_name_they_were_given() -> None:
    with engine(reader="reader") as rigger:
        names = [rigger.register_hook_callback("read", "post", lambda n=n: ({"ran": [n]}, None)) for n in (1, 2)]
        assert len(set(names)) == 2
        rigger.unregister_hook_callback("read", "post", names[0])
        assert rigger.fire_hook("read")["ran"] == [2]


def test_callbacks_change_for_the_events_fired_from_then_on() -> None:
    with engine(reader="reader") as rigger:
        futures = []
        for number in range(20):
            rigger.register_hook_callback("read", "pre", lambda number=number: ({"value": number}, None), "setter")
            futures.append(rigger.submit("read"))
        rigger.unregister_hook_callback("read", "pre", "setter")
        futures.append(rigger.submit("read"))
        assert [future.result()["seen"] for future in futures] == [*range(20), "nothing"]


def test_forms_of_register_hook_callback() -> None:
    rigger = engine(reader="reader")

    def setter() -> Any:
        return {"value": "set"}, None

    rigger.register_hook_callback("read", "pre", setter)  # before the start
    with rigger:
        rigger.register_hook_callback(hook_name="read", callback=lambda: ({"other": 1}, None), name="other")
        rigger.register_hook_callback("read", ctype="post", callback=lambda seen: ({"after": seen}, None))
        result = rigger.fire_hook("read")
        assert (result["seen"], result["other"], result["after"]) == ("set", 1, "set")
        with pytest.raises(ValueError, match="'pre' or 'post', not 'during'"):
            rigger.register_hook_callback("read", "during", setter)
        with pytest.raises(TypeError, match="callback of hook 'read'"):
            rigger.register_hook_callback("read", "pre", None)


# -- namespaces -----------------------------------------------------------------------------------------------


def test_local_values_override_global_ones() -> None:
    with engine(reader="reader") as rigger:
        rigger.global_data = {"value": "global"}
        assert rigger.fire_hook("read")["seen"] == "global"
        assert rigger.fire_hook("read", value="local")["seen"] == "local"
        assert rigger.fire_hook("read", value=None)["seen"] is None
        assert rigger.global_data["value"] == "global"


def test_namespace_updates_from_pre_hook_and_post() -> None:
    def note(stage: str) -> Any:
        return lambda trail=(): ({"mine": stage, "trail_seen_by_" + stage: list(trail)}, {"trail": [stage]})

    with engine(reader="reader") as rigger:
        rigger.register_hook_callback("read", "pre", note("pre"))
        rigger.register_hook_callback("read", "post", note("post"))
        result = rigger.fire_hook("read", value=1)
        assert (result["trail_seen_by_pre"], result["trail_seen_by_post"]) == ([], ["pre", "hook"])
        assert result["mine"] == "post"
        assert rigger.global_data["trail"] == ["pre", "hook", "post"]


def test_global_values_persist_and_local_ones_end_with_their_event() -> None:
    with engine(reader="reader") as rigger:
        assert rigger.fire_hook("read", value=7)["mine"] == "hook"
        later = rigger.fire_hook("other")
        assert later["last"] == 7
        assert "mine" not in later


def test_the_configuration_is_in_every_local_namespace() -> None:
    with engine({"site": {"name": "lab"}}, reader="reader") as rigger:
        assert rigger.fire_hook("read_config")["seen"]["site"] == {"name": "lab"}


def test_the_worked_example_step_by_step(tmp_path: Path) -> None:
    location = str(tmp_path)

    def prepare(test_name: str, test_location: str) -> Any:
        path = f"{test_location}/{test_name}"
        return {"artifact_path": path}, {"steps": [("pre", test_name, test_location)]}

    def check(test_name: str, test_location: str, artifact_path: str) -> Any:
        return None, {"steps": [("post", test_name, test_location, artifact_path)]}

    with engine(test="test") as rigger:
        rigger.register_hook_callback("start_test", "pre", prepare)
        rigger.register_hook_callback("start_test", "post", check)
        result = rigger.fire_hook("start_test", test_name="my_test", test_location=location)
        path = f"{location}/my_test"
        assert rigger.global_data["steps"] == [
            ("pre", "my_test", location),
            ("hook", "my_test", location, path),
            ("post", "my_test", location, path),
        ]
        locals_ = {"test_name": "my_test", "test_location": location, "artifact_path": path}
        assert result.local_data == locals_
        log = tmp_path / "my_test-test.log"
        name, moment = log.read_text().splitlines()
        assert name == "my_test"
        assert float(moment) > 0
        rigger.fire_hook("finish_test", test_name="my_test", artifact_path=path, test_result="passed")
        assert log.read_text() == "passed"


# -- the background -------------------------------------------------------------------------------------------


def test_background_instances_let_the_event_end_before_they_have_worked(tmp_path: Path) -> None:
    permission = tmp_path / "permission"
    with engine(slow={"plugin": "slow", "background": True}) as rigger:
        rigger.register_hook_callback("pack", "pre", lambda: ({"value": "from pre"}, None))
        result = rigger.fire_hook("pack", permission=str(permission))
        assert "dropped" not in result
        assert "packed" not in rigger.global_data
        permission.touch()
        wait_for(lambda: "packed" in rigger.global_data)
        assert rigger.global_data["packed"] == ["from pre"]
        archives = [row["pid"] for row in rigger.stats()["processes"] if row["role"] == "archive"]
        assert archives == [rigger.global_data["packer"]]


def test_background_instances_work_in_the_order_in_which_events_were_fired(tmp_path: Path) -> None:
    permission = tmp_path / "permission"
    with engine(slow={"plugin": "slow", "background": True}) as rigger:
        for number in range(5):
            rigger.fire_hook("pack", permission=str(permission), value=number)
        permission.touch()
    assert rigger.global_data["packed"] == [0, 1, 2, 3, 4]


def test_a_background_hook_of_an_instance_in_the_foreground(tmp_path: Path) -> None:
    permission = tmp_path / "permission"
    with engine(slow="slow") as rigger:
        rigger.fire_hook("pack_one", permission=str(permission))
        assert "packed" not in rigger.global_data
        (foreground,) = rigger.fire_hook("where")["pids"]
        permission.touch()
        wait_for(lambda: "packed" in rigger.global_data)
        assert rigger.global_data["packed"] == ["one"]
        assert rigger.global_data["packer"] != foreground


# -- threading ------------------------------------------------------------------------------------------------


def test_instance_hooks_run_in_parallel_when_threaded(tmp_path: Path) -> None:
    entry = {"plugin": "meeting", "people": 2}
    with engine({"threaded": True}, ann=entry, bob=entry) as rigger:
        assert overlap(rigger.fire_hook("meet", place=str(tmp_path))["intervals"])


def test_instance_hooks_run_one_after_another_when_not_threaded() -> None:
    entry = {"plugin": "meeting", "people": 2}
    with engine({"threaded": False}, ann=entry, bob=entry, eve={**entry, "stateless": True}) as rigger:
        for _ in range(3):
            intervals = rigger.fire_hook("pass_by")["intervals"]
            assert len(intervals) == 3
            assert not overlap(intervals)


# -- configuration --------------------------------------------------------------------------------------------

PAGE_CONFIG = """
squash_exceptions: True
threaded: True
server_address: 127.0.0.1
server_port: 21212
server_enabled: True
plugins:
    test:
        enabled: True
        plugin: test
"""


class ServerlessRigger(QuietRigger):
    """Does not listen: the server has tests of its own."""

    def start_server(self) -> None:
        self.asked_for_server = self.config["server_enabled"]


def test_the_configuration_of_the_page(tmp_path: Path) -> None:
    file = tmp_path / "rigger.yaml"
    file.write_text(PAGE_CONFIG)
    with ServerlessRigger(str(file), plugins=PLUGINS) as rigger:
        assert rigger.asked_for_server
        assert rigger.squash_exceptions
        path = str(tmp_path / "a")
        rigger.fire_hook("start_test", test_name="a", test_location=str(tmp_path), artifact_path=path)
        assert (tmp_path / "a-test.log").read_text().startswith("a\n")
        assert rigger.messages == []


@pytest.mark.parametrize("squash", [True, False])
def test_option_squash_exceptions(squash: bool) -> None:
    failing = {"plugin": "failing", "fails": True}
    with engine({"squash_exceptions": squash}, one="failing", two=failing, three="failing") as rigger:
        if squash:
            assert rigger.fire_hook("work")["done"] == ["one", "three"]
            assert [str(error) for error in rigger.failures] == ["two has lost its way"]
        else:
            with pytest.raises(HookError, match="two has lost its way"):
                rigger.fire_hook("work")
            assert "done" not in rigger.global_data
            assert rigger.failures == []


def test_squash_exceptions_is_also_an_attribute() -> None:
    failing = {"plugin": "failing", "fails": True}
    with engine(one="failing", two=failing) as rigger:
        assert not rigger.squash_exceptions
        rigger.squash_exceptions = True
        assert rigger.fire_hook("work")["done"] == ["one"]
        rigger.squash_exceptions = False
        with pytest.raises(HookError):
            rigger.fire_hook("work")


def test_the_servers_options() -> None:
    config = {"server_address": "0.0.0.0", "server_port": 21213, "server_enabled": True}
    settings = Settings.from_config(config)
    assert (settings.server_address, settings.server_port, settings.server_enabled) == ("0.0.0.0", 21213, True)
    defaults = Settings.from_config({})
    assert (defaults.server_address, defaults.server_port, defaults.server_enabled) == ("127.0.0.1", 21212, False)


# -- the ways of riggerlib ------------------------------------------------------------------------------------


def test_parse_config_is_overridable_without_super() -> None:
    class OwnRigger(QuietRigger):
        def parse_config(self) -> None:
            self.config = {"workers": 1, "plugins": {"mine": {"plugin": "greeter", "enabled": True}}}
            self.setup_plugin_instances()
            self.start_server()

    rigger = OwnRigger(None)
    rigger.register_plugin(Greeter, "greeter")
    with rigger:
        assert rigger.fire_hook("greet", name="Ann")["greetings"] == ["mine: hello Ann"]


def test_the_configuration_may_be_an_attribute() -> None:
    rigger = QuietRigger(None)
    rigger.config = {"workers": 1, "plugins": {"mine": {"plugin": "greeter", "enabled": True}}}
    rigger.register_plugin(Greeter, "greeter")
    with rigger:
        assert rigger.fire_hook("greet", name="Ann")["greetings"] == ["mine: hello Ann"]


def test_a_plugins_name_is_taken_once() -> None:
    rigger = QuietRigger(None)
    rigger.register_plugin(Greeter, "greeter")
    rigger.register_plugin(Greeter, "greeter")
    with pytest.raises(DuplicatePluginError, match="'greeter' is taken by Greeter; register Reader under another"):
        rigger.register_plugin(Reader, "greeter")
    with pytest.raises(PluginError, match="needs a name"):
        rigger.register_plugin(Reader)
    with pytest.raises(PluginError, match="expected a class"):
        rigger.register_plugin(Reader("reader", {}), "reader")  # type: ignore[arg-type]


def test_an_unknown_plugin_is_named_and_its_instance_left_out() -> None:
    with engine(one="greeter", two="greter") as rigger:
        assert rigger.fire_hook("greet", name="Ann")["greetings"] == ["one: hello Ann"]
    (message,) = rigger.messages
    assert "[two]" in message
    assert "[greter]" in message
    assert "did you mean 'greeter'" in message.lower()
    with pytest.raises(PluginError, match="greter"):
        engine({"strict": True}, one="greeter", two="greter").start()


def test_initialized_is_set_last() -> None:
    rigger = engine(greeter="greeter")
    rigger.parse_config()
    try:
        with pytest.raises(NotRunningError, match="initialized = True"):
            rigger.fire_hook("greet", name="Ann")
        rigger.global_data = {"name": "Bob"}
        rigger.initialized = True
        assert rigger.fire_hook("greet")["greetings"] == ["greeter: hello Bob"]
    finally:
        rigger.stop_server()
    with pytest.raises(NotRunningError):
        rigger.fire_hook("greet", name="Ann")


def test_handle_failure_gets_exc_info_and_log_message_what_is_to_be_said() -> None:
    class OwnRigger(Rigger):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.seen: list[Any] = []

        def handle_failure(self, exc: tuple[Any, Any, Any]) -> None:
            kind, error, _ = exc
            self.seen.append((kind, str(error)))
            super().handle_failure(exc)

        def log_message(self, message: object) -> None:
            self.seen.append(str(message))

    plugins = {"bad": {"plugin": "failing", "fails": True}, "ghost": {"plugin": "no_such_plugin"}}
    with OwnRigger({"squash_exceptions": True, "workers": 1, "plugins": plugins}, plugins=PLUGINS) as rigger:
        rigger.fire_hook("work")
    missing, failure, logged = rigger.seen
    assert "no_such_plugin" in missing
    assert failure == (LookupError, "bad has lost its way")
    assert "in fail" in logged
    assert "LookupError: bad has lost its way" in logged


def test_log_message_prints_unless_it_is_overridden(capfd: pytest.CaptureFixture[str]) -> None:
    with Rigger({"workers": 1, "plugins": {"ghost": {"plugin": "no_such_plugin"}}}):
        pass
    assert "no_such_plugin" in capfd.readouterr().out


def test_configure_plugin_and_check_configured() -> None:
    entry = {"plugin": "configurable"}
    with engine(one=entry, every={**entry, "stateless": True}, last=entry) as rigger:
        assert "shown" not in rigger.fire_hook("show", prefix="at ")
        rigger.configure_plugin("one", "localhost", port=8080)
        assert rigger.fire_hook("show", prefix="at ")["shown"] == "at localhost:8080"
        rigger.configure_plugin("every", "example.org")
        assert {rigger.fire_hook("show", prefix="")["shown"] for _ in range(20)} == {"example.org:80"}
        rigger.configure_plugin("no_such_instance", 1)
        assert any("no_such_instance" in message for message in rigger.messages)
        with pytest.raises(HookError, match=r"last\.configure.*TypeError"):
            rigger.configure_plugin("last", "too", "many", "arguments")


def test_get_instance_obj_and_get_instance_data() -> None:
    with engine(one={"plugin": "configurable", "colour": "red"}) as rigger:
        handle = rigger.get_instance_obj("one")
        assert handle is not None
        assert (handle.ident, handle.data["colour"]) == ("one", "red")
        assert rigger.get_instance_data("one")["colour"] == "red"
        assert rigger.get_instance_obj("two") is None
        assert rigger.get_instance_data("two") is None
        handle.configure("localhost")
        assert rigger.fire_hook("show", prefix="")["shown"] == "localhost:80"


def test_nested_hooks_queue_behind_those_accepted() -> None:
    with engine(caller="caller") as rigger:
        rigger.fire_hook("outer", depth=2)
    assert rigger.global_data["calls"] == ["outer 2", "inner 2", "inner 1", "inner 0"]


def test_a_plugin_with_riggerlibs_constructor() -> None:
    with engine(old={"plugin": "old", "prefix": "I am "}) as rigger:
        assert rigger.fire_hook("tell")["told"] == "I am old"


def test_several_engines_in_one_process() -> None:
    with engine(one="reader") as first, engine(two="reader") as second:
        first.fire_hook("read", value=1)
        second.fire_hook("read", value=2)
        assert (first.global_data["last"], second.global_data["last"]) == (1, 2)


PROGRAM = """
import sys

from PACKAGE import Rigger, RiggerBasePlugin, recursive_update


class Test(RiggerBasePlugin):

    def plugin_initialize(self):
        self.register_plugin_hook('start_session', self.start_session)
        self.register_plugin_hook('start_test', self.start_test)
        self.register_plugin_hook('finish_test')

    def configure(self, prefix):
        self.prefix = prefix
        self.configured = True

    @RiggerBasePlugin.check_configured
    def start_session(self, session):
        return None, {'session': session, 'results': {}}

    def start_test(self, test_name, artifact_path):
        with open(artifact_path + "-" + self.ident + ".log", "w") as f:
            f.write(self.prefix + test_name + "\\n")

    def finish_test(self, test_name, artifact_path, test_result):
        if test_result == 'broken':
            raise ValueError(test_name + ' is broken')
        with open(artifact_path + "-" + self.ident + ".log", "a") as f:
            f.write(test_result + "\\n")
        self.fire_hook('count', names=[test_name])
        return None, {'results': {test_name: {self.ident: test_result}}}


class Counter(RiggerBasePlugin):

    def plugin_initialize(self):
        self.total = 0
        self.register_plugin_hook('count')

    def count(self, names):
        self.total += len(names)
        return None, {'total': self.total, 'names': names}


class MyRigger(Rigger):

    def __init__(self, config_file, directory):
        super(MyRigger, self).__init__(config_file)
        self.directory = directory
        self.failures = []

    def parse_config(self):
        self.config = {
            'squash_exceptions': True, 'threaded': True, 'server_enabled': False,
            'plugins': {
                'one': {'enabled': True, 'plugin': 'test'},
                'two': {'enabled': True, 'plugin': 'test'},
                'counter': {'enabled': True, 'plugin': 'counter'},
                'unused': {'enabled': False, 'plugin': 'test'},
            },
        }
        self.squash_exceptions = self.config['squash_exceptions']
        self.setup_plugin_instances()
        self.start_server()

    def handle_failure(self, exc):
        self.failures.append(str(exc[1]))

    def log_message(self, message):
        pass


def main():
    rigger = MyRigger(None, sys.argv[1])
    rigger.register_plugin(Test, 'test')
    rigger.register_plugin(Counter, 'counter')
    rigger.parse_config()
    rigger.global_data = {'base': rigger.directory, 'total': 0}
    rigger.configure_plugin('one', 'first: ')
    rigger.configure_plugin('two', prefix='second: ')

    def artifact_path(test_name, base):
        return {'artifact_path': base + '/' + test_name}, None

    rigger.register_hook_callback('start_test', 'pre', artifact_path, name='path')
    rigger.register_hook_callback('finish_test', 'pre', artifact_path, name='path')
    rigger.initialized = True
    rigger.fire_hook('start_session', session='nightly')
    for name, result in (('a', 'passed'), ('b', 'broken'), ('c', 'failed')):
        rigger.fire_hook('start_test', test_name=name)
        rigger.fire_hook('finish_test', test_name=name, test_result=result)
    try:
        rigger.stop_server()
    except SystemExit:
        pass
    shown = dict(rigger.global_data, base=None, names=sorted(rigger.global_data['names']))
    print(sorted(shown.items()), rigger.failures)
    print(recursive_update({'a': {'b': [1]}}, {'a': {'b': [2], 'c': 3}}))


if __name__ == '__main__':
    main()
"""

WITH_MAPPING = """
import collections, collections.abc, runpy, sys
collections.Mapping = collections.abc.Mapping  # riggerlib 3.1.6 imports it from where it once was
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_a_program_for_riggerlib_runs_with_only_its_import_changed(tmp_path: Path) -> None:
    outputs = {}
    for package in ("riggerlib", "rigger_mp"):
        directory = tmp_path / package
        directory.mkdir()
        script = directory / "program.py"
        script.write_text(textwrap.dedent(PROGRAM).replace("PACKAGE", package))
        done = subprocess.run(
            [sys.executable, "-c", WITH_MAPPING, str(script), str(directory)],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        logs = {log.name: log.read_text() for log in directory.glob("*.log")}
        outputs[package] = (done.stdout, logs)
    assert outputs["rigger_mp"] == outputs["riggerlib"]
    output, logs = outputs["rigger_mp"]
    assert "'b is broken', 'b is broken'" in output
    assert logs["c-two.log"] == "second: c\nfailed\n"
