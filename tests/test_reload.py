"""Rigger.reload and SIGHUP: configuration and plugin code anew while events flow; what is broken is refused."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter as Count
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
from waiting import wait_for

from rigger_mp import Rigger, RiggerBasePlugin
from rigger_mp.errors import ConfigError, DeadlockError, EngineLost, HookError, NotRunningError, PluginError, StartError

PLUGIN = """
import os, time
from rigger_mp import RiggerBasePlugin
from helper import HELPER


class Plug(RiggerBasePlugin):
    def plugin_initialize(self):
        self.calls = 0
        self.setting = None
        for event in {events}:
            self.register_plugin_hook(event)
        self.register_plugin_hook("archive", bg=True)

    def configure(self, setting):
        self.setting = setting

    def version(self):
        self.calls += 1
        return {{"version": {version}, "helper": HELPER, "calls": self.calls, "setting": self.setting,
                "mode": self.data.get("mode"), "pid": os.getpid()}}, None

    def extra(self):
        return {{"extra": True}}, None

    def hold(self, started, release):
        open(started, "w").close()
        while not os.path.exists(release):
            time.sleep(0.005)
        return {{"version": {version}}}, None

    def archive(self, log, number, seconds=0):
        time.sleep(seconds)
        with open(log, "a") as file:
            file.write(f"{version} {{number}}\\n")
"""


class Site:
    """A directory with a plugin, a module that it uses, and a configuration."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.config = directory / "rigger.yaml"
        (directory / "helper.py").write_text("HELPER = 1\n")
        self.write_plugin(1)
        self.write_config()

    def write_plugin(self, version: object, events: tuple[str, ...] = ("version", "hold")) -> None:
        (self.directory / "plug.py").write_text(PLUGIN.format(version=version, events=events))

    def write_config(self, plugins: str = "p: {plugin: plug}", **settings: object) -> None:
        values = {"workers": 1, "plugin_path": ".", **settings}
        lines = [f"{key}: {value}" for key, value in values.items()]
        self.config.write_text("\n".join([*lines, f"plugins: {{{plugins}}}"]) + "\n")

    def rigger(self) -> QuietRigger:
        return QuietRigger(self.config)


