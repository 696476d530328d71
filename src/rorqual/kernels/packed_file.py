"""Weights as the runtime packs them, in a file that the next start maps instead of packing again.

Layout: MAGIC, two little-endian uint64 (length of the header, its CRC-32), the header (JSON), zeros
up to a page, then the payload: arrays one after another, each beginning on a page. The header says
what the file holds (`key`), where each array lies, and the checksum of every BLOCK_BYTES of the
payload. A change within one 8-byte word always changes a checksum, any other change with all but
certainty.

Opening reads the header, and checks up to CHECKED_BYTES of blocks spread evenly over the file: all
of a small one. `check_rest`, run beside the engine, reads what is left of a large one.

The map asks for huge pages. Where the file system keeps files in large folios (ext4 and XFS of a
recent Linux do) it gets them; in 4 KiB pages decoding m_small took 15 % longer.

NOTE: files are replaced by renaming and removed by unlinking, never written in place: a process
that maps one keeps the pages that it opened.
"""

import json
import mmap
import os
import zlib
from collections.abc import Sequence
from ctypes import c_char, c_int64, c_void_p
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from rorqual.errors import CheckpointError
from rorqual.kernels.library import Library

MAGIC: Final = b"RQPACK01"
BLOCK_BYTES: Final = 1 << 20
CHECKED_BYTES: Final = 512 << 20
_PAGE_BYTES: Final = 4096
_FIXED_BYTES: Final = len(MAGIC) + 16
_CHECKSUM: Final = (c_void_p, c_int64, c_int64, c_void_p)


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes in memory to be written: an address and a count."""

    address: int
    num_bytes: int


def write_packed(
    path: Path, key: str, about: str, pieces: Sequence[Piece], library: Library
) -> None:
    """Write a new file and sync it to disk. OSError if the disk does not take it.

    about: whose weights these are, for whoever looks into the folder.
    """
    places: list[tuple[int, int]] = []
    end = 0
    for piece in pieces:
        places.append((end, piece.num_bytes))
        end += _whole_pages(piece.num_bytes)
    sums = [_checksums(piece.address, piece.num_bytes, library) for piece in pieces]
    header = json.dumps(
        {"key": key, "about": about, "pieces": places, "sums": [one.tolist() for one in sums]}
    ).encode()
    start = _whole_pages(_FIXED_BYTES + len(header))
    with open(path, "xb", buffering=0) as file:
        if hasattr(os, "posix_fallocate"):  # a full disk shows here, at once
            os.posix_fallocate(file.fileno(), 0, start + end)
        fixed = len(header).to_bytes(8, "little") + zlib.crc32(header).to_bytes(8, "little")
        _write_at(file.fileno(), 0, memoryview(MAGIC + fixed + header))
        for (begin, num_bytes), piece in zip(places, pieces, strict=True):
            data = (c_char * num_bytes).from_address(piece.address)
            _write_at(file.fileno(), start + begin, memoryview(data).cast("B"))
        os.fsync(file.fileno())


class PackedFile:
    """A mapped file of packed weights. CheckpointError names what is wrong with it.

    failure: set by `check_rest` when it finds a block that is not what was written.
    """

    def __init__(self, path: Path, key: str, sizes: Sequence[int], library: Library):
        self.path = path
        self.failure: str | None = None
        self._library = library
        try:
            with open(path, "rb") as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError:
            raise self._wrong("it is empty") from None
        if hasattr(mmap, "MADV_HUGEPAGE"):
            self._map.madvise(mmap.MADV_HUGEPAGE)
        self._bytes: NDArray[np.uint8] = np.frombuffer(self._map, np.uint8)
        header, start = self._header()
        if header["key"] != key:
            raise self._wrong("it holds other weights than its name says")
        places: list[tuple[int, int]] = [(start + begin, size) for begin, size in header["pieces"]]
        end = start + sum(_whole_pages(size) for _, size in places)
        if [size for _, size in places] != list(sizes) or len(self._map) != end:
            raise self._wrong(f"it has {len(self._map)} bytes where {end} were written")
        self._places = places
        self._blocks = [
            (begin + at, min(BLOCK_BYTES, size - at), expected)
            for (begin, size), sums in zip(places, header["sums"], strict=True)
            for at, expected in zip(range(0, size, BLOCK_BYTES), sums, strict=True)
        ]
        stride = -(-len(self._blocks) * BLOCK_BYTES // CHECKED_BYTES)
        problem = self._check(self._blocks[::stride])
        if problem is not None:
            raise self._wrong(problem)
        self._rest = [b for number, b in enumerate(self._blocks) if number % stride]

    @property
    def has_rest(self) -> bool:
        """Whether blocks are left that opening did not check."""
        return bool(self._rest)

    def piece(self, number: int) -> NDArray[np.uint8]:
        """The bytes of an array, read-only."""
        begin, size = self._places[number]
        return self._bytes[begin : begin + size]

    def check_rest(self) -> None:
        """Check the blocks that opening left out; sets `failure` at the first wrong one."""
        self.failure = self._check(self._rest)

    def _header(self) -> tuple[dict[str, Any], int]:
        fixed = self._map[:_FIXED_BYTES]
        if not fixed.startswith(MAGIC) or len(fixed) < _FIXED_BYTES:
            raise self._wrong("it does not begin as a file of packed weights does")
        length = int.from_bytes(fixed[8:16], "little")
        text = self._map[_FIXED_BYTES : _FIXED_BYTES + length]
        if len(text) != length or zlib.crc32(text) != int.from_bytes(fixed[16:24], "little"):
            raise self._wrong("its header is damaged")
        return json.loads(text), _whole_pages(_FIXED_BYTES + length)

    def _check(self, blocks: Sequence[tuple[int, int, int]]) -> str | None:
        address = self._bytes.ctypes.data
        for begin, size, expected in blocks:
            if int(_checksums(address + begin, size, self._library)[0]) != expected:
                return f"bytes {begin} to {begin + size} are not what was written"
        return None

    def _wrong(self, problem: str) -> CheckpointError:
        return CheckpointError(f"{self.path}: {problem}")


def _checksums(address: int, num_bytes: int, library: Library) -> NDArray[np.uint64]:
    sums = np.zeros(-(-num_bytes // BLOCK_BYTES), np.uint64)
    library.call("rq_checksum_blocks", _CHECKSUM, address, num_bytes, BLOCK_BYTES, sums.ctypes.data)
    return sums


def _whole_pages(num_bytes: int) -> int:
    return -(-num_bytes // _PAGE_BYTES) * _PAGE_BYTES


def _write_at(descriptor: int, offset: int, data: memoryview) -> None:
    while data.nbytes:
        written = os.pwrite(descriptor, data[: 1 << 30], offset)
        offset, data = offset + written, data[written:]
