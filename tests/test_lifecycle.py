"""Starting, stopping, and leaving nothing behind; no ceremony in how a program uses the engine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import psutil
import pytest
from engine_plugins import Adder, Tally
from waiting import wait_for

from rigger_mp import Rigger
from rigger_mp.errors import NotRunningError

CONFIG: dict[str, Any] = {"workers": 2, "plugins": {"adder": {"enabled": True, "plugin": "adder"}}}

EXAMPLE = """
from rigger_mp import Rigger, RiggerBasePlugin

class Adder(RiggerBasePlugin):
    stateless = True
    def plugin_initialize(self):
        self.register_plugin_hook("add", self.add)
    def add(self, a, b):
        return {"sum": a + b}, {"last": a + b}

config = {"workers": 2, "plugins": {"adder": {"enabled": True, "plugin": "adder"}}}
with Rigger(config, plugins={"adder": Adder}) as rigger:
    print(rigger.fire_hook("add", a=1, b=2)["sum"])
    future = rigger.submit("add", a=3, b=4)
    print(future.result()["sum"], rigger.global_data["last"])

"""


def open_descriptors() -> int:
    return psutil.Process().num_fds()


def shared_memory() -> set[str]:
    """Return what is there and may be an engine's: other programs come and go."""
    folder = Path("/dev/shm")
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    return {name for name in names if name.startswith(("rigger", "psm_", "sem.mp-"))}


def runs(process: psutil.Process) -> bool:
    """Tell whether a process has not ended; one that nobody has reaped yet has."""
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def run(arguments: list[str], stdin: str = "", **options: Any) -> str:
    done = subprocess.run(
        [sys.executable, *arguments], input=stdin, capture_output=True, text=True, timeout=60, check=False, **options
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_fifty_starts_and_stops_leave_nothing_behind() -> None:
    with Rigger(CONFIG, plugins={"adder": Adder}) as rigger:  # what is imported once is not a leak
        rigger.fire_hook("add", a=1, b=2)
        assert rigger.global_data["last"] == 3
    descriptors, segments = open_descriptors(), shared_memory()
    for number in range(50):
        with Rigger(CONFIG, plugins={"adder": Adder}) as rigger:
            if number % 2:
                assert rigger.fire_hook("add", a=number, b=1)["sum"] == number + 1
                assert rigger.global_data["last"] == number + 1
    assert psutil.Process().children(recursive=True) == []
    assert open_descriptors() <= descriptors
    assert shared_memory() <= segments


def test_a_start_with_more_than_a_socket_takes_at_once() -> None:
    plugins = {"adder": {"plugin": "adder", "ballast": "x" * (4 << 20)}}
    with Rigger({**CONFIG, "plugins": plugins}, plugins={"adder": Adder}) as rigger:
        result = rigger.fire_hook("add", a=1, b=2)
        assert result is not None
        assert result["sum"] == 3


def test_stop_right_after_start_and_twice() -> None:
    rigger = Rigger(CONFIG, plugins={"adder": Adder}).start()
    rigger.stop()
    rigger.stop()
    with pytest.raises(NotRunningError, match="stop"):
        rigger.fire_hook("add", a=1, b=2)


def test_firing_before_the_start_says_what_to_do() -> None:
    rigger = Rigger(CONFIG, plugins={"adder": Adder})
    with pytest.raises(NotRunningError, match=r"with Rigger"):
        rigger.fire_hook("add", a=1, b=2)


def test_results_and_globals_can_be_read_after_the_end() -> None:
    with Rigger(CONFIG, plugins={"adder": Adder}) as rigger:
        first = rigger.fire_hook("add", a=1, b=2)
        rigger.fire_hook("add", a=10, b=20)
    assert (first["sum"], first["last"], rigger.global_data["last"]) == (3, 3, 30)


def test_leaving_the_with_block_finishes_what_was_fired() -> None:
    with Rigger(CONFIG, plugins={"adder": Adder}) as rigger:
        futures = [rigger.submit("add", a=number, b=0) for number in range(500)]
    assert all(future.done() for future in futures)
    assert [future.result()["sum"] for future in futures] == list(range(500))


def test_a_script_without_a_main_guard(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(EXAMPLE)
    assert run([str(script)]) == "3\n7 7\n"


IMPORTS_RIGGER = """
import sys
from rigger_mp import Rigger, RiggerBasePlugin

class Adder(RiggerBasePlugin):
    stateless = True
    def plugin_initialize(self):
        self.register_plugin_hook("add", lambda a, b: ({"sum": a + b}, None))

class Inner(RiggerBasePlugin):
    def plugin_initialize(self):
        self.register_plugin_hook("look", self.look)
        self.register_plugin_hook("start", self.start)
    def look(self):
        heavy = {"yaml", "psutil", "multiprocessing", "rigger_mp.config", "rigger_mp.engine.engine"}
        return {"named": "rigger_mp.rigger" in sys.modules, "heavy": sorted(heavy & set(sys.modules))}, None
    def start(self):
        config = {"workers": 1, "plugins": {"adder": {"plugin": "adder"}}}
        with Rigger(config, plugins={"adder": Adder}) as rigger:
            processes = {row["role"] for row in rigger.stats()["processes"]}
            return {"sum": rigger.fire_hook("add", a=1, b=2)["sum"], "processes": processes}, None
"""


@pytest.mark.skipif("coverage" in sys.modules, reason="coverage itself imports multiprocessing")
def test_a_worker_imports_what_starts_an_engine_only_to_start_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "imports_rigger.py").write_text(IMPORTS_RIGGER)
    monkeypatch.syspath_prepend(tmp_path)
    config = {"workers": 1, "plugins": {"inner": {"plugin": "imports_rigger:Inner"}}}
    with Rigger(config) as rigger:
        looked = rigger.fire_hook("look")
        assert (looked["named"], looked["heavy"]) == (True, [])
        started = rigger.fire_hook("start")
        assert started["sum"] == 3
        assert started["processes"] >= {"main", "dispatcher", "manager"}


def test_a_program_on_standard_input() -> None:
    assert run(["-"], EXAMPLE) == "3\n7 7\n"


def test_an_interactive_session() -> None:
    assert run(["-i"], EXAMPLE) == "3\n7 7\n"


def test_a_program_that_never_stops_its_engine_finishes_what_it_fired(tmp_path: Path) -> None:
    out = tmp_path / "out"
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent(f"""
        from rigger_mp import Rigger, RiggerBasePlugin
        import time

        class Writer(RiggerBasePlugin):
            def plugin_initialize(self):
                self.register_plugin_hook("write", lambda text: open({str(out)!r}, "a").write(text) and None)

        rigger = Rigger({{"plugins": {{"w": {{"plugin": "w"}}}}}}, plugins={{"w": Writer}}).start()
        for number in range(20):
            rigger.fire_hook("write", wait=False, text=str(number) + " ")
        """)
    )
    run([str(script)])
    assert out.read_text().split() == [str(number) for number in range(20)]


