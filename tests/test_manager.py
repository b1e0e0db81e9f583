"""The Manager process, and whoever reads through it: what is published is read; what is gone is replaced or named."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import psutil
import pytest
from waiting import DEADLINE, wait_for

from rigger_mp.encoding import dump_updates, load_chain
from rigger_mp.engine import manager as manager_module
from rigger_mp.engine import manager_client
from rigger_mp.engine import messages as m
from rigger_mp.engine.frames import frame, write_all
from rigger_mp.engine.manager import PublishedNamespace, _receive_setup, new_address
from rigger_mp.engine.manager_client import MOST_MANAGERS, GlobalsReader, ManagerProcess
from rigger_mp.errors import EngineLost

Start = Callable[[], ManagerProcess]


def publish(fd: int, floor: int = 0, **updates: object) -> None:
    """Write a commit as the dispatcher does."""
    entry = ((dump_updates(updates),),)
    write_all(fd, frame(m.pack((m.Publish(0, ((1, entry),), floor),))))


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """Return a pipe; the Manager closes the end that it is given."""
    reading, writing = os.pipe()
    yield reading, writing
    os.close(writing)


@pytest.fixture
def start() -> Iterator[Start]:
    started: list[ManagerProcess] = []

    def start() -> ManagerProcess:
        reading, writing = os.pipe()
        os.close(writing)
        started.append(ManagerProcess("extend", reading))
        return started[-1]

    yield start
    for manager in started:
        manager.end(5.0)


def reader_of(manager: ManagerProcess, replace: Callable[[ManagerProcess], bool] = lambda gone: False) -> GlobalsReader:
    reader = GlobalsReader("extend", replace)
    reader.attach(manager)
    return reader


def value(reader: GlobalsReader, name: str, version: int, exact: bool = True) -> object:
    return load_chain(reader.read((name,), version, exact)[name], "extend")


def test_what_is_published_can_be_read_in_every_version_and_after_the_end(pipe: tuple[int, int]) -> None:
    manager = ManagerProcess("extend", pipe[0])
    reader = reader_of(manager)
    publish(pipe[1], a=1)
    publish(pipe[1], a=2, b=[1])
    for _ in range(2):
        assert (value(reader, "a", 1), value(reader, "a", 2), value(reader, "a", 1, exact=False)) == (1, 2, 2)
        assert (reader.names(1), sorted(reader.names(1, exact=False))) == (["a"], ["a", "b"])
        reader.detach(2)
    manager.end(5.0)
    assert value(reader, "a", 1) == 1
    assert reader.settle() == (0, {})


def test_it_follows_another_dispatcher_when_the_first_one_has_said_all(pipe: tuple[int, int]) -> None:
    manager = ManagerProcess("extend", pipe[0])
    reader = reader_of(manager)
    publish(pipe[1], a=1)
    assert value(reader, "a", 1) == 1
    again = manager.follow_another()
    publish(again, a=2)
    assert value(reader, "a", 2) == 2
    os.close(again)
    version, chains = reader.settle()
    assert (version, load_chain(chains["a"], "extend")) == (2, 2)
    manager.end(5.0)
    os.close(manager.follow_another())  # nobody reads there


def test_a_manager_that_is_gone_is_replaced_where_that_is_possible(start: Start) -> None:
    first = start()

    def replace(gone: ManagerProcess) -> bool:
        assert gone is first
        reader.attach(start())
        return True

    reader = reader_of(first, replace)
    os.kill(first.process.pid, signal.SIGKILL)
    assert reader.names(0) == []


def test_a_manager_that_is_gone_for_good_is_named(start: Start) -> None:
    manager = start()
    reader = reader_of(manager)
    os.kill(manager.process.pid, signal.SIGKILL)
    for call in (lambda: reader.names(0), lambda: reader.read(None, 0), reader.settle, lambda: reader.detach(0)):
        with pytest.raises(EngineLost, match="the Manager process is gone"):
            call()
    for call in (lambda: reader.names(0), lambda: reader.read(None, 0)):
        with pytest.raises(EngineLost, match="the global namespace is lost"):
            call()


def test_managers_that_end_one_after_another_are_given_up(start: Start) -> None:
    manager = start()
    manager.end(0.0)
    asked: list[ManagerProcess] = []

    def replace(gone: ManagerProcess) -> bool:
        asked.append(gone)
        return True

    with pytest.raises(EngineLost, match=f"{MOST_MANAGERS} Manager processes ended"):
        reader_of(manager, replace).names(0)
    assert len(asked) == MOST_MANAGERS


@pytest.mark.parametrize("asked_before", [True, False])
def test_a_manager_that_does_not_answer_counts_as_gone(
    start: Start, monkeypatch: pytest.MonkeyPatch, asked_before: bool
) -> None:
    manager = start()
    if asked_before:
        assert manager.call("names", 0) == []
    monkeypatch.setattr(manager_client, "CALL_TIME", 0.05)
    os.kill(manager.process.pid, signal.SIGSTOP)
    wait_for(lambda: psutil.Process(manager.process.pid).status() == psutil.STATUS_STOPPED)
    with pytest.raises(EngineLost, match="no answer within"):
        manager.call("names", 0)
    manager.end(0.05)
    assert manager.process.returncode == -signal.SIGKILL


def test_what_fails_in_the_manager_is_told(start: Start) -> None:
    manager = start()
    with pytest.raises(EngineLost, match=r"failed to answer: .*not supported"):
        manager.call("names", "no version")
    assert manager.call("names", 0) == []


def test_a_manager_that_is_killed_before_it_serves_is_gone(start: Start) -> None:
    manager = start()
    os.kill(manager.process.pid, signal.SIGKILL)
    manager.process.wait()
    with pytest.raises(EngineLost, match="the Manager process is gone"):
        manager.call("names", 0)


def test_an_address_that_is_a_file_is_removed_with_its_manager(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert Path(new_address()).is_absolute()
    monkeypatch.undo()
    address = tmp_path / "manager"
    monkeypatch.setattr(manager_client, "new_address", lambda: str(address))
    manager = start()
    assert manager.call("names", 0) == []
    assert address.is_socket()
    manager.end(5.0)
    assert manager.process.returncode == 0
    assert not address.exists()


def test_a_read_waits_for_its_version() -> None:
    published = PublishedNamespace("extend")
    assert published.settle() == (0, {})
    reading, writing = os.pipe()
    published.follow(reading)
    found: list[object] = []
    thread = threading.Thread(target=lambda: found.append(published.names(1)))
    thread.start()
    publish(writing, a=1)
    thread.join(DEADLINE)
    os.close(writing)
    assert found == [["a"]]
    assert published.settle()[0] == 1


@pytest.fixture
def published(pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> PublishedNamespace:
    """Return a namespace whose thread has taken in a commit and lets the next ones gather for long."""
    monkeypatch.setattr(manager_module, "GATHER_TIME", 10 * DEADLINE)
    published = PublishedNamespace("extend")
    published.follow(pipe[0])
    publish(pipe[1], a=1)
    wait_for(lambda: published._namespace.version == 1)
    return published


def test_a_read_takes_in_what_has_gathered(published: PublishedNamespace, pipe: tuple[int, int]) -> None:
    publish(pipe[1], b="x" * 50_000)
    publish(pipe[1], c=1)
    start = time.monotonic()
    assert sorted(published.names(3)) == ["a", "b", "c"]
    assert time.monotonic() - start < DEADLINE


def test_while_reads_miss_something_nothing_gathers(pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manager_module, "WATCHED_TIME", 10 * DEADLINE)
    monkeypatch.setattr(manager_module, "GATHER_TIME", 10 * DEADLINE)
    published = PublishedNamespace("extend")
    published.follow(pipe[0])
    thread = threading.Thread(target=published.names, args=(1,))
    thread.start()
    wait_for(lambda: published._watched_until > 0)
    publish(pipe[1], a=1)
    thread.join(DEADLINE)
    publish(pipe[1], a=2)
    wait_for(lambda: published._namespace.version == 2)


def test_without_a_setup_it_ends() -> None:
    ours, theirs = socket.socketpair()
    ours.close()
    with closing(theirs), pytest.raises(SystemExit):
        _receive_setup(theirs)