class QuietRigger(Rigger):
    """Keeps what it is told."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.said: list[str] = []

    def log_message(self, message: object) -> None:
        self.said.append(str(message))


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.syspath_prepend(str(tmp_path))
    yield Site(tmp_path)
    sys.modules.pop("helper", None)


def workers(rigger: Rigger) -> list[dict[str, Any]]:
    return [row for row in rigger.stats()["processes"] if row["role"] in ("worker", "archive") and row["alive"]]


def write_slow_plugin(site: Site, started: Path, release: Path) -> None:
    """Write version 2, whose first instance waits for a file."""
    code = PLUGIN.format(version=2, events=("version",)).replace(
        "self.calls = 0",
        f"self.calls = 0; first = not os.path.exists({str(started)!r}); open({str(started)!r}, 'w').close()\n"
        f"        while first and not os.path.exists({str(release)!r}): time.sleep(0.005)",
    )
    (site.directory / "plug.py").write_text(code)


def has_ended(pids: set[int], rigger: Rigger) -> bool:
    return not pids & {row["pid"] for row in workers(rigger)}


def descriptors(pid: int) -> int:
    return psutil.Process(pid).num_fds()


def test_code_changed_on_disk_takes_effect_whatever_its_size_and_second(site: Site) -> None:
    with site.rigger() as rigger:
        for version in range(1, 7):
            result = rigger.fire_hook("version")
            assert (result["version"], result["helper"], result["calls"]) == (version, version, 1)
            site.write_plugin(version + 1)
            (site.directory / "helper.py").write_text(f"HELPER = {version + 1}\n")
            rigger.reload()
        assert rigger.stats()["generation"] == 7


def test_configuration_changes_take_effect(site: Site) -> None:
    with site.rigger() as rigger:
        handle = rigger.get_instance_obj("p")
        site.write_plugin(1, events=("version", "extra"))
        site.write_config("p: {plugin: plug, mode: new}, q: {plugin: plug, stateless: true}", workers=3)
        rigger.reload()
        assert rigger.fire_hook("version")["mode"] in ("new", None)
        assert rigger.fire_hook("extra")["extra"]
        assert rigger.config["workers"] == 3
        assert rigger.get_instance_obj("p") is handle
        assert handle is not None
        assert handle.data["mode"] == "new"
        assert rigger.get_instance_obj("q") is not None
        assert rigger.fire_hook("version")["config"]["workers"] == 3
        site.write_config("q: {plugin: plug}", squash_exceptions="true")
        rigger.reload()
        assert rigger.get_instance_obj("p") is None
        assert rigger.fire_hook("version")["mode"] is None
        assert rigger.squash_exceptions


def test_the_number_of_workers_changes_and_the_former_processes_end(site: Site) -> None:
    with site.rigger() as rigger:
        pids = set()
        for count in (2, 3, 1):
            site.write_config("p: {plugin: plug, stateless: true}", workers=count)
            before = {row["pid"] for row in workers(rigger)}
            rigger.reload()
            wait_for(partial(has_ended, before, rigger))
            names = [row["name"] for row in workers(rigger)]
            assert sorted(names) == ["archive", *(f"worker-{number}" for number in range(count))]
            assert not any(psutil.pid_exists(pid) for pid in before)
            pids.add(rigger.fire_hook("version")["pid"])
        assert len(pids) == 3


def test_a_mapping_and_classes_of_this_process_are_taken_anew() -> None:
    def plugin(number: int) -> type:
        class Plug(RiggerBasePlugin):
            def plugin_initialize(self) -> None:
                self.register_plugin_hook("version", lambda: ({"version": number}, None))

        return Plug

    config = {"workers": 1, "plugins": {"p": {"plugin": "plug"}}}
    with QuietRigger(config, plugins={"plug": plugin(1)}) as rigger:
        rigger.reload()
        assert rigger.fire_hook("version")["version"] == 1
        rigger.reload(plugins={"plug": plugin(2)})
        assert rigger.fire_hook("version")["version"] == 2
        rigger.reload({**config, "mark": 3})
        result = rigger.fire_hook("version")
        assert (result["version"], result["config"]["mark"], rigger.config["mark"]) == (2, 3, 3)
        with pytest.raises(PluginError, match="expected a class"):
            rigger.reload(plugins={"plug": "no class"})  # type: ignore[dict-item]


def _raise_on_import(site: Site) -> None:
    (site.directory / "plug.py").write_text("raise RuntimeError('at import')\n")


def _end_on_import(site: Site) -> None:
    (site.directory / "plug.py").write_text("import os\nos._exit(3)\n")


def _raise_on_initialize(site: Site) -> None:
    site.write_plugin(2, events=("version", "missing_method"))


def _end_on_initialize(site: Site) -> None:
    code = PLUGIN.format(version=2, events=("version",)).replace("self.calls = 0", "os._exit(4)")
    (site.directory / "plug.py").write_text(code)


def _break_yaml(site: Site) -> None:
    site.config.write_text("workers: [1\nplugins: {\n")


def _mistake(site: Site) -> None:
    site.write_config(workers="many")


def _unknown_plugin(site: Site) -> None:
    site.write_config("p: {plugin: plug}, q: {plugin: plugg}")


def _fixed_keys(site: Site) -> None:
    site.write_config(queue_size=5, list_merge="replace", max_output=1, archive="{spool: jobs.spool}")


@pytest.mark.parametrize(
    ("breaks", "error", "text"),
    [
        (_raise_on_import, PluginError, "RuntimeError: at import"),
        (_end_on_import, PluginError, "status 3"),
        (_raise_on_initialize, PluginError, "missing_method"),
        (_end_on_initialize, PluginError, "'p'.*exited with status 4"),
        (_break_yaml, ConfigError, "rigger.yaml:2"),
        (_mistake, ConfigError, "workers is 'many'"),
        (_unknown_plugin, PluginError, "did you mean 'plug'"),
        (_fixed_keys, ConfigError, r"(?s)queue_size: .*list_merge: .*max_output: .*archive.spool: "),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_what_is_broken_is_refused_and_the_old_one_serves_on(
    site: Site, breaks: Any, error: type[Exception], text: str
) -> None:
    with site.rigger() as rigger:
        rigger.fire_hook("version")
        rigger.configure_plugin("p", "kept")
        config, dispatcher = rigger.config, rigger.stats()["processes"][1]["pid"]
        before, opened = workers(rigger), descriptors(dispatcher)
        breaks(site)
        with pytest.raises(error, match=text):
            rigger.reload()
        assert rigger.config is config
        assert rigger.stats()["generation"] == 1
        wait_for(lambda: [row["pid"] for row in workers(rigger)] == [row["pid"] for row in before])
        wait_for(lambda: descriptors(dispatcher) <= opened)
        result = rigger.fire_hook("version")
        assert (result["version"], result["calls"], result["setting"]) == (1, 2, "kept")
        site.write_plugin(3)
        site.write_config()
        rigger.reload()
        assert rigger.fire_hook("version")["version"] == 3


def test_an_instance_that_never_worked_is_tolerated_unless_strict(site: Site) -> None:
    (site.directory / "broken.py").write_text(
        "from rigger_mp import RiggerBasePlugin\nclass Broken(RiggerBasePlugin):\n"
        "    def plugin_initialize(self):\n        raise RuntimeError('no database')\n"
    )
    plugins = "p: {plugin: plug}, nowhere: {plugin: nowhere}, broken: {plugin: broken}"
    site.write_config(plugins)
    with site.rigger() as rigger:
        site.write_plugin(2)
        rigger.said.clear()
        rigger.reload()
        assert any("nowhere" in text for text in rigger.said)
        assert any("no database" in text for text in rigger.said)
        assert rigger.fire_hook("version")["version"] == 2
        site.write_config(plugins, strict="true")
        with pytest.raises(PluginError, match="nowhere"):
            rigger.reload()
        site.write_config("p: {plugin: plug}, broken: {plugin: broken}", strict="true")
        with pytest.raises(PluginError, match="no database"):
            rigger.reload()


def test_configure_calls_globals_and_callbacks_are_kept(site: Site) -> None:
    with site.rigger() as rigger:
        rigger.configure_plugin("p", "set")
        rigger.global_data = {"kept": [1, 2]}
        rigger.register_hook_callback("version", "pre", lambda kept: ({"seen": kept}, None), name="before")
        rigger.register_hook_callback("version", "post", lambda version: ({"after": version}, None), name="after")
        for generation in range(2, 5):
            site.write_plugin(generation)
            rigger.reload()
            result = rigger.fire_hook("version")
            assert (result["setting"], result["seen"], result["after"]) == ("set", [1, 2], generation)
        rigger.unregister_hook_callback("version", "pre", "before")
        assert "seen" not in rigger.fire_hook("version")


def test_events_before_end_on_the_old_code_and_events_are_accepted_meanwhile(site: Site, tmp_path: Path) -> None:
    started, release = tmp_path / "started", tmp_path / "release"
    with site.rigger() as rigger:
        held = rigger.submit("hold", started=str(started), release=str(release))
        wait_for(started.exists)
        site.write_plugin(2)
        reloading = threading.Thread(target=rigger.reload)
        reloading.start()
        wait_for(lambda: rigger.stats()["generation"] == 2)
        behind = [rigger.submit("version") for _ in range(20)]
        assert reloading.is_alive()
        assert not any(future.done() for future in behind)
        release.touch()
        assert held.result(30)["version"] == 1
        assert [future.result(30)["version"] for future in behind] == [2] * 20
        reloading.join(30)
        assert not reloading.is_alive()


@pytest.mark.parametrize("archive", ["{}", "{spool: jobs.spool}"])
def test_background_handlers_that_wait_are_finished_by_the_old_archive_before_the_new_one_begins(
    site: Site, tmp_path: Path, archive: str
) -> None:
    log = tmp_path / "log"
    site.write_config(archive=archive)
    with site.rigger() as rigger:
        for number in range(20):
            rigger.fire_hook("archive", log=str(log), number=number, seconds=0.05)
        site.write_plugin(2)
        rigger.reload()
        assert rigger.fire_hook("version")["version"] == 2
        assert len(log.read_text().splitlines()) < 20, "the reload waited for the archive"
        for number in range(20, 25):
            rigger.fire_hook("archive", log=str(log), number=number)
        rigger.drain(60)
    assert log.read_text().splitlines() == [f"{1 if n < 20 else 2} {n}" for n in range(25)]


LEDGER = """
import os
from rigger_mp import RiggerBasePlugin

