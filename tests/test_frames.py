"""Frames survive being cut anywhere, and writers that cannot write yet."""

from __future__ import annotations

import os
import struct
import threading
from collections.abc import Iterator
from itertools import pairwise
from multiprocessing.connection import Connection

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rigger_mp.engine.frames import FrameReader, FrameWriter, frame, header, read_frame, split_frames, write_all

PAYLOADS = st.lists(st.binary(max_size=40), max_size=6)


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for fd in ends:
        try:
            os.close(fd)
        except OSError:
            continue  # the test closed it


@settings(deadline=None)
@given(PAYLOADS, st.lists(st.integers(0, 300), max_size=12))
def test_frames_may_be_cut_at_any_byte(payloads: list[bytes], cuts: list[int]) -> None:
    data = b"".join(map(frame, payloads))
    edges = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    buffer, taken = bytearray(), []
    for start, end in pairwise(edges):
        buffer += data[start:end]
        taken += split_frames(buffer)
    assert taken == payloads
    assert not buffer


def test_every_single_cut() -> None:
    payloads = [b"", b"x", b"yy" * 5]
    data = b"".join(map(frame, payloads))
    for cut in range(len(data) + 1):
        buffer = bytearray(data[:cut])
        taken = split_frames(buffer)
        buffer += data[cut:]
        assert taken + split_frames(buffer) == payloads


def test_lengths_of_2_gib_and_more_have_the_long_header() -> None:
    assert header(0x7FFFFFFF) == struct.pack("!i", 0x7FFFFFFF)
    assert header(0x80000000) == struct.pack("!iQ", -1, 0x80000000)
    assert header(5 << 32) == struct.pack("!iQ", -1, 5 << 32)


def test_a_long_header_is_understood_wherever_it_is_cut() -> None:
    data = struct.pack("!iQ", -1, 3) + b"abc" + frame(b"next")
    for cut in range(len(data) + 1):
        buffer = bytearray(data[:cut])
        taken = split_frames(buffer)
        buffer += data[cut:]
        assert taken + split_frames(buffer) == [b"abc", b"next"]


def test_a_frame_that_is_not_complete_stays() -> None:
    buffer = bytearray(header(0x80000000) + b"beginning")
    assert split_frames(buffer) == []
    assert buffer.endswith(b"beginning")


def test_multiprocessing_reads_and_writes_the_same_form(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    write_all(writing, frame(b"ours"))
    with Connection(os.dup(reading), writable=False) as connection:
        assert connection.recv_bytes() == b"ours"
    with Connection(os.dup(writing), readable=False) as connection:
        connection.send_bytes(b"theirs")
    assert FrameReader(reading).read() == [b"theirs"]


def test_a_reader_never_waits_for_half_a_frame(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    os.set_blocking(reading, False)
    reader = FrameReader(reading)
    assert reader.read() == []
    assert not reader.eof
    os.write(writing, frame(b"whole")[:6])
    assert reader.read() == []
    os.write(writing, frame(b"whole")[6:])
    assert reader.read() == [b"whole"]
    os.close(writing)
    assert reader.read() == []
    assert reader.eof


def test_what_a_dead_writer_left_is_read_to_the_end(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    os.write(writing, frame(b"1") + frame(b"2") + frame(b"cut off")[:7])
    os.close(writing)
    reader = FrameReader(reading)
    assert reader.read_to_end() == [b"1", b"2"]
    assert reader.eof


def test_a_writer_keeps_what_does_not_fit_and_its_order(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    for fd in pipe:
        os.set_blocking(fd, False)
    writer, reader = FrameWriter(writing), FrameReader(reading)
    payloads = [bytes([number]) * 50_000 for number in range(8)]
    for payload in payloads:
        writer.write(payload)
    assert writer.blocked
    taken: list[bytes] = []
    for _ in range(100):
        taken += reader.read()
        writer.flush()
        if len(taken) == len(payloads):
            break
    assert taken == payloads
    assert not writer.blocked


def test_a_writer_whose_reader_is_gone_is_broken_and_drops(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    writer = FrameWriter(writing)
    os.close(reading)
    writer.write(b"nobody reads this")
    assert writer.broken
    assert not writer.blocked
    writer.write(b"nor this")
    assert not writer.blocked


def test_one_frame_is_read_and_nothing_of_what_follows(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    long = struct.pack("!iQ", -1, 3) + b"abc"
    write_all(writing, frame(b"") + frame(b"short") + long + frame(b"next"))
    assert [read_frame(reading) for _ in range(3)] == [b"", b"short", b"abc"]
    assert FrameReader(reading).read() == [b"next"]


@pytest.mark.parametrize("beginning", [frame(b"payload"), struct.pack("!iQ", -1, 7) + b"payload"])
def test_a_frame_that_comes_byte_by_byte_is_whole_or_none(pipe: tuple[int, int], beginning: bytes) -> None:
    reading, writing = pipe

    def write() -> None:
        for end in (len(beginning), len(beginning) - 1):
            for byte in beginning[:end]:
                os.write(writing, bytes([byte]))
        os.close(writing)

    writer = threading.Thread(target=write)
    writer.start()
    assert read_frame(reading) == b"payload"
    assert read_frame(reading) == b""
    writer.join()


def test_half_a_frame_is_known_to_be_there(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    reader = FrameReader(reading)
    os.write(writing, frame(b"whole")[:6])
    assert reader.read() == []
    assert reader.buffered
    os.write(writing, frame(b"whole")[6:])
    assert reader.read() == [b"whole"]
    assert not reader.buffered