def test_functions_classes_and_closures_of_main_travel(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent("""
        import enum
        from rigger_mp import Rigger, RiggerBasePlugin

        class Colour(enum.Enum):
            RED = 1

        class Point:
            def __init__(self, x):
                self.x = x

        class Mover(RiggerBasePlugin):
            stateless = True
            def plugin_initialize(self):
                self.register_plugin_hook("move", lambda point, by: ({"moved": Point(point.x + by)}, None))

        def doubled(factor):
            return lambda by: ({"by": by * factor, "colour": Colour.RED}, None)

        with Rigger({"plugins": {"m": {"plugin": "m"}}}, plugins={"m": Mover}) as rigger:
            rigger.register_hook_callback("move", "pre", doubled(2))
            result = rigger.fire_hook("move", point=Point(1), by=3)
            print(result["moved"].x, isinstance(result["moved"], Point), result["colour"] is Colour.RED)
        """)
    )
    assert run([str(script)]) == "7 True True\n"


def engine_processes(pid: int) -> list[psutil.Process]:
    return psutil.Process(pid).children(recursive=True)


@pytest.mark.parametrize("moment", ["busy", "idle"])
def test_nothing_outlives_the_users_process(tmp_path: Path, moment: str) -> None:
    ready = tmp_path / "ready"
    script = tmp_path / "script.py"
    body = "time.sleep(600)" if moment == "busy" else "pass"
    script.write_text(
        textwrap.dedent(f"""
        import pathlib, time
        from rigger_mp import Rigger, RiggerBasePlugin

        class Sleeper(RiggerBasePlugin):
            def plugin_initialize(self):
                self.register_plugin_hook("sleep", self.sleep)
            def sleep(self):
                pathlib.Path({str(ready)!r}).touch()
                {body}

        rigger = Rigger({{"workers": 2, "plugins": {{"s": {{"plugin": "s"}}}}}}, plugins={{"s": Sleeper}}).start()
        rigger.fire_hook("sleep", wait=False)
        time.sleep(600)
        """)
    )
    segments = shared_memory()
    with subprocess.Popen([sys.executable, str(script)]) as process:
        wait_for(ready.exists)
        processes = engine_processes(process.pid)
        assert len(processes) >= 4
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    _, left = psutil.wait_procs(processes, timeout=2)
    assert [process for process in left if runs(process)] == []
    assert shared_memory() <= segments


