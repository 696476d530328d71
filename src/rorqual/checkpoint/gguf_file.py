"""One GGUF file, memory-mapped and checked, without torch.

Layout (version 2 and 3, little-endian): `GGUF`, version, tensor count, entry count; typed metadata
entries; tensor infos (name, dimensions fastest first, type, offset); padding; tensor data. Every
count, length and offset is checked against the bytes that are there before it is used, so a
truncated or hostile file fails here with a name, not later with garbage or a huge allocation.
"""

import mmap
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rorqual.checkpoint.gguf_types import TYPES, TensorType, dequantize
from rorqual.checkpoint.mapped import map_file
from rorqual.errors import CheckpointError

MAGIC = b"GGUF"
VERSIONS = (2, 3)
DEFAULT_ALIGNMENT = 32
MAX_DIMENSIONS = 4
MAX_NAME_BYTES = 1024
STRING, ARRAY = 8, 9
# struct format of each metadata type of fixed size.
SCALARS = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    7: "?",
    10: "Q",
    11: "q",
    12: "d",
}
_HEADER_BYTES = 24
_MIN_ENTRY_BYTES = 8 + 4 + 1  # an empty key, a type, a one-byte value
_MIN_INFO_BYTES = 8 + 4 + 8 + 4 + 8  # an empty name, one dimension, a type, an offset


@dataclass(frozen=True, slots=True)
class GgufEntry:
    """Where a tensor lies: shape in numpy's order, `start` and `num_bytes` in the file."""

    kind: TensorType
    shape: tuple[int, ...]
    start: int
    num_bytes: int


class GgufFile:
    """Metadata and tensors of one file; values are read from disk on use."""

    def __init__(self, path: Path):
        self.path = path
        self._map = map_file(path, _HEADER_BYTES, "a GGUF file")
        self.identity = self._map.identity
        reader = _HeaderReader(path, self._map)
        num_tensors, num_entries = reader.counts()
        self.metadata: dict[str, Any] = reader.metadata(num_entries)
        self.entries = reader.tensors(num_tensors, _alignment(path, self.metadata))

    def where(self, name: str) -> str:
        """`file: tensor name`, the start of every error about a tensor."""
        return f"{self.path}: tensor {name}"

    def read(self, name: str, index: int | None = None) -> NDArray[np.float32]:
        """A tensor in float32, or with `index` the slice `tensor[index]` alone; maybe read-only."""
        entry = self.entries[name]
        shape, start, size = entry.shape, entry.start, entry.num_bytes
        if index is not None:
            size //= shape[0]
            start, shape = start + index * size, shape[1:]
        raw = np.frombuffer(self._map, dtype=np.uint8, count=size, offset=start)
        return dequantize(raw, entry.kind, self.where(name)).reshape(shape)


def _alignment(path: Path, metadata: dict[str, Any]) -> int:
    alignment = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
    if not isinstance(alignment, int) or alignment < 8 or alignment & (alignment - 1):
        raise CheckpointError(
            f"{path}: general.alignment={alignment!r}, expected a power of two from 8; the file is "
            "corrupt, fetch it again"
        )
    return alignment


