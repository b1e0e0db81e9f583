"""Length-prefixed frames over pipes and sockets, as ``multiprocessing.connection`` writes them.

A frame is a signed 32-bit big-endian length and the payload; a longer one has -1 and a 64-bit length. It is
the form in which ``multiprocessing.Queue`` writes, so that one reader serves every pipe of the engine.
"""

from __future__ import annotations

import os
import struct
from collections import deque
from typing import Any

CHUNK = 1 << 16
_SHORT = struct.Struct("!i")
_LONG = struct.Struct("!Q")
_MAX_SHORT = 0x7FFFFFFF


def header(size: int) -> bytes:
    """Return what stands before a payload of ``size`` bytes."""
    return _SHORT.pack(size) if size <= _MAX_SHORT else _SHORT.pack(-1) + _LONG.pack(size)


def frame(payload: bytes) -> bytes:
    """Return a payload with its header."""
    return header(len(payload)) + payload


def split_frames(buffer: bytearray) -> list[bytes]:
    """Take the complete payloads off the front of ``buffer``."""
    payloads: list[bytes] = []
    start, available = 0, len(buffer)
    while available - start >= _SHORT.size:
        (size,) = _SHORT.unpack_from(buffer, start)
        body = start + _SHORT.size
        if size < 0:
            if available - body < _LONG.size:
                break
            (size,) = _LONG.unpack_from(buffer, body)
            body += _LONG.size
        if available - body < size:
            break
        payloads.append(bytes(memoryview(buffer)[body : body + size]))
        start = body + size
    if start:
        del buffer[:start]
    return payloads


class FrameReader:
    """Takes frames off a file descriptor, blocking or not, without ever waiting for half a frame.

    Attributes:
        eof: whether the other end is closed.
    """

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.eof = False
        self._buffer = bytearray()

    @property
    def buffered(self) -> bool:
        """Whether half a frame has been read."""
        return bool(self._buffer)

    def read(self) -> list[bytes]:
        """Read once and return the frames that are complete by then (none, at the end of file)."""
        self._fill()
        return split_frames(self._buffer)

    def read_to_end(self) -> list[bytes]:
        """Read whatever a dead writer left behind."""
        while self._fill():
            pass
        return split_frames(self._buffer)

    def _fill(self) -> bool:
        try:
            data = self._receive()
        except BlockingIOError:
            return False
        except ConnectionError:
            data = b""
        self._buffer += data
        self.eof = not data
        return bool(data)

    def _receive(self) -> bytes:
        return os.read(self.fd, CHUNK)


class FrameWriter:
    """Writes frames to a non-blocking file descriptor; keeps what does not fit yet.

    Attributes:
        broken: whether the other end is gone; what is written then is dropped.
        blocked: whether something waits for the descriptor to be writable.
        watched: whether somebody watches for that; whoever does keeps it up to date.
    """

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.broken = False
        self.blocked = False
        self.watched = False
        self._pending: deque[Any] = deque()

    def write(self, payload: bytes) -> None:
        """Queue a frame and write as much as the descriptor takes."""
        if not self.broken:
            self._pending.append(frame(payload))
            self.flush()

    def flush(self) -> None:
        """Write as much of what is pending as the descriptor takes."""
        pending = self._pending
        while pending and self._write(pending[0]):
            pending.popleft()
        self.blocked = bool(pending)

    def _write(self, data: bytes | memoryview) -> bool:
        """Write a frame, or what is left of it; false if some of it has to wait."""
        while True:
            try:
                written = os.write(self.fd, data)
            except BlockingIOError:
                return False
            except OSError:
                self._break()
                return False
            if written == len(data):
                return True
            data = self._pending[0] = memoryview(data)[written:]

    def _break(self) -> None:
        self.broken = True
        self._pending.clear()


def read_frame(fd: int) -> bytes:
    """Read one frame from a blocking file descriptor and nothing of what follows; ``b""`` at its end."""
    buffer = bytearray()
    wanted = _SHORT.size
    while len(buffer) < wanted:
        data = os.read(fd, wanted - len(buffer))
        if not data:
            return b""
        buffer += data
        wanted = max(wanted, _frame_size(buffer))
    return split_frames(buffer)[0]


def _frame_size(beginning: bytearray) -> int:
    """Return how long a frame is, as far as its beginning tells: at least as long as its header."""
    if len(beginning) < _SHORT.size:
        return _SHORT.size
    (size,) = _SHORT.unpack_from(beginning, 0)
    if size >= 0:
        return _SHORT.size + int(size)
    if len(beginning) < _SHORT.size + _LONG.size:
        return _SHORT.size + _LONG.size
    return _SHORT.size + _LONG.size + int(_LONG.unpack_from(beginning, _SHORT.size)[0])


def write_all(fd: int, data: bytes | memoryview) -> None:
    """Write everything to a blocking file descriptor."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