def test_ten_thousand_nested_updates_from_concurrent_hooks_lose_nothing() -> None:
    config = {"workers": 4, "plugins": {"tally": {"plugin": "tally"}}}
    with Rigger(config, plugins={"tally": Tally}) as rigger:
        for number in range(10_000):
            rigger.fire_hook("tally", wait=False, number=number)
    globals_ = rigger.global_data
    assert sorted(globals_["seen"]) == list(range(10_000))
    expected = {str(ten): {str(n): n for n in range(ten, 10_000, 10)} for ten in range(10)}
    assert globals_["tally"] == {"by": expected}


STARTS = """
from rigger_mp import Rigger, RiggerBasePlugin

class Echo(RiggerBasePlugin):
    def plugin_initialize(self):
        self.register_plugin_hook("echo", lambda value: ({"echoed": value}, None))

rigger = Rigger({"workers": 2, "plugins": {"e": {"plugin": "e"}}}, plugins={"e": Echo}).start()
"""


def test_closed_standard_streams_and_few_descriptors(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    fires = "assert rigger.fire_hook('echo', value=5)['echoed'] == 5\nrigger.stop()\n"
    script.write_text(STARTS + fires + f"open({str(tmp_path / 'done')!r}, 'w').close()\n")
    shell = 'ulimit -n 64; exec "$0" "$1" <&- >&- 2>&-'
    subprocess.run(["/bin/sh", "-c", shell, sys.executable, str(script)], timeout=60, check=True)
    assert (tmp_path / "done").exists()


def test_a_fork_of_the_users_process_leaves_its_engine_alone(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    body = """
import os
with rigger:
    child = os.fork()
    if not child:
        try:
            rigger.fire_hook("echo", value=1)
        except RuntimeError as error:
            assert "forked" in str(error)
            raise SystemExit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    print(rigger.fire_hook("echo", value=2)["echoed"])
"""
    script.write_text(STARTS + body)
    assert run([str(script)]) == "2\n"


def test_a_fork_of_the_users_process_reads_globals_by_connections_of_its_own(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    body = """
import os, sys
from rigger_mp.errors import NotRunningError
with rigger:
    if not (child := os.fork()):
        try:
            rigger.global_data["a"]
        except NotRunningError as error:
            assert "before the fork" in str(error)
            os._exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    rigger.global_data = {"a": "A", "b": "B"}
    assert rigger.global_data["a"] == "A"
    child = os.fork()
    name = "a" if child else "b"
    right = all(rigger.global_data[name] == name.upper() for _ in range(3000))
    if not child:
        os._exit(7 if right else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    print(right)
"""
    script.write_text(STARTS + body)
    assert run([str(script)]) == "True\n"


def test_ctrl_c_while_it_starts_is_the_callers_alone(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("""
import os, signal, sys, threading, time
from rigger_mp import Rigger
threading.Timer(float(sys.argv[1]), os.killpg, (0, signal.SIGINT)).start()
try:
    Rigger({"workers": 1}).start()
    time.sleep(60)
except KeyboardInterrupt:
    print("caught")
""")
    for delay in ("0.01", "0.03", "0.06", "0.1", "0.2"):
        command = [sys.executable, str(script), delay]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=100, check=False, start_new_session=True
        )
        assert (done.stdout, done.stderr, done.returncode) == ("caught\n", "", 0)


def test_what_a_program_sets_for_itself_neither_harms_the_engine_nor_is_hidden_from_plugins(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("""
import os, signal, sys
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
from rigger_mp import Rigger
from rigger_mp.errors import EncodingError, WorkerLost
with Rigger({"workers": 1}) as rigger:
    rigger.register_hook_callback("exit", "pre", lambda: os._exit(3))
    rigger.register_hook_callback("argv", "pre", lambda: ({"seen": sys.argv}, None))
    try:
        rigger.fire_hook("exit")
    except WorkerLost:
        print("lost")
    print(rigger.fire_hook("argv")["seen"] == sys.argv, len(sys.argv))
    try:
        rigger.register_hook_callback("argv", "pre", lambda: rigger.stats())
    except EncodingError as error:
        print("a Rigger stays in its own process" in str(error))
""")
    command = [sys.executable, "-W", "error", str(script), "--own", *(["x" * 100_000] * 10)]  # more than fits twice
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert (done.stdout, done.stderr) == ("lost\nTrue 12\nTrue\n", "")


def test_a_limit_of_descriptors_that_is_too_low_is_said_before_anything_is_started(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("""
import os, resource
from rigger_mp import Rigger
from rigger_mp.errors import StartError
opened = os.listdir("/proc/self/fd")
_, most = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (len(opened) + 10, most))
try:
    Rigger({"workers": 1}).start()
except StartError as error:
    print("ulimit -n" in str(error))
print(os.listdir("/proc/self/fd") == opened)
""")
    assert run([str(script)]) == "True\nTrue\n"
