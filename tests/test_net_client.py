"""The clients: used like an engine, shared, forked, in logging, and with servers that come and go."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from quiet import QuietRigger
from remote import port_of, served
from test_net_server import start_program
from waiting import wait_for

from rigger_mp import AsyncRiggerClient, HookError, RiggerClient
from rigger_mp.errors import (
    ConnectionLostError,
    DeadlockError,
    EncodingError,
    LimitError,
    NotRunningError,
    ProtocolError,
    ReplyTimeoutError,
    TaskNotFoundError,
)


@pytest.fixture(scope="module")
def rigger() -> Iterator[QuietRigger]:
    with served() as rigger:
        yield rigger


@pytest.fixture
def client(rigger: QuietRigger) -> Iterator[RiggerClient]:
    with RiggerClient("127.0.0.1", port_of(rigger)) as client:
        yield client


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


# -- used like an engine --------------------------------------------------------------------------------------


def test_fire_hook_returns_what_was_asked_for(client: RiggerClient) -> None:
    assert client.fire_hook("sum", a=1, b=2) is None
    assert client.fire_hook("sum", wait_for_task=True, a=1, b=2) is True
    assert client.fire_hook("sum", grab_result=True, a=1, b=2) == {"a": 1, "b": 2, "sum": 3, "last": 3}
    assert client.fire_hook("sum", grab_result=["sum"], a=1, b=2) == {"sum": 3}
    assert client.fire_hook("sum", True, a=1, b=3)["sum"] == 4


def test_an_argument_may_have_any_name(client: RiggerClient) -> None:
    output = client.fire_hook("anything", grab_result=True, hook="h", self=1, key="k", timeout=2, results=[3])
    assert {name: output[name] for name in ("hook", "self", "key", "timeout", "results")} == {
        "hook": "h", "self": 1, "key": "k", "timeout": 2, "results": [3],
    }  # fmt: skip


def test_failures_are_raised_as_in_process(client: RiggerClient) -> None:
    with pytest.raises(HookError, match="the reason") as raised:
        client.fire_hook("fail", grab_result=True, text="the reason")
    assert raised.value.failures[0].type_name == "ValueError"
    assert "Traceback" in raised.value.failures[0].traceback


def test_many_in_flight_on_one_connection(client: RiggerClient) -> None:
    futures = [client.submit("sum", grab_result=["sum"], a=number, b=1) for number in range(500)]
    assert [future.result(20)["sum"] for future in futures] == list(range(1, 501))
    assert futures[0].tid


def test_tasks_can_be_asked_about(client: RiggerClient) -> None:
    future = client.submit("sum", a=2, b=2)
    future.result(20)
    wait_for(lambda: client.task_status(future.tid)["status"] == 2)
    assert client.task_status(future.tid, grab_result=True)["output"]["sum"] == 4
    failed = client.submit("fail", text="the reason")
    failed.result(20)
    wait_for(lambda: "error" in client.task_status(failed.tid))
    client.task_delete(future.tid)
    with pytest.raises(TaskNotFoundError, match=future.tid):
        client.task_status(future.tid)
    assert client.status()["events"]["failed"] >= 1


@pytest.mark.parametrize("value", [{1}, math.nan, object(), "\ud800"])
def test_an_argument_that_json_cannot_express_raises_here(client: RiggerClient, value: Any) -> None:
    with pytest.raises(EncodingError):
        client.fire_hook("sum", a=value, b=1)
    assert client.ready


def test_an_event_that_the_server_would_refuse_for_its_length_raises(client: RiggerClient) -> None:
    with pytest.raises(LimitError, match="1048576"):
        client.fire_hook("sum", a="x" * 1_100_000, b="y")
    assert client.fire_hook("sum", grab_result=["sum"], a=1, b=2) == {"sum": 3}


def test_it_is_shared_between_threads(client: RiggerClient) -> None:
    def fire(number: int) -> int:
        return int(client.fire_hook("sum", grab_result=["sum"], a=number, b=0)["sum"])

    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(fire, range(400))) == list(range(400))


def test_waiting_in_a_callback_is_refused_instead_of_hanging(client: RiggerClient) -> None:
    outcome: list[Any] = []

    def callback(_future: Any) -> None:
        outcome.append(client.fire_hook("sum", a=1, b=2))
        for wait in (
            lambda: client.fire_hook("sum", grab_result=True, a=1, b=2),
            lambda: client.submit("sum", a=1, b=2).result(),
            lambda: client.submit("sum", a=1, b=2).exception(),
        ):
            try:
                wait()
            except DeadlockError as error:
                outcome.append(error)

    client.submit("sum", a=1, b=2).add_done_callback(callback)
    wait_for(lambda: len(outcome) == 4)
    assert outcome[0] is None
    assert all(isinstance(error, DeadlockError) for error in outcome[1:])


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_callback_may_raise_anything_and_replies_are_taken_all_the_same(client: RiggerClient) -> None:
    def callback(_future: Any) -> None:
        raise SystemExit

    for _ in range(3):
        client.submit("sum", grab_result=["sum"], a=1, b=2).add_done_callback(callback)
    assert client.fire_hook("sum", grab_result=["sum"], a=1, b=3) == {"sum": 4}


def test_what_the_server_would_not_take_is_refused_at_once(client: RiggerClient) -> None:
    deep: list[Any] = []
    for _ in range(100):
        deep = [deep]
    for _ in range(20):  # among others, so that a caller writes and reads itself
        with pytest.raises(LimitError, match="nested more than 64 levels deep, which is all that the server takes"):
            client.fire_hook("sum", grab_result=True, a=deep, b=2)
        assert client.fire_hook("sum", grab_result=["sum"], a=1, b=3) == {"sum": 4}


@pytest.mark.parametrize("port", [0, -1, 65_536, "999999"])
def test_a_port_that_is_none_is_refused(port: Any) -> None:
    with pytest.raises(ValueError, match="expected 1 to 65535"):
        RiggerClient("127.0.0.1", port)


def test_a_closed_client_refuses(rigger: QuietRigger) -> None:
    client = RiggerClient("127.0.0.1", str(port_of(rigger)))
    future = client.submit("sum", grab_result=["sum"], a=1, b=2)
    client.close()
    assert future.result(0) == {"sum": 3}
    client.close()
    with pytest.raises(NotRunningError, match="closed"):
        client.fire_hook("sum", a=1, b=2)


def test_ready_can_be_taken_away(client: RiggerClient) -> None:
    assert client.ready
    client.ready = False
    with pytest.raises(NotRunningError, match="ready"):
        client.fire_hook("sum", a=1, b=2)
    client.ready = True
    client.fire_hook("sum", a=1, b=2)


# -- servers that are not there -------------------------------------------------------------------------------


def test_a_dead_server_raises_a_named_error() -> None:
    with (
        RiggerClient("127.0.0.1", free_port(), retry_for=0) as client,
        pytest.raises(ConnectionLostError, match=r"127\.0\.0\.1"),
    ):
        client.fire_hook("sum", a=1, b=2)


def test_riggerlibs_way_never_raises_and_is_quick() -> None:
    client = RiggerClient("127.0.0.1", free_port(), raise_errors=False)
    start = time.monotonic()
    assert client.fire_hook("sum", a=1, b=2) is None
    assert client.fire_hook("sum", grab_result=True, a=1, b=2) is None
    assert client.fire_hook("sum", a=object()) is None
    assert client.submit("sum", a=1).result(5) is None
    assert client.submit("sum", a=object()).result(5) is None
    assert client.task_status("1", True) is None
    assert client.task_delete("1") is None
    assert client.status() is None
    assert client.terminate() is None  # type: ignore[func-returns-value]  # that is what is tested
    assert client.ready is False
    assert time.monotonic() - start < 2
    client.close()


def test_riggerlibs_way_returns_none_for_failures_too(rigger: QuietRigger) -> None:
    with RiggerClient("127.0.0.1", port_of(rigger), raise_errors=False) as client:
        assert client.fire_hook("fail", grab_result=True, text="x") is None
        assert client.fire_hook("sum", grab_result=True, a=1, b=2)["sum"] == 3
        assert client.task_status("nothing", False) == {"id": 3, "message": "NOT FOUND"}


def test_a_server_that_accepts_and_says_nothing_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        quiet = RiggerClient("127.0.0.1", silent.getsockname()[1], raise_errors=False, timeout=0.3)
        start = time.monotonic()
        assert [quiet.fire_hook("sum", a=1, b=2) for _ in range(20)] == [None] * 20
        assert time.monotonic() - start < 5
        quiet.close()
        with (
            RiggerClient("127.0.0.1", silent.getsockname()[1], timeout=0.3, retry_for=0) as client,
            pytest.raises(ConnectionLostError, match="within"),
        ):
            client.fire_hook("sum", a=1, b=2)


class Fake:
    """A server that answers hello, then as it is told."""

    def __init__(self, *answers: bytes) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._answers = answers
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def __enter__(self) -> Fake:
        return self

    def __exit__(self, *exc: object) -> None:
        self._listener.close()
        self._thread.join()

    def _run(self) -> None:
        connection, _ = self._listener.accept()
        with connection, connection.makefile("rb") as lines:
            lines.readline()
            connection.sendall(b'{"message": "OK", "protocol": 1, "limits": {"max_line": 1000}}\n')
            for answer in self._answers:
                lines.readline()
                connection.sendall(answer)
            lines.read()


@pytest.mark.parametrize("value", [10**2000, {1: "a", "1": "b"}])
def test_what_only_the_server_refuses_is_told_at_once(client: RiggerClient, value: Any) -> None:
    for _ in range(3):  # by the client's thread, and by the caller itself
        assert client.fire_hook("sum", grab_result=True, a=1, b=2)["sum"] == 3
        with pytest.raises(ProtocolError, match="the line is refused"):
            client.fire_hook("sum", grab_result=True, a=value, b=2)
        with pytest.raises(ProtocolError, match="the line is refused"):
            client.submit("sum", a=value, b=2).result(30)


def test_a_server_that_stops_answering_is_a_timeout() -> None:
    with Fake() as fake:
        client = RiggerClient("127.0.0.1", fake.port, timeout=0.3, retry_for=0)
        with pytest.raises(ReplyTimeoutError, match="may run nevertheless"):
            client.fire_hook("sum", a=1, b=2)
        client.close()


def test_who_waits_for_an_event_asks_whether_the_server_is_still_there() -> None:
    with Fake(b"", b"") as fake:
        client = RiggerClient("127.0.0.1", fake.port, timeout=0.3, retry_for=0)
        with pytest.raises(ReplyTimeoutError):
            client.fire_hook("sum", grab_result=True, a=1, b=2)
        client.close()


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"[]\n", b"\xff\n"])
def test_a_server_that_is_none_is_told(answer: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer_once() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(answer)

        thread = threading.Thread(target=answer_once)
        thread.start()
        with (
            RiggerClient("127.0.0.1", listener.getsockname()[1]) as client,
            pytest.raises(ProtocolError, match="no rigger_mp server"),
        ):
            client.fire_hook("sum", a=1, b=2)
        thread.join()


# -- exits, forks, logging ------------------------------------------------------------------------------------


def run(script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )


def test_what_was_submitted_arrives_although_the_program_ends(rigger: QuietRigger, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(
        """
        import sys
        from rigger_mp import RiggerClient
        client = RiggerClient("127.0.0.1", sys.argv[1])
        for number in range(300):
            client.submit("record", path=sys.argv[2], text=number)
        """,
        port_of(rigger),
        out,
    )
    wait_for(lambda: out.exists() and len(out.read_text().split()) == 300)


@pytest.mark.parametrize("raise_errors", [True, False])
def test_a_dead_server_does_not_hold_up_the_exit(raise_errors: bool) -> None:
    start = time.monotonic()
    run(
        """
        import sys
        from rigger_mp import RiggerClient
        client = RiggerClient("127.0.0.1", sys.argv[1], raise_errors=sys.argv[2] == "True", retry_for=60)
        for number in range(100):
            client.submit("record", text=number)
        """,
        free_port(),
        raise_errors,
    )
    assert time.monotonic() - start < 10


def _fire_in_child(client: RiggerClient, number: int, results: Any) -> None:
    results.put((number, client.fire_hook("sum", grab_result=["sum"], a=number, b=0)))


def test_it_goes_on_after_a_fork(client: RiggerClient) -> None:
    assert client.fire_hook("sum", grab_result=["sum"], a=1, b=1) == {"sum": 2}
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    children = [context.Process(target=_fire_in_child, args=(client, number, results)) for number in range(3)]
    for child in children:
        child.start()
    assert client.fire_hook("sum", grab_result=["sum"], a=1, b=1) == {"sum": 2}
    assert dict(results.get(timeout=20) for _ in children) == {n: {"sum": n} for n in range(3)}
    for child in children:
        child.join(20)
        assert child.exitcode == 0
    results.close()
    results.join_thread()
    assert client.fire_hook("sum", grab_result=["sum"], a=1, b=1) == {"sum": 2}


class HookHandler(logging.Handler):
    def __init__(self, client: RiggerClient, path: Path) -> None:
        super().__init__(logging.NOTSET)
        self._client = client
        self._path = path

    def emit(self, record: logging.LogRecord) -> None:
        self._client.fire_hook("record", path=str(self._path), text=record.getMessage().replace(" ", "_"))


def test_it_works_inside_a_logging_handler_of_everything(rigger: QuietRigger, tmp_path: Path) -> None:
    out = tmp_path / "out"
    client = RiggerClient("127.0.0.1", port_of(rigger))
    handler = HookHandler(client, out)
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)  # asyncio's own messages included
    try:
        start = time.monotonic()
        for number in range(10):
            logging.getLogger("mine").info("message %d", number)
        assert time.monotonic() - start < 5
    finally:
        root.setLevel(level)
        root.removeHandler(handler)
        client.close()
    wanted = {f"message_{number}" for number in range(10)}
    wait_for(lambda: out.exists() and wanted <= set(out.read_text().split()))


# -- servers that come and go ---------------------------------------------------------------------------------


def restarted(process: subprocess.Popen[str], port: int) -> subprocess.Popen[str]:
    assert process.wait(20) == 0
    return start_program(f"server_port={port}")[0]


def fire_all(client: RiggerClient, out: Path, total: int, wait: bool) -> list[Any]:
    return [
        client.submit("record", wait_for_task=wait, path=str(out), text=number) for number in range(total)
    ]


@pytest.mark.parametrize("wait", [False, True])
def test_a_server_that_is_restarted_in_mid_stream_runs_each_event_once(tmp_path: Path, wait: bool) -> None:
    out, total = tmp_path / "out", 4000
    process, port = start_program()
    with RiggerClient("127.0.0.1", port, retry_for=30) as client:
        futures = fire_all(client, out, total, wait)
        wait_for(lambda: sum(future.done() for future in futures) > 200)
        os.kill(process.pid, signal.SIGTERM)
        process_again = restarted(process, port)
        for future in futures:
            future.result(30)
        client.fire_hook("record", wait_for_task=True, path=str(out), text="last")
        client.terminate()
    assert process_again.wait(20) == 0
    for ended in (process, process_again):
        assert ended.stdout is not None
        ended.stdout.close()
    ran = Counter(out.read_text().split())
    assert ran == Counter([*map(str, range(total)), "last"])


class Cutter:
    """Passes bytes on, and cuts connections: replies are lost, what was sent before arrives."""

    def __init__(self, port: int) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._target = port
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self.cuts = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                here, _ = self._listener.accept()
            except OSError:
                return
            there = socket.create_connection(("127.0.0.1", self._target))
            self._pairs.append((here, there))
            for source, sink in ((here, there), (there, here)):
                threading.Thread(target=self._pass_on, args=(source, sink), daemon=True).start()

    def _pass_on(self, source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(4096):
                sink.sendall(data)
        except OSError:
            pass

    def cut(self) -> None:
        pairs, self._pairs = self._pairs, []
        for here, there in pairs:
            self.cuts += 1
            with contextlib.suppress(OSError):
                here.shutdown(socket.SHUT_RDWR)
            with contextlib.suppress(OSError):
                there.shutdown(socket.SHUT_WR)
            here.close()
            there.close()

    def close(self) -> None:
        self._listener.close()
        self.cut()


def test_a_connection_that_breaks_again_and_again_runs_each_event_once(
    rigger: QuietRigger, tmp_path: Path
) -> None:
    out, total = tmp_path / "out", 3000
    cutter = Cutter(port_of(rigger))
    with RiggerClient("127.0.0.1", cutter.port, retry_for=30) as client:
        futures = fire_all(client, out, total, wait=False) + fire_all(client, tmp_path / "waited", total, wait=True)
        for share in (0.1, 0.3, 0.5, 0.7):
            wait_for(lambda share=share: sum(future.done() for future in futures) > share * len(futures))
            cutter.cut()
        for future in futures:
            future.result(30)
    cutter.close()
    assert cutter.cuts >= 4
    wait_for(lambda: rigger.stats()["events"]["pending"] == 0)
    for path in (out, tmp_path / "waited"):
        assert Counter(path.read_text().split()) == Counter(map(str, range(total)))


# -- asyncio --------------------------------------------------------------------------------------------------


def test_the_asyncio_client_does_the_same(rigger: QuietRigger) -> None:
    async def main() -> None:
        async with AsyncRiggerClient("127.0.0.1", port_of(rigger)) as client:
            assert await client.ready()
            assert await client.fire_hook("sum", a=1, b=2) is None
            futures = [await client.submit("sum", grab_result=["sum"], a=n, b=0) for n in range(200)]
            assert [output["sum"] for output in await asyncio.gather(*futures)] == list(range(200))
            with pytest.raises(HookError, match="the reason"):
                await client.fire_hook("fail", wait_for_task=True, text="the reason")
            future = await client.submit("sum", a=1, b=5)
            await future
            assert (await client.task_status(future.tid))["message"] == "OK"
            assert (await client.task_delete(future.tid))["message"] == "OK"
            with pytest.raises(TaskNotFoundError):
                await client.task_status(future.tid)
            assert (await client.status())["events"]["accepted"] > 200
        with pytest.raises(NotRunningError):
            await client.fire_hook("sum", a=1, b=2)

    asyncio.run(main())


def test_the_asyncio_client_and_a_dead_server() -> None:
    async def main() -> None:
        async with AsyncRiggerClient("127.0.0.1", free_port(), retry_for=0) as client:
            assert not await client.ready()
            with pytest.raises(ConnectionLostError):
                await client.fire_hook("sum", a=1, b=2)

    asyncio.run(main())
