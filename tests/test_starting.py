"""The first workers start before the dispatcher is all there, and the supervisor takes them over."""

from __future__ import annotations

import pickle
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from engine_plugins import Adder
from waiting import wait_for

from rigger_mp.config import Settings
from rigger_mp.discovery import find_instances
from rigger_mp.engine import messages as m
from rigger_mp.engine.activity import Slot
from rigger_mp.engine.blueprint import Boot, Limits, receive_boot
from rigger_mp.engine.build import build_boot
from rigger_mp.engine.frames import frame
from rigger_mp.engine.marks import ROWS, Marks
from rigger_mp.engine.placement import ANY, ARCHIVE, place
from rigger_mp.engine.starting import start_first_workers, take_first_workers
from rigger_mp.engine.supervisor import Seat, SeatKind, Supervisor

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")  # of forking, under pytest-xdist

SETTINGS = Settings.from_config({"workers": 2})


@pytest.fixture
def marks() -> Iterator[Marks]:
    made = Marks(SETTINGS.queue_size)
    yield made
    made.close()


@pytest.fixture
def start(marks: Marks) -> Iterator[Callable[[dict[str, Any]], Boot]]:
    """Start the first workers of a configuration; return what a dispatcher is told of it."""
    ours, theirs = socket.socketpair()
    receive_boot.cache_clear()

    def start(config: dict[str, Any]) -> Boot:
        instances = find_instances(config, {"adder": Adder}).instances
        boot = build_boot(Settings.from_config(config), instances, pickle.dumps(config), False)
        ours.sendall(frame(pickle.dumps(boot)))
        start_first_workers(theirs.fileno(), marks.fd)
        assert Boot.receive(theirs) == boot
        return boot

    with ours, theirs:
        yield start
    receive_boot.cache_clear()
    for started in take_first_workers().values():
        started.process.end(0.0)


def read_message(seat: Seat) -> Any:
    payloads: list[bytes] = []
    assert seat.reader is not None

    def read() -> bool:
        assert seat.reader is not None
        payloads.extend(seat.reader.read())
        return bool(payloads)

    wait_for(read)
    return m.unpack(payloads[0])[0]


def test_the_supervisor_takes_over_what_makes_its_instances_already(
    marks: Marks, start: Callable[[dict[str, Any]], Boot]
) -> None:
    entry = {"plugin": "adder", "stateless": False}
    boot = start({"workers": 2, "plugins": {"one": entry, "two": entry}})
    early = marks.pids()
    assert len(early) == 2
    watched: list[Seat] = []
    supervisor = Supervisor(marks, watched.append, lambda seat: None)
    kind = SeatKind(boot.settings, Limits())
    try:
        seats = [supervisor.add(Slot(number), f"worker-{number}", kind, ()) for number in range(2)]
        assert [seat.process.pid for seat in seats if seat.process is not None] == early
        assert watched == seats
        made = [{fields[1] for fields in read_message(seat).functions} for seat in seats]
        assert made == [{"one"}, {"two"}]
        later = supervisor.add(Slot(2), "worker-2", kind, ())
        assert sorted(marks.pids()) == sorted([*early, later.process.pid if later.process is not None else 0])
        assert len({seat.row for seat in (*seats, later)} & set(range(ROWS))) == 3
    finally:
        supervisor.stop(0.0)


def test_with_a_spool_nothing_is_made_before_that_is_open(
    marks: Marks, start: Callable[[dict[str, Any]], Boot], tmp_path: Path
) -> None:
    start({"workers": 2, "plugins": {"one": {"plugin": "adder"}}, "archive": {"spool": str(tmp_path / "spool")}})
    assert marks.pids() == []
    assert take_first_workers() == {}


def test_each_instance_lives_where_its_entry_says() -> None:
    config = {
        "plugins": {
            "anywhere": {"plugin": "adder", "stateless": True},
            "first": {"plugin": "adder", "stateless": False},
            "alone": {"plugin": "adder", "stateless": False, "dedicated": True},
            "behind": {"plugin": "adder", "background": True},
            "second": {"plugin": "adder", "stateless": False},
        }
    }
    boot = build_boot(SETTINGS, find_instances(config, {"adder": Adder}).instances, b"", False)
    placed = place(boot.instances, 2, first=10)
    assert placed.homes == {"anywhere": ANY, "first": 10, "alone": 12, "behind": ARCHIVE, "second": 11}
    assert [placed.living_in(number) for number in placed.slots] == [
        ["anywhere", "first"],
        ["anywhere", "second"],
        ["alone"],
    ]
    assert placed.living_in(ARCHIVE) == ["behind"]
