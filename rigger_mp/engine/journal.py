"""A page of memory shared by one worker and the dispatcher: what survives the worker's sudden death.

The worker notes which job it runs, and keeps the outcomes that it has not sent yet in the page itself. If
it is killed, the dispatcher still finds the outcomes of every finished job, and knows the culprit; while it runs a long
job, the dispatcher takes what is finished from there::

    0         8          16         24                     32           40
    | job     | deadline | position | instance being made  | times sent | frames not yet sent ...
"""

from __future__ import annotations

import mmap
import struct

from rigger_mp.engine.frames import frame, split_frames, write_all

SIZE = 1 << 16
_BODY = 40
_INT = struct.Struct("=q")
_FLOAT = struct.Struct("=d")


class Journal:
    """See the module. It is made before the fork and so shared by both processes."""

    def __init__(self) -> None:
        self._page = mmap.mmap(-1, SIZE)
        self._position = _BODY
        self._times_sent = 0
        self.making(-1)

    # -- the worker's side -------------------------------------------------------------------------------

    def begin(self, job: int) -> None:
        """Note that a job starts (0: none runs)."""
        _INT.pack_into(self._page, 0, job)

    def limit(self, deadline: float) -> None:
        """Note until when, by ``time.monotonic``, the running function may run (0: for ever)."""
        _FLOAT.pack_into(self._page, 8, deadline)

    def making(self, instance: int) -> None:
        """Note which instance, by its place in the list, is being made (-1: none)."""
        _INT.pack_into(self._page, 24, instance)

    def append(self, payload: bytes) -> bool:
        """Keep a frame to be sent; false if it does not fit."""
        data = frame(payload)
        end = self._position + len(data)
        if end > SIZE:
            return False
        self._page[self._position : end] = data
        self._position = end
        _INT.pack_into(self._page, 16, end - _BODY)
        return True

    def flush(self, fd: int) -> None:
        """Send what is kept."""
        if self._position > _BODY:
            write_all(fd, self._page[_BODY : self._position])
            self._position = _BODY
            self._times_sent += 1
            _INT.pack_into(self._page, 32, self._times_sent)  # before anything is written over
            _INT.pack_into(self._page, 16, 0)

    @property
    def filled(self) -> int:
        """Bytes kept."""
        return self._position - _BODY

    def leave(self) -> None:
        """In a child that a hook forked: touch the shared page no more."""
        self._page = mmap.mmap(-1, SIZE)

    # -- the dispatcher's side ---------------------------------------------------------------------------

    @property
    def job(self) -> int:
        """The job that runs, 0 if none does."""
        return int(_INT.unpack_from(self._page, 0)[0])

    @property
    def deadline(self) -> float:
        """Until when the running function may run, 0 if it has no limit."""
        return float(_FLOAT.unpack_from(self._page, 8)[0])

    @property
    def instance(self) -> int:
        """Which instance is being made, -1 if none is."""
        return int(_INT.unpack_from(self._page, 24)[0])

    def kept(self) -> list[bytes]:
        """Return the frames that a living worker keeps, which it will send, too; none if it is just sending them."""
        (before,) = _INT.unpack_from(self._page, 32)
        frames = self.unsent()
        (after,) = _INT.unpack_from(self._page, 32)
        return frames if before == after else []

    def unsent(self) -> list[bytes]:
        """Return the frames that the worker kept and did not, or perhaps did, send."""
        (filled,) = _INT.unpack_from(self._page, 16)
        return split_frames(bytearray(self._page[_BODY : _BODY + filled]))

    def close(self) -> None:
        """Release the memory."""
        self._page.close()