MARK = {mark}


class Ledger(RiggerBasePlugin):
    def plugin_initialize(self):
        self.fd = os.open(self.data["ledger"], os.O_WRONLY | os.O_APPEND)
        self.register_plugin_hook("ordered")
        self.register_plugin_hook("parallel", concurrent=True)
        self.register_plugin_hook("background", bg=True)
        self.register_plugin_hook("nest")
        self.register_plugin_hook("nested")

    def write(self, kind, key):
        os.write(self.fd, f"{{kind}} {{key}}\\n".encode())
        return {{"key": key, "mark": MARK}}, {{"count": {{kind: {{key: 1}}}}}}

    def ordered(self, key):
        return self.write("ordered", key)

    def parallel(self, key):
        return self.write("parallel", key)

    def background(self, key):
        return self.write("background", key)

    def nest(self, key):
        self.fire_hook("nested", key=key)
        return self.write("nest", key)

    def nested(self, key):
        return self.write("nested", key)
"""
KINDS = ("ordered", "parallel", "background", "nest")


class Load(threading.Thread):
    """Fires events of one kind until it is told to end, a few at a time."""

    def __init__(self, rigger: Rigger, kind: str) -> None:
        super().__init__()
        self.rigger, self.kind = rigger, kind
        self.enough = threading.Event()
        self.keys: list[str] = []
        self.results: list[str] = []
        self.marks: set[int] = set()
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            while not self.enough.is_set():
                keys = [f"{self.kind}-{len(self.keys) + number}" for number in range(10)]
                futures = [self.rigger.submit(self.kind, key=key) for key in keys]
                self.keys += keys
                for future in futures:
                    result = future.result(60)
                    self.results.append(result.get("key", ""))
                    self.marks.add(result.get("mark", 0))
        except BaseException as error:
            self.error = error


def test_under_load_no_event_is_lost_none_runs_twice_and_order_is_kept(tmp_path: Path) -> None:
    ledger, config = tmp_path / "ledger", tmp_path / "rigger.yaml"
    ledger.touch()

    def change(mark: int) -> None:
        (tmp_path / "ledgers.py").write_text(LEDGER.format(mark=mark))
        config.write_text(
            f"workers: {1 + mark % 3}\nplugin_path: .\nplugins:\n"
            f"  stateful: {{plugin: ledgers, ledger: {ledger}}}\n"
        )

    change(0)
    failures: list[BaseException] = []

    class Watched(QuietRigger):
        def handle_failure(self, exc: Any) -> None:
            failures.append(exc[1])

    with Watched(config) as rigger:
        loads = [Load(rigger, kind) for kind in KINDS]
        for load in loads:
            load.start()
        try:
            for mark in range(1, 6):
                goal = len(loads[0].results) + 20
                wait_for(lambda goal=goal: len(loads[0].results) > goal or loads[0].error)
                change(mark)
                rigger.reload()
            wait_for(lambda: 5 in loads[0].marks or loads[0].error)
        finally:
            for load in loads:
                load.enough.set()
            for load in loads:
                load.join()
        rigger.drain(60)
        counts = rigger.global_data["count"]
        stats = rigger.stats()
    assert [load.error for load in loads] == [None] * len(loads)
    assert failures == []
    assert stats["generation"] == 6
    assert (stats["events"]["lost"], stats["events"]["failed"], stats["events"]["pending"]) == (0, 0, 0)
    ran = [line.split() for line in ledger.read_text().splitlines()]
    fired = {load.kind: load.keys for load in loads}
    fired["nested"] = fired["nest"]
    assert Count(map(tuple, ran)) == Count((kind, key) for kind, keys in fired.items() for key in keys)
    for kind in ("ordered", "background", "nest", "nested", "parallel"):  # of one stateful instance: all in order
        assert [key for name, key in ran if name == kind] == fired[kind]
    assert {kind: set(keys) for kind, keys in counts.items()} == {k: set(keys) for k, keys in fired.items()}
    assert loads[0].results == loads[0].keys
    assert loads[0].marks == set(range(6))


def test_concurrent_reloads_take_turns_and_the_last_one_holds(site: Site) -> None:
    with site.rigger() as rigger:
        errors: list[BaseException] = []

        def reload() -> None:
            try:
                rigger.reload()
            except BaseException as error:
                errors.append(error)

        site.write_plugin(2)
        threads = [threading.Thread(target=reload) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors == []
        assert rigger.stats()["generation"] == 4
        assert rigger.fire_hook("version")["version"] == 2


def test_a_full_queue_has_room_again_after_a_reload(site: Site, tmp_path: Path) -> None:
    site.write_config(queue_size=1)
    started, release = tmp_path / "started", tmp_path / "release"
    with site.rigger() as rigger:
        write_slow_plugin(site, started, release)
        reloading = threading.Thread(target=rigger.reload)
        reloading.start()
        wait_for(started.exists)
        results: list[Any] = []
        firing = threading.Thread(target=lambda: results.append(rigger.fire_hook("version")["version"]))
        firing.start()
        release.touch()
        for thread in (reloading, firing):
            thread.join(60)
            assert not thread.is_alive()
        assert results == [2]


def test_configure_calls_during_reloads_reach_every_generation_once_and_in_order(site: Site) -> None:
    code = PLUGIN.format(version=1, events=("version",))
    code = code.replace("self.setting = None", "self.setting = []").replace(
        "self.setting = setting", "self.setting.append(setting)"
    )
    (site.directory / "plug.py").write_text(code)
    with site.rigger() as rigger:
        enough = threading.Event()
        sent: list[int] = []

        def configure() -> None:
            while not enough.is_set():
                rigger.configure_plugin("p", len(sent))
                sent.append(len(sent))

        thread = threading.Thread(target=configure)
        thread.start()
        for number in range(1, 4):
            wait_for(lambda goal=5 * number: len(sent) >= goal)
            rigger.reload()
        enough.set()
        thread.join(60)
        assert rigger.fire_hook("version")["setting"] == sent


def test_where_it_would_wait_for_itself_or_for_nothing(site: Site, tmp_path: Path) -> None:
    release = tmp_path / "release"
    with pytest.raises(NotRunningError):
        Rigger({}).reload()
    with site.rigger() as rigger:
        caught: list[BaseException] = []

        def reload(_: object) -> None:
            try:
                rigger.reload()
            except BaseException as error:
                caught.append(error)

        done = threading.Event()
        future = rigger.submit("hold", started=os.devnull, release=str(release))
        future.add_done_callback(lambda ended: (reload(ended), done.set()))
        release.touch()
        assert done.wait(30)
    assert [type(error) for error in caught] == [DeadlockError]
    with pytest.raises(NotRunningError):
        rigger.reload()


@pytest.mark.parametrize("timeout", [30.0, 0.0])
def test_a_stop_in_the_middle_of_a_reload(site: Site, tmp_path: Path, timeout: float) -> None:
    slow = PLUGIN.format(version=2, events=("version",)).replace(
        "self.calls = 0", f"self.calls = 0; open({str(tmp_path / 'making')!r}, 'w').close(); time.sleep(600)"
    )
    with site.rigger() as rigger:
        (site.directory / "plug.py").write_text(slow)
        errors: list[BaseException] = []

        def reload() -> None:
            try:
                rigger.reload()
            except BaseException as error:
                errors.append(error)

        thread = threading.Thread(target=reload)
        thread.start()
        wait_for((tmp_path / "making").exists)
        future = rigger.submit("version")
        processes = psutil.Process().children(recursive=True)
        rigger.stop(timeout)
        thread.join(30)
        if timeout:
            assert future.result(0)["version"] == 1
    assert isinstance(errors[0], NotRunningError | EngineLost)
    assert psutil.wait_procs(processes, timeout=10)[1] == []


@pytest.mark.parametrize("ends", [True, False])
def test_what_a_stop_leaves_half_made_ends_before_the_rest_is_drained(site: Site, tmp_path: Path, ends: bool) -> None:
    """By itself if it can, else it is killed; what was accepted is finished all the same."""
    started, making, release = tmp_path / "started", tmp_path / "making", tmp_path / "release"
    with site.rigger() as rigger, ThreadPoolExecutor(2) as pool:
        old = {row["pid"] for row in workers(rigger)}
        held = rigger.submit("hold", started=str(started), release=str(release))
        wait_for(started.exists)
        write_slow_plugin(site, making, tmp_path / "made")
        reloading = pool.submit(rigger.reload)
        wait_for(making.exists)
        (half_made,) = (psutil.Process(row["pid"]) for row in workers(rigger) if row["pid"] not in old)
        stopping = pool.submit(rigger.stop, 60.0)
        assert isinstance(reloading.exception(30), NotRunningError)
        if ends:
            (tmp_path / "made").touch()
        assert psutil.wait_procs([half_made], timeout=30)[1] == []
        assert not stopping.done()
        release.touch()
        assert held.result(30)["version"] == 1
        stopping.result(30)


def test_a_generation_whose_processes_cannot_be_started_is_refused(site: Site) -> None:
    site.write_config(max_restarts=0)
    with site.rigger() as rigger:
        _end_on_initialize(site)
        with pytest.raises(StartError, match=r"worker-0 cannot be started: .*status 4"):
            rigger.reload()
        assert rigger.fire_hook("version")["version"] == 1


def test_an_option_that_is_set_during_a_reload_holds_after_it(site: Site, tmp_path: Path) -> None:
    started, release = tmp_path / "started", tmp_path / "release"
    with site.rigger() as rigger, ThreadPoolExecutor(1) as pool:
        write_slow_plugin(site, started, release)
        reloading = pool.submit(rigger.reload)
        wait_for(started.exists)
        rigger.squash_exceptions = True
        rigger.register_hook_callback("version", "pre", lambda: 1 / 0)
        release.touch()
        reloading.result(30)
        assert rigger.fire_hook("version")["version"] == 2


def test_a_stop_while_a_plugin_is_imported(site: Site, tmp_path: Path) -> None:
    with site.rigger() as rigger:
        text = f"import time\nopen({str(tmp_path / 'importing')!r}, 'w').close()\ntime.sleep(600)\n"
        (site.directory / "plug.py").write_text(text)
        errors: list[BaseException] = []

        def reload() -> None:
            try:
                rigger.reload()
            except BaseException as error:
                errors.append(error)

        thread = threading.Thread(target=reload)
        thread.start()
        wait_for((tmp_path / "importing").exists)
        rigger.stop()
        thread.join(30)
    assert isinstance(errors[0], NotRunningError)


@pytest.mark.parametrize("which", ["old", "new"])
def test_a_worker_that_is_killed_during_a_reload(site: Site, tmp_path: Path, which: str) -> None:
    started, release = tmp_path / "started", tmp_path / "release"
    with site.rigger() as rigger:
        old = {row["pid"] for row in workers(rigger) if row["role"] == "worker"}
        write_slow_plugin(site, started, release)
        thread = threading.Thread(target=rigger.reload)
        thread.start()
        wait_for(started.exists)
        new = {row["pid"] for row in workers(rigger) if row["role"] == "worker"} - old
        if which == "old":
            os.kill(old.pop(), signal.SIGKILL)
            release.touch()
        else:  # once it has made its instance: what dies while it makes one is at fault
            release.touch()
            wait_for(lambda: not thread.is_alive() or rigger.stats()["generation"] == 2)
            os.kill(new.pop(), signal.SIGKILL)
        thread.join(60)
        assert not thread.is_alive()
        deadline = time.monotonic() + 30
        while True:
            try:
                assert rigger.fire_hook("version")["version"] == 2
                break
            except HookError:
                raise
            except Exception:
                assert time.monotonic() < deadline, "events are still lost"


def test_a_dispatcher_that_is_killed_during_a_reload(site: Site, tmp_path: Path) -> None:
    started, release = tmp_path / "started", tmp_path / "release"
    with site.rigger() as rigger:
        dispatcher = rigger.stats()["processes"][1]["pid"]
        write_slow_plugin(site, started, release)
        thread = threading.Thread(target=rigger.reload)
        thread.start()
        wait_for(started.exists)
        os.kill(dispatcher, signal.SIGKILL)
        release.touch()
        thread.join(60)
        assert not thread.is_alive()
        assert rigger.fire_hook("version")["version"] == 2
        assert rigger.stats()["generation"] == 2


def test_a_killed_dispatcher_comes_back_with_the_reloaded_configuration(site: Site) -> None:
    with site.rigger() as rigger:
        site.write_plugin(2)
        site.write_config("p: {plugin: plug, mode: new}", workers=2)
        rigger.reload()
        rigger.configure_plugin("p", "set")
        os.kill(rigger.stats()["processes"][1]["pid"], signal.SIGKILL)
        result = rigger.fire_hook("version")
        assert (result["version"], result["mode"], result["setting"]) == (2, "new", "set")
        stats = rigger.stats()
        assert stats["generation"] == 2
        assert stats["processes"][1]["restarts"] == 1


def test_many_reloads_leave_nothing_behind(site: Site) -> None:
    with site.rigger() as rigger:
        dispatcher = rigger.stats()["processes"][1]["pid"]
        for _ in range(2):
            rigger.reload()

        def settled() -> tuple[int, int, int]:
            wait_for(lambda: len(workers(rigger)) == 2)
            return descriptors(dispatcher), descriptors(os.getpid()), len(psutil.Process().children(recursive=True))

        before = settled()
        for _ in range(10):
            rigger.reload()
            assert rigger.fire_hook("version")["calls"] == 1
        wait_for(lambda: settled() <= before)


class Served:
    """A running ``rigger-mp serve``; its messages are collected."""

    def __init__(self, config: Path, **environment: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "rigger_mp.cli", "serve", str(config)],
            stderr=subprocess.PIPE, text=True, env={**os.environ, **environment},
        )  # fmt: skip
        self.messages = ""
        self._reader = threading.Thread(target=self._collect)
        self._reader.start()

    def _collect(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.messages += line

    def hear(self, text: str) -> str:
        wait_for(lambda: text in self.messages or self.process.poll() is not None)
        assert text in self.messages, self.messages
        heard, _, self.messages = self.messages.partition(text)
        return heard + text

    def version(self) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "rigger_mp.cli", "fire", "version", "--json", "--server", self.server],
            capture_output=True, text=True, timeout=60, check=True,
        )  # fmt: skip
        return done.stdout

    @property
    def server(self) -> str:
        return self._address

    def start(self) -> None:
        self._address = self.hear(", pid").split("listening at ")[1].removesuffix(", pid")

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._reader.join()
        assert self.process.stderr is not None
        self.process.stderr.close()


def test_sighup_reloads_a_served_engine(site: Site, tmp_path: Path) -> None:
    site.write_config(server_port=0)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(30)
        served = Served(site.config, NOTIFY_SOCKET=str(tmp_path / "notify"), PYTHONPATH=str(tmp_path))
        try:
            served.start()
            assert manager.recv(100) == b"READY=1"
            assert '"version": 1' in served.version()
            site.write_plugin(2)
            served.process.send_signal(signal.SIGHUP)
            served.hear("reloaded in")
            assert manager.recv(100).startswith(b"RELOADING=1\nMONOTONIC_USEC=")
            assert manager.recv(100) == b"READY=1"
            assert '"version": 2' in served.version()
            site.write_plugin("3 3")
            served.process.send_signal(signal.SIGHUP)
            served.hear("not reloaded, the old configuration serves on: instance [p]: ")
            assert '"version": 2' in served.version()
            served.process.terminate()
            assert served.process.wait(60) == 0
        finally:
            served.end()
