"""Frames over sockets, with descriptors of segments beside them.

A frame's descriptors are sent with its first bytes, so that they have arrived when the frame is complete.
Segments say themselves which one they are: the message names their ids, and nothing depends on how
the system groups bytes and descriptors.

In a message a segment stands as ``(id, None)``, or as ``(id, content)`` where no descriptor can be spared for it.
"""

from __future__ import annotations

import array
import errno
import socket
from collections.abc import Callable, Iterable
from typing import Any
from weakref import WeakValueDictionary

from rigger_mp.engine import messages as m
from rigger_mp.engine.frames import CHUNK, FrameReader, FrameWriter, frame, write_all
from rigger_mp.engine.segments import Segment, SegmentError, count_open, most_open

MOST_AT_ONCE = 200
"""Descriptors sent by one call; the system's own limit is 253."""
_SPACE = socket.CMSG_SPACE(MOST_AT_ONCE * array.array("i").itemsize)
_FLAGS = getattr(socket, "MSG_CMSG_CLOEXEC", 0)

Named = tuple[int, "bytes | None"]
"""A segment in a message."""


def receive(sock: socket.socket, size: int) -> tuple[bytes, list[int]]:
    """Read once from a socket; return the bytes and the descriptors that came with them."""
    data, ancillary, _, _ = sock.recvmsg(size, _SPACE, _FLAGS)
    if not ancillary:
        return data, []
    fds = array.array("i")
    for level, kind, content in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(content[: len(content) - len(content) % fds.itemsize])
    return data, fds.tolist()


def send(sock: socket.socket, view: memoryview, fds: list[int]) -> int:
    """Write once to a socket, at least one byte; descriptors beyond those that fit stay in the list."""
    chosen = fds[:MOST_AT_ONCE]
    if len(fds) > MOST_AT_ONCE:
        view = view[:1]
    sent = sock.sendmsg([view], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", chosen))])
    del fds[:MOST_AT_ONCE]
    return sent


class ArrivedSegments:
    """Segments that have arrived before the messages that name them."""

    def __init__(self) -> None:
        self._segments: dict[int, tuple[Segment, int]] = {}
        self._alive: WeakValueDictionary[int, Segment] = WeakValueDictionary()

    def add(self, fd: int) -> None:
        """Take over a descriptor."""
        try:
            segment = Segment.receive(fd)
        except SegmentError:
            return
        if count_open() > 2 * most_open():
            segment.keep_content()
        first = self._alive.setdefault(segment.id, segment)
        _, times = self._segments.get(segment.id, (first, 0))
        self._segments[segment.id] = first, times + 1

    def __contains__(self, id_: object) -> bool:
        return id_ in self._segments

    def take(self, named: Iterable[Named]) -> tuple[Segment, ...]:
        """Return the segments that a message names; one whose descriptor was lost on the way is left out."""
        return tuple(segment for id_, content in named if (segment := self._take(id_, content)) is not None)

    def _take(self, id_: int, content: bytes | None) -> Segment | None:
        if content is not None:
            return Segment(id_, content=content)
        segment, times = self._segments.pop(id_, (None, 0))
        if segment is not None and times > 1:
            self._segments[id_] = segment, times - 1
        return segment


class SocketReader(FrameReader):
    """A :class:`FrameReader` of a socket whose frames come with segments.

    Args:
        sock: the socket.

    Attributes:
        arrived: the segments.
    """

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock.fileno())
        self.arrived = ArrivedSegments()
        self._socket = sock

    def complete(self, message: Any) -> Any:
        """Return a message of a frame that was read, with its segments in place of their names."""
        if getattr(message, "segments", ()):
            return message._replace(segments=self.arrived.take(message.segments))
        return message

    def _receive(self) -> bytes:
        data, fds = receive(self._socket, CHUNK)
        for fd in fds:
            self.arrived.add(fd)
        return data


class SocketWriter(FrameWriter):
    """A :class:`FrameWriter` to a socket, whose frames may go with segments.

    Args:
        sock: the socket, non-blocking.
    """

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock.fileno())
        self._socket = sock

    def write_batch(self, messages: Iterable[Any], may_send: Callable[[], bool] = lambda: True) -> None:
        """Queue messages; one that names segments goes in a frame of its own.

        Args:
            messages: their ``segments``, if any, are :class:`Segment` objects.
            may_send: tells whether descriptors can be spared for them.
        """
        plain: list[Any] = []
        for message in messages:
            segments = getattr(message, "segments", ())
            if not segments:
                plain.append(message)
                continue
            self._write_plain(plain)
            plain = []
            named, fds = name_segments(message, may_send=may_send())
            self._write_with(m.pack((named,)), fds, segments)
        self._write_plain(plain)

    def _write_with(self, payload: bytes, fds: list[int], segments: Any) -> None:
        if not fds:
            self.write(payload)
        elif not self.broken:
            self._pending.append(_Accompanied(payload, fds, segments))
            self.flush()

    def _write_plain(self, messages: list[Any]) -> None:
        if messages:
            self.write(m.pack(messages))

    def _write(self, data: Any) -> bool:
        if type(data) is not _Accompanied:
            return super()._write(data)
        try:
            data.view = data.view[send(self._socket, data.view, data.fds) :]
        except OSError as error:
            # The system counts descriptors on their way; it tells nobody when there are fewer.
            if not isinstance(error, BlockingIOError) and error.errno != errno.ETOOMANYREFS:
                self._break()
            return False
        if data.fds:
            return self._write(data)
        self._pending[0] = data.view
        return not data.view or super()._write(data.view)


class _Accompanied:
    """A frame, or what is left of it, with descriptors that must go with it, and what keeps them open."""

    __slots__ = ("fds", "segments", "view")

    def __init__(self, payload: bytes, fds: list[int], segments: Any) -> None:
        self.view = memoryview(frame(payload))
        self.fds = fds
        self.segments = segments


def name_segments(message: Any, *, may_send: bool = True) -> tuple[Any, list[int]]:
    """Return a message with its segments as :data:`Named`, and the descriptors to send with it."""
    segments: tuple[Segment, ...] = message.segments
    named = tuple((s.id, None if may_send and s.fd >= 0 else s.read()) for s in segments)
    fds = [s.fd for s in segments if may_send and s.fd >= 0]
    return message._replace(segments=named), fds


def frame_message(message: Any, *, may_send: bool = True) -> tuple[bytes, list[int]]:
    """Return the frame of a message, and the descriptors of its ``segments``, if any, which go with it."""
    fds: list[int] = []
    if getattr(message, "segments", ()):
        message, fds = name_segments(message, may_send=may_send)
    return frame(m.pack((message,))), fds


def send_frame(sock: socket.socket, data: bytes, fds: list[int], message: Any) -> None:
    """Send what :func:`frame_message` made of a message over a blocking socket."""
    view = memoryview(data)
    try:
        while fds:
            view = view[send(sock, view, fds) :]
    except OSError as error:
        if error.errno != errno.ETOOMANYREFS or len(view) < len(data):
            raise
        view = memoryview(frame_message(message, may_send=False)[0])
    write_all(sock.fileno(), view)


def send_at_once(sock: socket.socket, data: bytes, fds: list[int]) -> bool:
    """Send a few descriptors without waiting; false if there is no room for them now."""
    try:
        sock.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))], socket.MSG_DONTWAIT)
    except BlockingIOError:
        return False
    except OSError as error:
        return error.errno != errno.ETOOMANYREFS  # anything else: whoever is to have them is gone
    return True