class _HeaderReader:
    """A cursor over the header that never reads past the end of the file."""

    def __init__(self, path: Path, data: mmap.mmap):
        self._path = path
        self._data = data
        self._at = 0

    def counts(self) -> tuple[int, int]:
        """Number of tensors and of metadata entries, after magic and version."""
        magic = self._take(4)
        if magic != MAGIC:
            raise CheckpointError(
                f"{self._path}: starts with {magic!r}, expected {MAGIC!r}; this is not a GGUF file"
            )
        version = self._unpack("I")
        if version not in VERSIONS:
            swapped = int.from_bytes(version.to_bytes(4, "little"), "big")
            fix = "big-endian files are not read" if swapped in VERSIONS else "convert it again"
            raise CheckpointError(
                f"{self._path}: GGUF version {version}, expected one of {VERSIONS}; {fix}"
            )
        num_tensors, num_entries = self._unpack("Q"), self._unpack("Q")
        self._require(num_tensors * _MIN_INFO_BYTES, f"{num_tensors} tensors")
        self._require(num_entries * _MIN_ENTRY_BYTES, f"{num_entries} metadata entries")
        return num_tensors, num_entries

    def metadata(self, count: int) -> dict[str, Any]:
        """Keys to numbers, strings, lists of strings, and numpy arrays of numbers."""
        found: dict[str, Any] = {}
        for _ in range(count):
            key = self._string("a metadata key", MAX_NAME_BYTES)
            if key in found:
                raise self._corrupt(f"metadata key {key} occurs twice")
            found[key] = self._value(self._unpack("I"), key)
        return found

    def tensors(self, count: int, alignment: int) -> dict[str, GgufEntry]:
        """Where each tensor lies, checked: known type, whole blocks, in the file, no overlap."""
        infos: dict[str, tuple[tuple[int, ...], TensorType, int]] = {}
        for _ in range(count):
            name = self._string("a tensor name", MAX_NAME_BYTES)
            if name in infos:
                raise self._corrupt(f"tensor {name} occurs twice")
            infos[name] = self._tensor_info(name, alignment)
        begin = -(-self._at // alignment) * alignment
        entries: dict[str, GgufEntry] = {}
        for name, (shape, kind, offset) in infos.items():
            values = 1
            for size in shape:
                values *= size
            num_bytes = values // kind.block_values * kind.block_bytes
            entries[name] = GgufEntry(kind, shape, begin + offset, num_bytes)
            if begin + offset + num_bytes > len(self._data):
                raise CheckpointError(
                    f"{self._path}: tensor {name} ends at byte {begin + offset + num_bytes}, the "
                    f"file has {len(self._data)}; it is truncated, fetch it again"
                )
        self._check_overlap(entries)
        return entries

    def _tensor_info(self, name: str, alignment: int) -> tuple[tuple[int, ...], TensorType, int]:
        num_dimensions = self._unpack("I")
        if not 1 <= num_dimensions <= MAX_DIMENSIONS:
            raise self._corrupt(f"tensor {name} has {num_dimensions} dimensions, expected 1 to 4")
        dimensions = [self._unpack("Q") for _ in range(num_dimensions)]
        number, offset = self._unpack("I"), self._unpack("Q")
        if number not in TYPES:
            raise CheckpointError(
                f"{self._path}: tensor {name} has ggml type {number}, expected one of "
                f"{', '.join(kind.name for kind in TYPES.values())}; convert the file again"
            )
        kind = TYPES[number]
        if min(dimensions) < 1 or dimensions[0] % kind.block_values:
            raise self._corrupt(
                f"tensor {name} has dimensions {dimensions} as {kind.name}, expected positive ones "
                f"and rows of whole blocks of {kind.block_values}"
            )
        if offset % alignment:
            raise self._corrupt(
                f"tensor {name} starts at {offset}, expected multiples of {alignment}"
            )
        return tuple(reversed(dimensions)), kind, offset

    def _check_overlap(self, entries: dict[str, GgufEntry]) -> None:
        end, before = 0, ""
        for name, entry in sorted(entries.items(), key=lambda item: item[1].start):
            if entry.start < end:
                raise self._corrupt(f"tensors {before} and {name} overlap")
            end, before = entry.start + entry.num_bytes, name

    def _value(self, kind: int, key: str) -> Any:
        if kind == STRING:
            return self._string(key)
        if kind == ARRAY:
            return self._array(key)
        if kind not in SCALARS:
            raise self._corrupt(f"metadata {key} has type {kind}")
        return self._unpack(SCALARS[kind])

    def _array(self, key: str) -> Any:
        kind, count = self._unpack("I"), self._unpack("Q")
        if kind == STRING:
            return self._strings(count, key)
        if kind not in SCALARS:
            raise self._corrupt(f"metadata {key} is an array of type {kind}")
        dtype = np.dtype(f"<{SCALARS[kind]}") if kind != 7 else np.dtype(np.bool_)
        self._require(count * dtype.itemsize, f"{count} numbers of {key}")
        return np.frombuffer(self._take(count * dtype.itemsize), dtype=dtype)

    def _string(self, what: str, limit: int | None = None) -> str:
        length = self._unpack("Q")
        self._require(length, f"{what} of {length} bytes")
        if limit is not None and length > limit:
            raise self._corrupt(f"{what} has {length} bytes, expected at most {limit}")
        raw = self._take(length)
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError as error:
            raise self._corrupt(f"{what} is not UTF-8 at byte {error.start}") from error

    def _strings(self, count: int, key: str) -> list[str]:
        """`_string` many times over, in a tighter loop: vocabularies have 10^5 of them."""
        self._require(count * 8, f"{count} strings of {key}")
        data, at, end = self._data, self._at, len(self._data)
        found: list[str] = []
        try:
            for _ in range(count):
                start = at + 8
                at = start + int.from_bytes(data[at:start], "little")
                if at > end:
                    self._at = start
                    self._require(at - start, f"a string of {key}")
                found.append(data[start:at].decode("utf-8"))
        except UnicodeDecodeError as error:
            raise self._corrupt(f"a string of {key} is not UTF-8 at byte {error.start}") from error
        self._at = at
        return found

    def _unpack(self, form: str) -> Any:
        size = struct.calcsize(f"<{form}")
        return struct.unpack(f"<{form}", self._take(size))[0]

    def _take(self, count: int) -> bytes:
        self._require(count, "the header")
        start, self._at = self._at, self._at + count
        return self._data[start : self._at]

    def _require(self, count: int, what: str) -> None:
        left = len(self._data) - self._at
        if count > left:
            raise CheckpointError(
                f"{self._path}: {what} would take {count} bytes at byte {self._at}, {left} are "
                "left; the file is truncated or corrupt, fetch it again"
            )

    def _corrupt(self, problem: str) -> CheckpointError:
        return CheckpointError(f"{self._path}: {problem}; the file is corrupt, fetch it again")
