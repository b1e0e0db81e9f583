"""Segments cannot be changed, views of them are private, and descriptors arrive with the frames they belong to."""

from __future__ import annotations

import errno
import gc
import os
import resource
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from large_plugins import Raw
from waiting import DEADLINE, wait_for

from rigger_mp.encoding import dump_arguments, load_names, load_part
from rigger_mp.engine import messages as m
from rigger_mp.engine import segments as engine_segments
from rigger_mp.engine.descriptors import (
    ArrivedSegments,
    SocketReader,
    SocketWriter,
    frame_message,
    send_at_once,
    send_frame,
)
from rigger_mp.engine.segments import (
    AVAILABLE,
    Arguments,
    Segment,
    SegmentError,
    SegmentFile,
    by_id,
    count_open,
    dump_with_segment,
)
from rigger_mp.errors import EncodingError

pytestmark = pytest.mark.skipif(not AVAILABLE, reason="this system has no memory that can be sealed")

VALUE = bytes(range(256)) * 2000


def dump(**values: Any) -> Arguments:
    return dump_with_segment(dump_arguments, values)


def load(arguments: Arguments, segments: tuple[Segment, ...] | None = None) -> dict[str, Any]:
    data, own = arguments
    names = load_names(data, by_id(own if segments is None else segments))
    return {name: load_part(value) for name, value in names.items()}


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


@pytest.fixture(autouse=True)
def no_segment_left() -> Iterator[None]:
    yield
    gc.collect()
    assert count_open() == 0


def test_several_values_share_one_segment_and_small_ones_need_none() -> None:
    arguments = dump(a=VALUE, b=bytearray(VALUE), c=5, d=[1, 2], e="x" * 300_000, f={"k": [Raw(VALUE)]})
    assert len(arguments[1]) == 1
    assert len(arguments[0]) < 1000
    loaded = load(arguments)
    assert loaded == {
        "a": VALUE, "b": VALUE, "c": 5, "d": [1, 2], "e": "x" * 300_000, "f": {"k": [Raw(VALUE)]}
    }  # fmt: skip
    assert type(loaded["b"]) is bytearray
    assert dump(c=5, d=[1, 2])[1] == ()


def test_buffers_that_are_not_large_together_stay_inside_the_message() -> None:
    arguments = dump(a=Raw(bytes(100_000)), b=[Raw(bytes(100_000))])
    assert arguments[1] == ()
    assert load(arguments) == {"a": Raw(bytes(100_000)), "b": [Raw(bytes(100_000))]}


def test_a_segment_is_sealed() -> None:
    _, (segment,) = dump(a=VALUE)
    for change in (
        lambda: os.pwrite(segment.fd, b"x", 0),
        lambda: os.ftruncate(segment.fd, 10),
        lambda: os.ftruncate(segment.fd, 1 << 24),
    ):
        with pytest.raises(PermissionError):
            change()


def test_each_reading_is_private_and_outlives_the_segment() -> None:
    arguments = dump(a=Raw(bytearray(VALUE)))
    first, second = load(arguments)["a"], load(arguments)["a"]
    del arguments
    assert count_open() == 0
    first.data[0] = 99
    assert (first.data[0], second.data[0]) == (99, VALUE[0])


def test_buffers_are_aligned_for_arrays() -> None:
    numpy = pytest.importorskip("numpy")
    arrays = [numpy.arange(length, dtype="complex128") for length in (20_001, 30_007)]
    loaded = load(dump(a="x" * 300_001, b=arrays))["b"]
    assert all(array.flags.aligned and array.flags.writeable for array in loaded)
    assert [array.ctypes.data % 64 for array in loaded] == [0, 0]
    assert all((one == other).all() for one, other in zip(arrays, loaded, strict=True))


def test_the_content_serves_where_there_is_no_descriptor() -> None:
    arguments = dump(a=VALUE, b=Raw(bytearray(VALUE)))
    (segment,) = arguments[1]
    copy = Segment(segment.id, content=segment.read())
    for _ in range(2):
        loaded = load(arguments, (copy,))
        assert loaded == {"a": VALUE, "b": Raw(VALUE)}
        loaded["b"].data[0] = 99
    segment.keep_content()
    assert count_open() == 0
    assert load(arguments) == {"a": VALUE, "b": Raw(VALUE)}
    segment.map_for_one()
    assert load(arguments)["b"] == Raw(VALUE)


def test_a_value_whose_segment_is_missing_says_so_only_when_it_is_read() -> None:
    names = load_names(dump(a=VALUE, b=3)[0])
    assert load_part(names["b"]) == 3
    with pytest.raises(EncodingError, match="no descriptor left"):
        load_part(names["a"])


