"""Frames on a stream: four bytes of length, then that many bytes.

Both ends share this file. The end that reads from a candidate gives `FrameReader` a limit, since
the length is the candidate's word.
"""

import os
import struct

HEADER = struct.Struct(">I")


class FrameError(Exception):
    """What came is no frame, or more than the reader takes."""


def frame(payload: bytes) -> bytes:
    """The payload with its length in front."""
    return HEADER.pack(len(payload)) + payload


def write_all(fd: int, data: bytes) -> None:
    """Write to a blocking descriptor until everything is written."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def read_frame(fd: int) -> bytes | None:
    """The next frame of a blocking descriptor whose writer is trusted; None at its end."""
    head = _read_exactly(fd, HEADER.size)
    return None if head is None else _read_exactly(fd, HEADER.unpack(head)[0])


def _read_exactly(fd: int, size: int) -> bytes | None:
    parts: list[bytes] = []
    while size:
        part = os.read(fd, min(size, 1 << 16))
        if not part:
            return None
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


class FrameReader:
    """Cuts what an untrusted writer sent into frames; at most `limit` bytes in all."""

    def __init__(self, limit: int):
        self._left = limit
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """The frames that are complete with these bytes; raises FrameError beyond the limit."""
        self._left -= len(data)
        if self._left < 0:
            raise FrameError("more result bytes than allowed")
        self._buffer += data
        frames: list[bytes] = []
        while len(self._buffer) >= HEADER.size:
            (length,) = HEADER.unpack_from(self._buffer)
            if length > self._left + len(self._buffer):
                raise FrameError("a frame longer than allowed")
            if len(self._buffer) < HEADER.size + length:
                break
            frames.append(bytes(self._buffer[HEADER.size : HEADER.size + length]))
            del self._buffer[: HEADER.size + length]
        return frames
