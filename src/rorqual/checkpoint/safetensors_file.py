"""One safetensors file, memory-mapped and checked, without torch.

Layout: 8 bytes little-endian header length, a JSON header {name: {dtype, shape, data_offsets}},
then the data. The header is checked in full on opening (bounds, sizes, no gap or overlap), so a
truncated download fails here with a name, not later with garbage.
"""

import json
import math
import mmap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rorqual.checkpoint.dtypes import CONTAINERS
from rorqual.checkpoint.mapped import map_file
from rorqual.errors import CheckpointError

LENGTH_BYTES = 8
MAX_HEADER_BYTES = 100_000_000  # the format's own limit


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """Where a tensor lies: `start` and `end` are byte offsets in the file."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


class SafetensorsFile:
    """The tensors of one file; arrays are read-only views of the map, read from disk on use."""

    def __init__(self, path: Path):
        self.path = path
        self._map = map_file(path, LENGTH_BYTES, "a safetensors file")
        self.identity = self._map.identity
        self.metadata, self.entries = _parse_header(path, self._map)

    def read_raw(self, name: str) -> NDArray[np.generic]:
        """The tensor's values, or its bits where numpy lacks the dtype (bfloat16, float8)."""
        entry = self.entries[name]
        container = CONTAINERS[entry.dtype]
        count = (entry.end - entry.start) // container.itemsize
        flat = np.frombuffer(self._map, dtype=container, count=count, offset=entry.start)
        return flat.reshape(entry.shape)


def _parse_header(path: Path, data: mmap.mmap) -> tuple[dict[str, str], dict[str, TensorEntry]]:
    if data[:8] == b"version ":
        raise CheckpointError(
            f"{path}: a Git LFS pointer, not the weights; run `git lfs pull` in its repository"
        )
    length = int.from_bytes(data[:LENGTH_BYTES], "little")
    begin = LENGTH_BYTES + length
    if length > MAX_HEADER_BYTES or begin > len(data):
        raise CheckpointError(
            f"{path}: corrupt header, its length reads {length} bytes in a file of {len(data)}; "
            "the file is truncated or not safetensors, fetch it again"
        )
    try:
        header: Any = json.loads(data[LENGTH_BYTES:begin])
    except (ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{path}: corrupt header ({error}), expected JSON; fetch the file again"
        ) from error
    if not isinstance(header, dict):
        raise CheckpointError(f"{path}: corrupt header, expected an object; fetch the file again")
    metadata: dict[str, str] = header.pop("__metadata__", {})
    entries = {name: _parse_entry(path, name, raw, begin) for name, raw in header.items()}
    _check_layout(path, entries, begin, len(data))
    return metadata, entries


def _parse_entry(path: Path, name: str, raw: Any, begin: int) -> TensorEntry:
    """One header entry, its dtype known and its size what dtype and shape say."""
    try:
        dtype, shape = str(raw["dtype"]), tuple(int(size) for size in raw["shape"])
        start, end = (begin + int(offset) for offset in raw["data_offsets"])
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{path}: corrupt header entry of tensor {name}, expected dtype, shape and two "
            "data_offsets; fetch the file again"
        ) from error
    if dtype not in CONTAINERS:
        raise CheckpointError(
            f"{path}: tensor {name} has dtype {dtype}, expected one of {', '.join(CONTAINERS)}; "
            "convert it"
        )
    expected = math.prod(shape) * CONTAINERS[dtype].itemsize
    if min(shape, default=0) < 0 or end - start != expected:
        raise CheckpointError(
            f"{path}: tensor {name} spans {end - start} bytes, but {dtype} {list(shape)} takes "
            f"{expected}; the header is corrupt, fetch the file again"
        )
    return TensorEntry(dtype, shape, start, end)


def _check_layout(path: Path, entries: dict[str, TensorEntry], begin: int, size: int) -> None:
    """Tensors follow each other without gap or overlap and fill the file exactly."""
    position = begin
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].start, item[1].end)):
        if entry.start != position:
            raise CheckpointError(
                f"{path}: tensor {name} starts at byte {entry.start}, expected {position}; the "
                "header is corrupt, fetch the file again"
            )
        if entry.end > size:
            raise CheckpointError(
                f"{path}: truncated in tensor {name}, {size} bytes where it ends at byte "
                f"{entry.end}; fetch the file again"
            )
        position = entry.end
    if position != size:
        raise CheckpointError(
            f"{path}: {size - position} bytes behind the last tensor, expected none; the file is "
            "corrupt, fetch it again"
        )
