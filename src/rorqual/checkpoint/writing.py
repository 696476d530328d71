"""Writing safetensors files one tensor at a time.

The format needs every size before the first byte of data but not the data themselves, so tensors
are produced (cast, sliced out of a stack, gathered) as they are written, and saving takes the
memory of one tensor rather than of one more model.
"""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rorqual.checkpoint.dtypes import CONTAINERS
from rorqual.checkpoint.index import INDEX_FILE, SINGLE_FILE
from rorqual.checkpoint.safetensors_file import LENGTH_BYTES

ALIGNMENT = 8
MAX_SHARD_BYTES = 4 * 2**30
METADATA = {"format": "pt"}  # transformers refuses files without it


@dataclass(frozen=True, slots=True)
class TensorSource:
    """A tensor to write: safetensors dtype, shape, and a function that gives its bytes (uint8)."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    read: Callable[[], memoryview]

    @property
    def num_bytes(self) -> int:
        """Bytes on disk."""
        return math.prod(self.shape) * CONTAINERS[self.dtype].itemsize


def write_safetensors(
    path: Path, sources: Sequence[TensorSource], metadata: dict[str, str]
) -> None:
    """Write one file. Wide dtypes come first, so every tensor starts on a multiple of its width."""
    ordered = sorted(sources, key=lambda s: (-CONTAINERS[s.dtype].itemsize, s.name))
    header: dict[str, object] = {"__metadata__": metadata}
    offset = 0
    for source in ordered:
        end = offset + source.num_bytes
        header[source.name] = {
            "dtype": source.dtype,
            "shape": list(source.shape),
            "data_offsets": [offset, end],
        }
        offset = end
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(LENGTH_BYTES, "little"))
        file.write(text)
        for source in ordered:
            data = source.read()
            assert data.nbytes == source.num_bytes, f"{source.name}: wrote {data.nbytes} bytes"
            file.write(data)


def write_shards(
    directory: Path, sources: Sequence[TensorSource], max_shard_bytes: int = MAX_SHARD_BYTES
) -> None:
    """One file if everything fits, else shards of at most that size (a tensor is never split)."""
    shards: list[list[TensorSource]] = [[]]
    filled_bytes = 0
    for source in sources:
        if shards[-1] and filled_bytes + source.num_bytes > max_shard_bytes:
            shards.append([])
            filled_bytes = 0
        shards[-1].append(source)
        filled_bytes += source.num_bytes
    if len(shards) == 1:
        write_safetensors(directory / SINGLE_FILE, shards[0], METADATA)
        return
    weight_map: dict[str, str] = {}
    for number, shard in enumerate(shards, start=1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        write_safetensors(directory / file, shard, METADATA)
        weight_map |= {source.name: file for source in shard}
    total_bytes = sum(source.num_bytes for source in sources)
    index = {"metadata": {"total_size": total_bytes}, "weight_map": weight_map}
    write_json(directory / INDEX_FILE, index)


def write_json(path: Path, value: dict[str, Any]) -> None:
    """A JSON file as people read it."""
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
