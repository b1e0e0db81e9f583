"""The server, spoken to over bare sockets, by other languages, and by clients that do not behave."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from quiet import QuietRigger
from remote import Wire, port_of, served
from test_net_protocol import HOSTILE
from waiting import wait_for

from rigger_mp import Rigger
from rigger_mp.errors import StartError

PAGE_EXAMPLE = '{"hook_name": "start_session", "data": {"arg1": "value1", "arg2": "value2"}}'
NODE = shutil.which("node")
NC = shutil.which("nc")


@pytest.fixture(scope="module")
def rigger() -> Iterator[QuietRigger]:
    with served(server_max_connections=64) as rigger:
        yield rigger


@pytest.fixture
def wire(rigger: QuietRigger) -> Iterator[Wire]:
    with Wire(port_of(rigger)) as wire:
        yield wire


def events(rigger: Rigger) -> int:
    return int(rigger.stats()["events"]["ended"])


# -- the page's example, in other languages -------------------------------------------------------------------


def check_session(rigger: QuietRigger, before: int) -> None:
    wait_for(lambda: events(rigger) > before)
    assert rigger.global_data["session"] == "value1"


@pytest.mark.skipif(NODE is None, reason="Node.js is not installed")
def test_the_pages_example_from_node(rigger: QuietRigger, tmp_path: Path) -> None:
    script = tmp_path / "fire.js"
    script.write_text(
        textwrap.dedent(f"""
        const net = require("net");
        const socket = net.connect({port_of(rigger)}, "127.0.0.1", () => {{
            socket.write(JSON.stringify({PAGE_EXAMPLE}) + "\\n");
        }});
        socket.on("data", (data) => {{ process.stdout.write(data); socket.end(); }});
        """)
    )
    before = events(rigger)
    assert NODE is not None
    done = subprocess.run([NODE, str(script)], capture_output=True, text=True, timeout=30, check=True)
    assert json.loads(done.stdout)["message"] == "OK"
    check_session(rigger, before)


@pytest.mark.skipif(NC is None, reason="nc is not installed")
@pytest.mark.parametrize("end", ["", "\\n"])
def test_the_pages_example_from_a_shell(rigger: QuietRigger, end: str) -> None:
    before = events(rigger)
    command = f"printf '{PAGE_EXAMPLE}{end}' | {NC} -N 127.0.0.1 {port_of(rigger)}"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=30, check=True)
    assert json.loads(done.stdout)["message"] == "OK"
    check_session(rigger, before)


def test_who_sends_and_leaves_at_once_is_heard(rigger: QuietRigger) -> None:
    before = events(rigger)
    with Wire(port_of(rigger)) as wire:
        wire.send(PAGE_EXAMPLE.encode() + b"\n")
    check_session(rigger, before)


# -- events ---------------------------------------------------------------------------------------------------


def test_an_event_is_answered_at_once_and_can_be_asked_about(wire: Wire) -> None:
    reply = wire.ask(hook_name="sum", data={"a": 1, "b": 2})
    assert set(reply) == {"message", "tid"}
    wait_for(lambda: wire.ask(event_name="task_check", tid=reply["tid"])["status"] == 2)
    checked = wire.ask(event_name="task_check", tid=reply["tid"], grab_result=True, id="mine")
    assert checked["id"] == "mine"
    assert checked["output"]["sum"] == 3
    assert wire.ask(event_name="task_delete", tid=reply["tid"]) == {"message": "OK"}
    assert wire.ask(event_name="task_check", tid=reply["tid"]) == {"message": "NOT FOUND"}


def test_grabbing_waiting_and_naming_results(wire: Wire) -> None:
    grabbed = wire.ask(hook_name="sum", data={"a": 1, "b": 2}, grab_result=True, id=[1, None])
    assert (grabbed["id"], grabbed["message"], grabbed["status"]) == ([1, None], "OK", 2)
    assert {**grabbed["output"], "session": 0} == {"a": 1, "b": 2, "sum": 3, "last": 3, "session": 0}
    waited = wire.ask(hook_name="sum", data={"a": 1, "b": 2}, wait_for_task=True)
    assert set(waited) == {"message", "tid", "status"}
    named = wire.ask(hook_name="sum", data={"a": 5, "b": 2}, results=["last", "sum", "nothing"])
    assert named["output"] == {"last": 7, "sum": 7}
    assert "workers" in wire.ask(hook_name="sum", data={"a": 5, "b": 2}, results=["config"])["output"]["config"]


def test_replies_overtake(wire: Wire, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    data = {"gate": str(gate), "path": str(tmp_path / "out"), "text": "late"}
    wire.say(hook_name="record_when", data=data, wait_for_task=True, id="slow")
    wire.say(event_name="ping", id="quick")
    assert wire.hear() == {"id": "quick", "message": "PONG"}
    gate.touch()
    assert wire.hear()["id"] == "slow"


def test_thousands_of_outputs_in_flight_all_come(wire: Wire) -> None:
    total = 6000  # many times what is made at once
    fields = ({"hook_name": "sum", "data": {"a": n, "b": 0}, "id": n, "grab_result": True} for n in range(total))
    lines = [json.dumps(line) for line in fields]
    sender = threading.Thread(target=wire.send, args=("\n".join(lines).encode() + b"\n",))
    sender.start()
    replies = [wire.hear() for _ in range(total)]
    sender.join()
    assert sorted(reply["id"] for reply in replies) == list(range(total))
    assert all(reply["output"]["sum"] == reply["id"] for reply in replies)


def test_a_failure_is_told_in_full(wire: Wire) -> None:
    reply = wire.ask(hook_name="fail", data={"text": "the reason"}, wait_for_task=True)
    assert (reply["message"], reply["status"], reply["error"]["type"]) == ("ERROR", 2, "HookError")
    assert "the reason" in reply["error"]["message"]
    assert "Traceback" in reply["error"]["traceback"]
    (failure,) = reply["error"]["failures"]
    assert (failure["function"], failure["type"], failure["message"]) == ("outputs.fail", "ValueError", "the reason")


def test_what_json_cannot_express_is_its_repr(wire: Wire) -> None:
    output = wire.ask(hook_name="strange", grab_result=True)["output"]
    assert output["object"] == output["shared"] == "<Strange>"
    assert (output["set"], output["nan"], output["surrogate"]) == ("{1}", "nan", "'\\ud800'")
    assert output["keys"] == {"1": "one", "(2, 3)": "pair", "null": "none"}
    assert output["nested"] == {"deep": ["<Strange>", [1, 2]]}
    assert int(output["huge"], 16) == 10**5000


def test_hello_and_status(rigger: QuietRigger, wire: Wire) -> None:
    hello = wire.ask(event_name="hello")
    assert (hello["protocol"], hello["authenticate"]) == (1, False)
    assert hello["limits"]["max_line"] == 1_048_576
    wire.ask(hook_name="sum", data={"a": 1, "b": 1}, wait_for_task=True)
    stats = wire.ask(event_name="status", id=1)["stats"]
    assert stats["hooks"]["sum"]["events"] >= 1
    assert stats.keys() == rigger.stats().keys()


def test_an_idempotency_key_runs_an_event_once(rigger: QuietRigger, wire: Wire, tmp_path: Path) -> None:
    out = tmp_path / "out"
    plain = {"hook_name": "record", "data": {"path": str(out), "text": 1}, "key": "plain"}
    waited = {"hook_name": "record", "data": {"path": str(out), "text": [2]}, "key": "waited", "grab_result": True}
    replies = [wire.ask(**plain) for _ in range(3)]
    with Wire(port_of(rigger)) as other:
        outcomes = [wire.ask(**waited, id=1), other.ask(**waited, id=2)]
    assert replies[0] == replies[1] == replies[2]
    assert [outcome.pop("id") for outcome in outcomes] == [1, 2]
    assert outcomes[0] == outcomes[1]
    assert sorted(out.read_text().split()) == ["1", "[2]"]
    assert wire.ask(**{**plain, "data": {"path": str(out), "text": 3}})["error"]["type"] == "KeyReuseError"
    assert wire.ask(**{**plain, "wait_for_task": True})["error"]["type"] == "KeyReuseError"
    assert wire.ask(event_name="task_delete", keys=["plain"]) == {"message": "OK"}
    assert wire.ask(**plain)["tid"] != replies[0]["tid"]


def test_a_repeated_event_under_way_is_waited_for(rigger: QuietRigger, wire: Wire, tmp_path: Path) -> None:
    gate, out = tmp_path / "gate", tmp_path / "out"
    line: dict[str, Any] = {
        "hook_name": "record_when",
        "data": {"gate": str(gate), "path": str(out), "text": "once"},
        "key": "under way",
        "results": ["recorded"],
    }
    with Wire(port_of(rigger)) as first:
        first.say(**line)
        wait_for(lambda: rigger.stats()["events"]["pending"] > 0)
    wire.say(**line)
    gate.touch()
    assert wire.hear()["output"] == {"recorded": "once"}
    assert wire.ask(**line)["output"] == {"recorded": "once"}
    assert out.read_text() == "once\n"


def test_keys_are_bounded_and_expire() -> None:
    limits: dict[str, Any] = {"server_idempotency_time": 0.5, "server_idempotency_keys": 2}
    with served(**limits) as rigger, Wire(port_of(rigger)) as wire:
        line: dict[str, Any] = {"hook_name": "sum", "data": {"a": 1, "b": 1}}
        first = wire.ask(**line, key="1")
        wire.ask(**line, key="2")
        assert wire.ask(**line, key="3")["error"]["type"] == "LimitError"
        wait_for(lambda: wire.ask(**line, key="1")["tid"] != first["tid"])


@pytest.mark.parametrize(
    ("limits", "left"),
    [({"server_results": 2}, 2), ({"server_results_time": 0.3}, 0), ({"server_kept_bytes": 0}, 0)],
)
def test_results_are_bounded_and_expire(limits: dict[str, Any], left: int) -> None:
    with served(**limits) as rigger, Wire(port_of(rigger)) as wire:
        tids = [wire.ask(hook_name="sum", data={"a": [1], "b": []})["tid"] for _ in range(5)]

        def statuses() -> list[Any]:
            return [wire.ask(event_name="task_check", tid=tid).get("status", 0) for tid in tids]

        wait_for(lambda: sorted(statuses()) == [0] * (5 - left) + [2] * left)


# -- lines that are wrong -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_line_is_refused_and_the_connection_goes_on(wire: Wire, name: str) -> None:
    line, reason = HOSTILE[name]
    reply = wire.ask_raw(line)
    assert reply["message"] == "ERROR"
    assert reason in reply["error"]["message"] or "server_max_line" in reply["error"]["message"]
    assert wire.ask(event_name="ping") == {"message": "PONG"}


def test_ten_megabytes_without_an_end_take_no_memory(rigger: QuietRigger, wire: Wire) -> None:
    before = psutil.Process().memory_info().rss
    replies: list[Any] = []
    reader = threading.Thread(target=lambda: replies.append(wire.hear()))
    reader.start()
    for _ in range(160):
        wire.send(b"x" * 65_536)
    reader.join(20)
    assert replies[0]["error"]["type"] == "LimitError"
    assert psutil.Process().memory_info().rss - before < 8_000_000


def test_other_protocols_get_a_clear_line(rigger: QuietRigger) -> None:
    for hello, word in ((b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP"), (b"\x16\x03\x01\x02\x00\x01\x00", "TLS")):
        with Wire(port_of(rigger)) as wire:
            wire.send(hello)
            assert word in wire.hear()["error"]["message"]
            assert wire.is_ended()


# -- limits ---------------------------------------------------------------------------------------------------


def test_a_line_too_long_is_refused_and_the_next_is_read() -> None:
    with served(server_max_line=1000) as rigger, Wire(port_of(rigger)) as wire:
        wire.send(b'{"hook_name": "' + b"x" * 2000 + b'"}\n')
        assert wire.hear()["error"]["type"] == "LimitError"
        assert wire.ask(hook_name="sum", data={"a": 1, "b": 1}, results=["sum"])["output"] == {"sum": 2}


def test_nesting_is_limited_as_configured() -> None:
    with served(server_max_nesting=4) as rigger, Wire(port_of(rigger)) as wire:
        assert "tid" in wire.ask(hook_name="x", data={"a": [[1]]})
        assert "nested" in wire.ask(hook_name="x", data={"a": [[[1]]]})["error"]["message"]


def test_connections_are_limited() -> None:
    with served(server_max_connections=2) as rigger:
        wires = [Wire(port_of(rigger)) for _ in range(2)]
        assert all(wire.ask(event_name="ping") for wire in wires)
        with Wire(port_of(rigger)) as third:
            assert third.hear()["error"]["type"] == "LimitError"
            assert third.is_ended()
        wires[0].__exit__()
        assert wires[1].ask(event_name="ping")

        def admitted() -> bool:
            with Wire(port_of(rigger)) as again:
                try:
                    return again.ask(event_name="ping") == {"message": "PONG"}
                except ConnectionError:
                    return False

        wait_for(admitted)
        wires[1].__exit__()


@pytest.mark.parametrize("said", [b"", b'{"hook_name": "su', b"\n \n"])
def test_idle_connections_are_closed(said: bytes) -> None:
    with served(server_idle_timeout=0.3) as rigger, Wire(port_of(rigger)) as wire:
        wire.send(said)
        assert "server_idle_timeout" in wire.hear()["error"]["message"]
        assert wire.is_ended()


def test_who_waits_for_an_event_is_not_idle(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    data = {"gate": str(gate), "path": str(tmp_path / "out"), "text": "late"}
    with served(server_idle_timeout=0.2) as rigger, Wire(port_of(rigger)) as wire:
        wire.say(hook_name="record_when", data=data, results=["recorded"])
        threading.Timer(1.0, gate.touch).start()
        assert wire.hear()["output"] == {"recorded": "late"}


def test_events_in_flight_are_limited_by_waiting(tmp_path: Path) -> None:
    gate, out = tmp_path / "gate", tmp_path / "out"
    with served(server_max_in_flight=5) as rigger, Wire(port_of(rigger)) as wire:
        for number in range(20):
            wire.say(hook_name="record_when", data={"gate": str(gate), "path": str(out), "text": number}, id=number)
        assert [wire.hear()["id"] for _ in range(5)] == [0, 1, 2, 3, 4]
        assert rigger.stats()["events"]["accepted"] == 5
        gate.touch()
        assert [wire.hear()["id"] for _ in range(15)] == list(range(5, 20))
        wait_for(lambda: rigger.stats()["events"]["ended"] == 20)
    assert sorted(map(int, out.read_text().split())) == list(range(20))


def test_a_full_queue_loses_nothing_and_does_not_stop_the_others(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with served(queue_size=8) as rigger:
        wires = [Wire(port_of(rigger)) for _ in range(5)]
        for name, wire in enumerate(wires):
            for number in range(200):
                wire.say(hook_name="record", data={"path": str(out), "text": f"{name}-{number}"})
        assert all(wire.hear()["message"] == "OK" for wire in wires for _ in range(200))
        wait_for(lambda: rigger.stats()["events"]["pending"] == 0)
        for wire in wires:
            wire.__exit__()
    ran = out.read_text().split()
    assert len(ran) == len(set(ran)) == 1000


def test_a_slow_reader_is_dropped_alone(tmp_path: Path) -> None:
    limits = {"server_write_timeout": 0.5, "server_max_reply_bytes": 1_000_000}
    with served(**limits) as rigger, Wire(port_of(rigger)) as slow, Wire(port_of(rigger)) as other:
        before = psutil.Process().memory_info().rss
        slow.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        for _ in range(300):
            slow.say(hook_name="large", data={"size": 200_000}, results=["text"])
        deadline = time.monotonic() + 1.5
        while time.monotonic() < deadline:
            assert other.ask(hook_name="sum", data={"a": 1, "b": 2}, results=["sum"])["output"] == {"sum": 3}
        with pytest.raises((ConnectionError, ValueError)):  # nothing, or half a line, is left of it
            while (reply := slow.hear()) is not None:
                assert reply["message"] == "OK"
            raise ConnectionResetError
        assert psutil.Process().memory_info().rss - before < 150_000_000


def test_a_reply_too_large_becomes_an_error() -> None:
    with served(server_max_reply_bytes=100_000) as rigger, Wire(port_of(rigger)) as wire:
        reply = wire.ask(hook_name="large", data={"size": 200_000}, grab_result=True)
        assert (reply["message"], reply["error"]["type"]) == ("ERROR", "LimitError")
        assert "name the results" in reply["error"]["message"]
        assert wire.ask(hook_name="large", data={"size": 200_000}, results=["size"])["output"] == {"size": 200_000}


def test_many_connections_at_once_lose_nothing_and_run_nothing_twice() -> None:
    connections, each = 200, 20
    with served(server_max_connections=300) as rigger:
        wires = [Wire(port_of(rigger)) for _ in range(connections)]
        for name, wire in enumerate(wires):
            lines = (
                json.dumps({"hook_name": "tick", "data": {"name": f"{name}-{n}"}, "id": n, "wait_for_task": True})
                for n in range(each)
            )
            wire.send("\n".join(lines).encode() + b"\n")
        for wire in wires:
            replies = [wire.hear() for _ in range(each)]
            assert sorted(reply["id"] for reply in replies) == list(range(each))
            assert all(reply["message"] == "OK" for reply in replies)
            wire.__exit__()
        seen = rigger.fire_hook("ticks")["seen"]  # type: ignore[index]
    assert len(seen) == connections * each
    assert set(seen.values()) == {1}


# -- starting and stopping ------------------------------------------------------------------------------------


def test_an_address_in_use_is_told_and_leaves_nothing_behind() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(StartError, match=f"cannot listen on 127.0.0.1:{port}"), served(server_port=port):
            pass


def test_events_before_the_engine_is_initialized_are_refused() -> None:
    rigger = QuietRigger({"server_enabled": True, "server_port": 0, "workers": 1})
    rigger.parse_config()
    try:
        with Wire(port_of(rigger)) as wire:
            assert wire.ask(hook_name="sum")["error"]["type"] == "NotRunningError"
            rigger.initialized = True
            assert wire.ask(hook_name="sum")["message"] == "OK"
    finally:
        rigger.stop()


PROGRAM = """
import signal, sys, threading
sys.path.insert(0, {tests!r})
from remote import server_config, PLUGINS
from rigger_mp import Rigger
class Program(Rigger):
    def log_message(self, msg):
        print(msg, file=sys.stderr)
