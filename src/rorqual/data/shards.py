"""Token shards: files of documents that are read through a memory map.

One file, little-endian:

    64 bytes   magic "RQTOKENS", version, bytes per token, documents, tokens, SHA-256 of the rest
    tokens     uint16 or uint32, padded with zeros to a multiple of 8 bytes
    offsets    uint64 [documents + 1], where each document begins

The checksum is verified when a shard is opened: a flipped bit or a cut file is an error here and
not a strange loss later.
"""

import hashlib
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rorqual.errors import DataError

_MAGIC = b"RQTOKENS"
_VERSION = 1
_HEADER = struct.Struct("<8sIIQQ32s")
_ALIGNMENT = 8
REBUILD = "delete its folder and run `rorqual data build` again"

assert _HEADER.size == 64, "the header is 64 bytes"


@dataclass(frozen=True, slots=True)
class Shard:
    """An open shard: its tokens and where each document begins in them."""

    tokens: np.ndarray  # [tokens] uint16 or uint32, memory-mapped
    offsets: np.ndarray  # [documents + 1] uint64, memory-mapped


class ShardWriter:
    """Writes one shard, document by document; `close` makes it valid."""

    def __init__(self, path: Path, dtype: np.dtype[Any]) -> None:
        self.path = path
        self._dtype = dtype
        self._offsets = [0]
        self._digest = hashlib.sha256()
        self._file = path.open("wb")
        self._file.write(bytes(_HEADER.size))  # no magic until it is whole

    @property
    def num_tokens(self) -> int:
        """Tokens written so far."""
        return self._offsets[-1]

    @property
    def num_documents(self) -> int:
        """Documents written so far."""
        return len(self._offsets) - 1

    def add(self, tokens: list[int]) -> None:
        """Appends one document."""
        self._write(np.array(tokens, self._dtype).tobytes())
        self._offsets.append(self._offsets[-1] + len(tokens))

    def close(self) -> str:
        """Finishes the file and returns its checksum."""
        payload_bytes = self.num_tokens * self._dtype.itemsize
        self._write(bytes(-payload_bytes % _ALIGNMENT))
        self._write(np.array(self._offsets, "<u8").tobytes())
        self._file.seek(0)
        self._file.write(
            _HEADER.pack(
                _MAGIC,
                _VERSION,
                self._dtype.itemsize,
                self.num_documents,
                self.num_tokens,
                self._digest.digest(),
            )
        )
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        return self._digest.hexdigest()

    def abandon(self) -> None:
        """Closes the file as it is; without a header nobody will take it for a shard."""
        self._file.close()

    def _write(self, data: bytes) -> None:
        self._digest.update(data)
        self._file.write(data)


def open_shard(path: Path) -> Shard:
    """Maps a shard into memory after checking its header, size and checksum."""
    try:
        with path.open("rb") as file:
            header = file.read(_HEADER.size)
            size = os.fstat(file.fileno()).st_size
            digest = hashlib.file_digest(file, "sha256").digest()
    except FileNotFoundError as error:
        raise DataError(f"{path}: listed in index.json but not there; {REBUILD}") from error
    if len(header) < _HEADER.size:
        raise DataError(f"{path}: {size} bytes, too short for a token shard; {REBUILD}")
    magic, version, itemsize, documents, tokens, expected = _HEADER.unpack(header)
    if magic != _MAGIC or version != _VERSION or itemsize not in (2, 4):
        raise DataError(f"{path}: not a token shard of version {_VERSION}; {REBUILD}")
    token_bytes = -(-tokens * itemsize // _ALIGNMENT) * _ALIGNMENT
    whole = _HEADER.size + token_bytes + 8 * (documents + 1)
    if size != whole:
        raise DataError(f"{path}: {size} bytes, expected {whole}: the file was cut; {REBUILD}")
    if digest != expected:
        raise DataError(f"{path}: its content does not match its checksum; {REBUILD}")
    dtype = np.dtype("<u2" if itemsize == 2 else "<u4")
    offsets_at = _HEADER.size + token_bytes
    offsets = np.memmap(path, np.dtype("<u8"), "r", offsets_at, (documents + 1,))
    if tokens == 0:
        return Shard(np.empty(0, dtype), offsets)
    return Shard(np.memmap(path, dtype, "r", _HEADER.size, (tokens,)), offsets)
