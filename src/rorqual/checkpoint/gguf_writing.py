"""Writing a GGUF file one tensor at a time, without torch.

The header needs every shape and type before the first byte of data, but not the data, so tensors
are produced as they are written: memory of one tensor (of one expert, in a stack).
"""

import math
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BufferedWriter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rorqual.checkpoint.gguf_file import ARRAY, DEFAULT_ALIGNMENT, MAGIC, SCALARS, STRING
from rorqual.checkpoint.gguf_types import TYPE_NAMED, WriteType, encode

VERSION = 3
_UINT32, _INT32, _FLOAT32, _BOOL = 4, 5, 6, 7


@dataclass(frozen=True, slots=True)
class GgufSource:
    """A tensor to write: type, shape in numpy's order, and its float32 values in pieces."""

    name: str
    kind: WriteType
    shape: tuple[int, ...]
    pieces: Callable[[], Iterator[NDArray[np.float32]]]

    @property
    def num_bytes(self) -> int:
        """Bytes on disk, without padding."""
        kind = TYPE_NAMED[self.kind]
        return math.prod(self.shape) // kind.block_values * kind.block_bytes


def write_gguf(path: Path, metadata: Mapping[str, Any], sources: Sequence[GgufSource]) -> None:
    """Write one file. Numbers become uint32, float32 or bool, lists arrays of int32 or strings."""
    with open(path, "wb") as file:
        file.write(MAGIC + struct.pack("<IQQ", VERSION, len(sources), len(metadata)))
        for key, value in metadata.items():
            file.write(_string(key) + _value(value))
        offset = 0
        for source in sources:
            number = TYPE_NAMED[source.kind].number
            dimensions = tuple(reversed(source.shape))
            file.write(_string(source.name) + struct.pack("<I", len(dimensions)))
            file.write(struct.pack(f"<{len(dimensions)}QIQ", *dimensions, number, offset))
            offset += source.num_bytes + _padding(source.num_bytes)
        file.write(bytes(_padding(file.tell())))
        for source in sources:
            _write_data(file, source)


def _write_data(file: BufferedWriter, source: GgufSource) -> None:
    written = 0
    for piece in source.pieces():
        data = encode(piece, source.kind)
        file.write(data.data)
        written += data.nbytes
    assert written == source.num_bytes, f"{source.name}: wrote {written} bytes"
    file.write(bytes(_padding(written)))


def _padding(size: int) -> int:
    return -size % DEFAULT_ALIGNMENT


def _string(text: str) -> bytes:
    raw = text.encode("utf-8")
    return struct.pack("<Q", len(raw)) + raw


def _value(value: Any) -> bytes:
    """A type and a value as GGUF lays them out."""
    if isinstance(value, str):
        return struct.pack("<I", STRING) + _string(value)
    if isinstance(value, list):
        return struct.pack("<I", ARRAY) + _array(value)
    kind = _BOOL if isinstance(value, bool) else _UINT32 if isinstance(value, int) else _FLOAT32
    return struct.pack(f"<I{SCALARS[kind]}", kind, value)


def _array(values: list[Any]) -> bytes:
    count = struct.pack("<Q", len(values))
    if values and isinstance(values[0], int):
        return struct.pack("<I", _INT32) + count + np.array(values, dtype="<i4").tobytes()
    return struct.pack("<I", STRING) + count + b"".join(_string(text) for text in values)