rigger = Program(server_config({keys}), plugins=PLUGINS).start()
signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=rigger.stop).start())
print(rigger.server_address[1], flush=True)
"""


def start_program(keys: str = "") -> tuple[subprocess.Popen[str], int]:
    text = PROGRAM.format(tests=str(Path(__file__).parent), keys=keys)
    process = subprocess.Popen([sys.executable, "-c", text], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, int(process.stdout.readline())


def test_a_program_goes_on_serving_until_it_is_terminated(tmp_path: Path) -> None:
    out = tmp_path / "out"
    process, port = start_program()
    with process, Wire(port) as wire:
        time.sleep(0.3)  # its main thread has returned by now, or else the test proves less
        assert process.poll() is None
        for number in range(100):
            wire.say(hook_name="record_slowly", data={"path": str(out), "text": number}, results=["text"])
        wire.say(event_name="shutdown", id="last")
        replies = [wire.hear() for _ in range(101)]
        assert {"id": "last", "message": "OK"} in replies
        assert process.wait(20) == 0
    assert len(out.read_text().split()) == 100


def test_sigterm_in_the_middle_runs_what_was_acknowledged_and_refuses_the_rest(tmp_path: Path) -> None:
    out, total = tmp_path / "out", 10_000
    process, port = start_program()
    replies: dict[int, Any] = {}
    with process, Wire(port) as wire:

        def listen() -> None:
            while len(replies) < total and (reply := wire.hear()) is not None:
                replies[reply["id"]] = reply
                if len(replies) == 1000:
                    os.kill(process.pid, signal.SIGTERM)

        listener = threading.Thread(target=listen)
        listener.start()
        for number in range(total):
            wire.say(hook_name="record", data={"path": str(out), "text": number}, id=number)
        listener.join(30)
        assert process.wait(20) == 0
    accepted = {number for number, reply in replies.items() if reply["message"] == "OK"}
    refused = {number: reply for number, reply in replies.items() if number not in accepted}
    ran = [int(line) for line in out.read_text().split()]
    assert len(ran) == len(set(ran))
    assert set(ran) == accepted
    assert len(replies) == total
    assert refused
    assert {reply["error"]["type"] for reply in refused.values()} == {"NotRunningError"}
    assert all("stop" in reply["error"]["message"] for reply in refused.values())
