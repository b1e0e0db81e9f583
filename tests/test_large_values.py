"""Values of 256 KiB and more travel once, through memory that nobody else can change, and leave nothing behind."""

from __future__ import annotations

import array
import os
import resource
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from large_plugins import SIZE, Raw, Reader, digest
from quiet import QuietRigger
from waiting import wait_for

from rigger_mp import HookError, RiggerClient
from rigger_mp.engine.segments import AVAILABLE, most_open

pytestmark = pytest.mark.skipif(not AVAILABLE, reason="this system has no memory that can be sealed")


@contextmanager
def rigged(readers: int = 1, **keys: Any) -> Iterator[QuietRigger]:
    instances = {f"reader{number}": {"plugin": "reader"} for number in range(readers)}
    config = {"workers": 2, "plugins": instances, **keys}
    with QuietRigger(config, plugins={"reader": Reader}) as rigger:
        yield rigger


def payload(seed: int = 0, size: int = SIZE) -> bytes:
    return bytes(range(seed, seed + 50)) * (size // 50)


def segments_of(pid: int) -> int:
    """Count the open segments of a process."""
    count = 0
    for link in Path(f"/proc/{pid}/fd").iterdir():
        try:
            count += "rigger_mp segment" in str(link.readlink())
        except OSError:
            continue
    return count


def named_shared_memory(pid: int) -> list[str]:
    """Return what a process has open or mapped in /dev/shm that would be left if it were killed."""
    held = Path(f"/proc/{pid}/maps").read_text().splitlines()
    held += [os.readlink(link) for link in Path(f"/proc/{pid}/fd").iterdir() if link.is_symlink()]  # noqa: PTH115
    return [line for line in held if "/dev/shm/" in line and not line.endswith("(deleted)")]


def pids(rigger: QuietRigger) -> dict[str, int]:
    return {row.get("name") or row["role"]: row["pid"] for row in rigger.stats()["processes"]}


def segments(rigger: QuietRigger) -> dict[str, int]:
    return {name: segments_of(pid) for name, pid in pids(rigger).items()}


def none_is_open(rigger: QuietRigger) -> bool:
    return not any(segments(rigger).values())


def numpy_array() -> Any:
    numpy = pytest.importorskip("numpy")
    return numpy.frombuffer(payload(), dtype="uint8").copy()


KINDS: dict[str, Callable[[], Any]] = {
    "bytes": payload,
    "bytearray": lambda: bytearray(payload()),
    "str": lambda: payload().decode("latin-1") + "\N{SNOWMAN}",
    "array": lambda: array.array("d", range(SIZE // 8)),
    "Raw": lambda: Raw(bytearray(payload())),
    "ndarray": numpy_array,
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_large_value_arrives_and_can_be_read_from_the_result(kind: str) -> None:
    value = KINDS[kind]()
    with rigged() as rigger:
        result = rigger.fire_hook("measure", data=value)
        assert result["reader0"] == digest(value)
        assert result["type"] == kind
        back = result["data"]
        assert type(back) is type(value)
        assert digest(back) == digest(value)
        assert back is result["data"]
    assert digest(back) == digest(value)


def test_large_values_deep_inside_small_ones() -> None:
    value = {"list": [1, payload(), "x"], "twin": payload(), "raw": {"a": [Raw(payload(3))]}}
    with rigged() as rigger:
        result = rigger.fire_hook("look", value=value, other=payload(7), small=5)
        assert result["reader0"] is True
        assert result["size"] == len(payload())
        assert result["value"] == value
        assert result["other"] == payload(7)
        assert result["small"] == 5
        with pytest.raises(TypeError, match="read-only"):
            result["value"]["raw"]["a"][0].data[0] = 1


def test_classes_of_main_travel_inside_large_values(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent("""
        from rigger_mp import Rigger, RiggerBasePlugin

        class Box:
            def __init__(self, content):
                self.content = content

        class Opener(RiggerBasePlugin):
            def plugin_initialize(self):
                self.register_plugin_hook("open", self.open)
            def open(self, box):
                return {"size": len(box.content), "box": Box(bytearray(box.content))}, None

        with Rigger({"plugins": {"o": {"plugin": "o"}}}, plugins={"o": Opener}) as rigger:
            result = rigger.fire_hook("open", box=Box(b"12" * 1_000_000))
            print(result["size"], type(result["box"]) is Box, len(result["box"].content))
        """)
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr) == ("2000000 True 2000000\n", "")


# -- privacy ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("kind", ["bytearray", "Raw", "ndarray"])
def test_mutating_a_large_argument_changes_nothing_anywhere_else(kind: str, workers: int) -> None:
    value = KINDS[kind]()
    ends = payload()[0], payload()[-1]
    with rigged(3, workers=workers) as rigger:
        for _ in range(3):
            result = rigger.fire_hook("scribble", data=value)
            assert [tuple(result[f"reader{number}"]) for number in range(3)] == [ends] * 3
            assert digest(value) == digest(payload())
            assert digest(result["data"]) == digest(payload())


def test_mutating_a_result_reaches_no_other_result() -> None:
    with rigged() as rigger:
        value = Raw(bytearray(payload()))
        first, second = (rigger.fire_hook("measure", data=value) for _ in range(2))
        first["data"].data[0] = 200
        assert first["data"].data[0] == 200
        assert second["data"].data[0] == value.data[0] == payload()[0]


# -- travelling once -------------------------------------------------------------------------------------


def test_four_plugins_share_one_segment_that_ends_with_the_event(tmp_path: Path) -> None:
    with rigged(4) as rigger:
        future = rigger.submit("hold", data=Raw(payload()), place=str(tmp_path))
        wait_for(lambda: len(list(tmp_path.iterdir())) == 2)
        held = segments(rigger)
        assert held == {"main": 1, "dispatcher": 1, "manager": 0, "worker-0": 1, "worker-1": 1, "archive": 0}
        (tmp_path / "go").touch()
        assert {future.result()[f"reader{number}"] for number in range(4)} == {digest(payload())}
        wait_for(lambda: none_is_open(rigger))


def test_small_values_need_no_segment(tmp_path: Path) -> None:
    with rigged() as rigger:
        future = rigger.submit("hold", data=payload(size=200_000), place=str(tmp_path))
        wait_for(lambda: list(tmp_path.iterdir()))
        assert none_is_open(rigger)
        (tmp_path / "go").touch()
        assert future.result()["reader0"] == digest(payload(size=200_000))


def test_kept_arrays_keep_no_descriptors() -> None:
    with rigged(workers=1) as rigger:
        results = [rigger.fire_hook("keep", data=Raw(payload())) for _ in range(60)]
        counts = [result["descriptors"] for result in results]
        assert results[-1]["kept"] == 60
        assert counts[-1] <= counts[0] + 2
        assert segments_of(os.getpid()) == 0
        assert all(result["data"].data == payload() for result in results)


# -- other ways ------------------------------------------------------------------------------------------


def test_large_local_updates_come_back_and_reach_later_stages(tmp_path: Path) -> None:
    with rigged() as rigger:
        rigger.register_hook_callback(
            "make", "post", lambda made, text: ({"seen": (len(made.data), made.data[5], len(text))}, None)
        )
        results = [rigger.fire_hook("make", seed=seed) for seed in range(20)]
        for seed, result in enumerate(results):
            assert result["seen"] == (SIZE, seed, SIZE)
            assert result["made"] == Raw(bytes([seed]) * SIZE)
            assert result["text"] == "x" * SIZE
        wait_for(lambda: none_is_open(rigger))


def test_a_background_handler_reads_it_after_the_event_has_ended(tmp_path: Path) -> None:
    with rigged() as rigger:
        rigger.fire_hook("later", data=Raw(payload()), name="done", place=str(tmp_path))
        wait_for(lambda: segments(rigger)["main"] == 0)
        assert segments(rigger)["archive"] == segments(rigger)["dispatcher"] == 1
        (tmp_path / "go").touch()
        wait_for(lambda: none_is_open(rigger))
        assert (tmp_path / "done").read_text() == digest(payload())


def test_a_nested_event_takes_it_along(tmp_path: Path) -> None:
    (tmp_path / "go").touch()
    with rigged() as rigger:
        rigger.fire_hook("pass_on", data=Raw(payload()), place=str(tmp_path))
        rigger.drain()
        assert (tmp_path / "passed").read_text() == digest(payload())
        wait_for(lambda: none_is_open(rigger))


def test_a_large_text_from_a_client() -> None:
    text = "0123456789abcdef" * (SIZE // 16)
    with rigged(server_enabled=True, server_port=0, server_max_line=1 << 24) as rigger:
        assert rigger.server_address is not None
        host, port = rigger.server_address
        with RiggerClient(host, port) as client:
            result = client.fire_hook("measure", grab_result=["reader0", "data"], data=text)
        assert result == {"reader0": digest(text), "data": text}
        wait_for(lambda: none_is_open(rigger))


def test_large_globals_arrive_too() -> None:
    with rigged() as rigger:
        rigger.global_data["data"] = payload()
        assert rigger.fire_hook("measure")["reader0"] == digest(payload())


# -- many ------------------------------------------------------------------------------------------------


def test_thousands_of_events_leave_no_descriptor_and_no_mapping() -> None:
    value = payload(size=300_000)
    with rigged() as rigger:
        rigger.fire_hook("measure", data=value)
        wait_for(lambda: none_is_open(rigger))
        before = {name: psutil.Process(pid).num_fds() for name, pid in pids(rigger).items()}
        for _ in range(10):
            futures = [rigger.submit("measure", data=value) for _ in range(200)]
            assert {future.result()["reader0"] for future in futures} == {digest(value)}
            del futures
        wait_for(lambda: none_is_open(rigger))
        wait_for(
            lambda: all(psutil.Process(pid).num_fds() <= before[name] for name, pid in pids(rigger).items())
        )
        for pid in pids(rigger).values():
            wait_for(lambda pid=pid: "rigger_mp segment" not in Path(f"/proc/{pid}/maps").read_text())


def test_more_pending_events_than_descriptors(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # The processes of the engine inherit it.
    resource.setrlimit(resource.RLIMIT_NOFILE, (120, hard))
    try:
        assert most_open() == 30
        with rigged() as rigger:
            held = rigger.submit("hold", data=payload(), place=str(tmp_path))
            later = [
                rigger.submit("later", data=payload(n), name=f"later{n}", place=str(tmp_path)) for n in range(100)
            ]
            for future in later:
                future.result()
            futures = [rigger.submit("hold", data=payload(n), place=str(tmp_path)) for n in range(150)]
            assert segments(rigger)["main"] <= 30
            (tmp_path / "go").touch()
            assert held.result()["reader0"] == digest(payload())
            for number, future in enumerate(futures):
                assert future.result()["reader0"] == digest(payload(number))
                assert future.result()["data"] == payload(number)
            rigger.drain()
            for number in range(100):
                assert (tmp_path / f"later{number}").read_text() == digest(payload(number))
            wait_for(lambda: none_is_open(rigger))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_many_threads_at_once() -> None:
    problems: list[Any] = []

    def fire(rigger: QuietRigger, seed: int) -> None:
        for turn in range(15):
            value = Raw(payload(seed * 15 + turn))
            future = rigger.submit("measure", data=value)
            result = rigger.fire_hook("measure", data=value) if turn % 2 else future.result()
            if result["reader0"] != digest(value) or result["data"] != value:
                problems.append((seed, turn))

    with rigged() as rigger:
        threads = [threading.Thread(target=fire, args=(rigger, seed)) for seed in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        wait_for(lambda: none_is_open(rigger))
    assert problems == []


# -- losses ----------------------------------------------------------------------------------------------


def test_a_worker_killed_in_the_middle_is_replaced_and_reads_it_again(tmp_path: Path) -> None:
    with rigged(hooks={"die_once": {"max_retries": 1}}) as rigger:
        value = Raw(bytearray(payload()))
        result = rigger.fire_hook("die_once", data=value, place=str(tmp_path))
        assert (tmp_path / "died").exists()
        assert result["digest"] == digest(payload())
        wait_for(lambda: none_is_open(rigger))


def test_what_had_not_started_when_the_dispatcher_died_is_sent_again_with_its_values(tmp_path: Path) -> None:
    with rigged(workers=1) as rigger:
        held = rigger.submit("hold", data=payload(), place=str(tmp_path))
        wait_for(lambda: list(tmp_path.iterdir()))
        waiting = [rigger.submit("measure", data=Raw(payload(number))) for number in range(8)]
        os.kill(pids(rigger)["dispatcher"], signal.SIGKILL)
        for number, future in enumerate(waiting):
            result = future.result()
            assert result["reader0"] == digest(payload(number))
            assert result["data"] == Raw(payload(number))
        assert held.exception() is not None
        wait_for(lambda: none_is_open(rigger))


def test_a_process_without_descriptors_says_so_and_goes_on() -> None:
    with rigged(workers=1) as rigger:
        rigger.fire_hook("starve", most=3)
        with pytest.raises(HookError, match=r"(?s)no descriptor left.*ulimit -n"):
            rigger.fire_hook("measure", data=payload())
        rigger.fire_hook("starve", most=200)
        assert rigger.fire_hook("measure", data=payload())["reader0"] == digest(payload())


def test_an_argument_that_cannot_be_pickled_leaves_no_segment() -> None:
    with rigged() as rigger:
        with pytest.raises(TypeError, match="argument 'lock'"):
            rigger.submit("measure", data=payload(), lock=threading.Lock())
        assert none_is_open(rigger)


def test_nothing_is_left_when_everything_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent(f"""
        import sys, threading
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        from large_plugins import Raw, Reader, SIZE
        from rigger_mp import Rigger

        config = {{"workers": 2, "plugins": {{"a": {{"plugin": "r"}}, "b": {{"plugin": "r"}}}}}}
        rigger = Rigger(config, plugins={{"r": Reader}}).start()
        for _ in range(5):
            rigger.submit("hold", data=Raw(bytes(SIZE)), place={str(tmp_path)!r})
        open({str(tmp_path / "ready")!r}, "w").close()
        threading.Event().wait()
        """)
    )
    with subprocess.Popen([sys.executable, str(script)]) as process:
        wait_for(lambda: len(list(tmp_path.iterdir())) == 4)  # the script, it is ready, two jobs
        processes = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        held = [segments_of(one.pid) for one in processes]
        named = [line for one in processes for line in named_shared_memory(one.pid)]
        for one in processes:
            one.kill()
        process.wait()
    _, alive = psutil.wait_procs(processes, timeout=10)
    assert alive == []
    assert held[0] == 5
    assert sum(held[1:]) >= 5 + 2  # the dispatcher has all of them, each worker that of its job
    assert named == []
