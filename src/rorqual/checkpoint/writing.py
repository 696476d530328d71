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

from rorqual.checkpoint.dtypes import CONTAINERS
from rorqual.checkpoint.safetensors_file import LENGTH_BYTES

ALIGNMENT = 8


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