@contextmanager
def limited(kind: int, most: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(kind)
    resource.setrlimit(kind, (most, hard))
    try:
        yield
    finally:
        resource.setrlimit(kind, (soft, hard))


def lowest_free_descriptor() -> int:
    fd = os.dup(0)
    os.close(fd)
    return fd


@pytest.mark.parametrize("spare", [True, False])
def test_without_descriptors_values_stay_inside_the_message(spare: bool) -> None:
    # Either too few to give any to segments, or none left for the one that there might be.
    with limited(resource.RLIMIT_NOFILE, lowest_free_descriptor() if spare else 3):
        arguments = dump(a=VALUE, b=Raw(VALUE))
    assert arguments[1] == ()
    assert load(arguments) == {"a": VALUE, "b": Raw(VALUE)}


@pytest.mark.parametrize("room", [1000, len(VALUE) // 2])
def test_without_memory_values_stay_inside_the_message(room: int) -> None:
    with limited(resource.RLIMIT_FSIZE, room):
        arguments = dump(a=VALUE, b=Raw(VALUE))
    assert arguments[1] == ()
    assert load(arguments) == {"a": VALUE, "b": Raw(VALUE)}


def test_where_there_is_no_sealed_memory_values_stay_inside_the_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_segments, "AVAILABLE", False)
    arguments = dump(a=VALUE)
    assert arguments[1] == ()
    assert load(arguments) == {"a": VALUE}


def test_values_of_many_pages_arrive_whole() -> None:
    value = VALUE * 12
    arguments = dump(a=value, b=bytearray(value), c=Raw(value), d="\N{EURO SIGN}" * 2_000_000)
    assert load(arguments) == {"a": value, "b": value, "c": Raw(value), "d": "\N{EURO SIGN}" * 2_000_000}


def test_without_room_for_mappings_readings_are_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = dump(a=Raw(bytearray(VALUE)))
    load(arguments)
    monkeypatch.setattr(engine_segments, "_libc", SimpleNamespace(mmap=lambda *_: None))
    first, second = load(arguments)["a"], load(arguments)["a"]
    first.data[0] = 99
    assert (first.data[0], second.data[0]) == (99, VALUE[0])


def test_the_size_and_the_content_are_the_same_in_every_form() -> None:
    _, (segment,) = dump(a=VALUE)
    copy = Segment(segment.id, content=segment.read())
    size, content = segment.size, segment.read()
    assert size > len(VALUE)
    for _ in range(2):
        segment.map_for_one()
        assert (segment.fd, segment.size, segment.read()) == (-1, size, content)
        copy.keep_content()
        assert (copy.open(0), copy.size, copy.read()) == (None, size, content)


def test_a_file_of_a_segment_ends_where_the_segment_does() -> None:
    _, (segment,) = dump(a=VALUE)
    file = segment.open(segment.size - 10)
    assert isinstance(file, SegmentFile)
    assert file.readinto(memoryview(bytearray(100))) == 10
    assert file.read(1) == b""
    with pytest.raises(SegmentError, match="no lines"):
        file.readline()


def test_a_segment_that_is_shorter_than_it_says_is_an_error() -> None:
    _, (segment,) = dump(a=VALUE)
    with pytest.raises(SegmentError, match="shorter"):
        b"".join(engine_segments._read_chunks(segment.fd, segment.size + 1))


def test_a_descriptor_that_is_no_segment_is_closed_and_left_out(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"no segment, whatever its length may be")
    fd = os.open(tmp_path / "file", os.O_RDONLY)
    arrived = ArrivedSegments()
    arrived.add(fd)
    assert arrived.take([(0, None)]) == ()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)
    fd = os.open(tmp_path / "file", os.O_RDONLY)
    with pytest.raises(SegmentError, match="no segment"):
        Segment.receive(fd)


def test_hundreds_of_segments_with_frames_that_do_not_fit(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    for end in pair:
        end.setblocking(False)
    writer, reader = SocketWriter(ours), SocketReader(theirs)
    segments = tuple(segment for number in range(450) for segment in dump(a=VALUE, number=number)[1])
    sent = [
        m.Log("before"),
        m.Nested("many", b"x" * 300_000, 1, segments),
        *(m.Nested("one", b"y" * 50_000, 1, (segment,)) for segment in segments[:20]),
        m.Log("after"),
    ]
    writer.write_batch(sent)
    assert writer.blocked
    received: list[Any] = []
    while len(received) < len(sent):
        for payload in reader.read():
            received += map(reader.complete, m.unpack(payload))
        writer.flush()
    assert [message[:2] for message in received] == [message[:2] for message in sent]
    assert [s.id for s in received[1].segments] == [s.id for s in segments]
    assert [message.segments[0].id for message in received[2:22]] == [s.id for s in segments[:20]]


def test_a_blocking_sender_sends_hundreds_too(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    segments = tuple(segment for number in range(300) for segment in dump(a=VALUE, number=number)[1])
    message = m.Done(1, (), segments)
    send_frame(ours, *frame_message(message), message)
    reader = SocketReader(theirs)
    (payload,) = reader.read() or reader.read() or reader.read()
    (received,) = map(reader.complete, m.unpack(payload))
    assert [s.id for s in received.segments] == [s.id for s in segments]


def test_one_segment_that_two_messages_name_serves_both(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    _, (segment,) = dump(a=VALUE)
    for _ in range(2):
        message = m.Nested("twice", b"", 1, (segment,))
        send_frame(ours, *frame_message(message), message)
    reader = SocketReader(theirs)
    payloads = reader.read() + reader.read()
    first, second = (reader.complete(message) for payload in payloads for message in m.unpack(payload))
    assert first.segments == second.segments
    assert count_open() == 2
    del first
    assert second.segments[0].read() == segment.read()


def test_a_descriptor_that_cannot_be_sent_at_once_is_not_waited_for(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, _ = pair
    _, (segment,) = dump(a=VALUE)
    assert send_at_once(ours, b"S", [segment.fd])
    while send_at_once(ours, b"S" * 4096, [segment.fd]):
        continue
    with pytest.raises(BlockingIOError):
        ours.send(b"x" * 4096, socket.MSG_DONTWAIT)


def test_a_process_that_was_forked_closes_nothing_of_ours() -> None:
    _, (segment,) = dump(a=VALUE)
    pid = os.fork()
    if not pid:
        fd = segment.fd
        del segment
        os._exit(0 if Path(f"/proc/self/fd/{fd}").exists() else 1)
    status: list[int] = []

    def ended() -> bool:
        done, code = os.waitpid(pid, os.WNOHANG)
        status.append(code)
        return bool(done)

    wait_for(ended)
    assert os.waitstatus_to_exitcode(status[-1]) == 0
    assert segment.read()


class Crowded(socket.socket):
    """A socket of a system on which too many descriptors are on their way."""

    def sendmsg(self, buffers: Any, ancillary: Any = (), *_: Any) -> int:
        if ancillary:
            raise OSError(errno.ETOOMANYREFS, os.strerror(errno.ETOOMANYREFS))
        return super().sendmsg(buffers)


@pytest.fixture
def crowded(pair: tuple[socket.socket, socket.socket]) -> Iterator[Crowded]:
    with Crowded(fileno=pair[0].detach()) as sock:
        yield sock


def test_where_too_many_descriptors_are_on_their_way_the_content_is_sent(
    crowded: Crowded, pair: tuple[socket.socket, socket.socket]
) -> None:
    _, (segment,) = dump(a=VALUE[: 1 << 18])
    message = m.Nested("full", b"", 1, (segment,))
    reader = SocketReader(pair[1])
    received: list[Any] = []

    def read() -> None:
        while not received:
            received.extend(reader.complete(message) for payload in reader.read() for message in m.unpack(payload))

    thread = threading.Thread(target=read)
    thread.start()
    send_frame(crowded, *frame_message(message), message)
    thread.join(DEADLINE)
    assert received[0].segments[0].read() == segment.read()
    assert not send_at_once(crowded, b"S", [segment.fd])


def test_where_too_many_descriptors_are_on_their_way_a_writer_waits(
    crowded: Crowded, pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, (segment,) = dump(a=VALUE)
    writer, reader = SocketWriter(crowded), SocketReader(pair[1])
    writer.write_batch([m.Nested("later", b"", 1, (segment,))])
    assert writer.blocked
    assert not writer.broken
    monkeypatch.setattr(Crowded, "sendmsg", socket.socket.sendmsg)
    writer.flush()
    assert not writer.blocked
    (payload,) = reader.read()
    (received,) = map(reader.complete, m.unpack(payload))
    assert received.segments[0].read() == segment.read()


def test_segments_for_whoever_is_gone_are_dropped(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    _, (segment,) = dump(a=VALUE)
    message = m.Nested("nobody", b"", 1, (segment,))
    writer = SocketWriter(ours)
    theirs.close()
    for _ in range(2):
        writer.write_batch([message])
        assert writer.broken
        assert not writer.blocked
    assert send_at_once(ours, b"S", [segment.fd])
    with pytest.raises(BrokenPipeError):
        send_frame(ours, *frame_message(message), message)
