"""Reading weights with numpy alone: the half of this room that serving needs.

Arrays are views of memory-mapped files where the stored dtype allows it, so opening a checkpoint
reads only headers, and reading a tensor touches only its own pages.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rorqual.checkpoint.atomic import resolve_directory
from rorqual.checkpoint.dtypes import to_float32
from rorqual.checkpoint.fp8 import SCALE_SUFFIX, dequantize_blocks, weight_block_size
from rorqual.checkpoint.index import open_files
from rorqual.checkpoint.mapped import FileIdentity
from rorqual.checkpoint.safetensors_file import TensorEntry
from rorqual.errors import CheckpointError

FP8 = "F8_E4M3"


class CheckpointReader:
    """The tensors of a model directory or of one .safetensors file, by published name."""

    def __init__(self, path: Path):
        self.path = resolve_directory(path)
        self._files = open_files(self.path)
        directory = self.path if self.path.is_dir() else self.path.parent
        self._block = weight_block_size(directory)

    def names(self) -> list[str]:
        """All tensors, sorted; the scales of FP8 weights are part of their weight, not listed."""
        return sorted(name for name in self._files if not self._is_scale(name))

    def identity(self) -> list[FileIdentity]:
        """Of the files that hold them; FP8 weights also depend on the size of a block."""
        files = sorted({file.identity for file in self._files.values()})
        return [*files, ("weight_block_size", *self._block, 0)]

    def shape(self, name: str) -> tuple[int, ...]:
        """The tensor's shape."""
        return self._entry(name).shape

    def dtype(self, name: str) -> str:
        """The stored dtype in safetensors' spelling: F32, BF16, F8_E4M3, ..."""
        return self._entry(name).dtype

    def where(self, name: str) -> str:
        """`file: tensor name`, the start of every error about a tensor."""
        return f"{self._files[name].path}: tensor {name}"

    def read_raw(self, name: str) -> NDArray[np.generic]:
        """Values as stored, read-only; bfloat16 as uint16 bits and float8 as uint8 bits."""
        self._entry(name)
        return self._files[name].read_raw(name)

    def read(self, name: str) -> NDArray[np.float32]:
        """The weight in float32, FP8 dequantised; read-only where it is a view of the file."""
        values = to_float32(self.read_raw(name), self.dtype(name), self.where(name))
        if self.dtype(name) != FP8:
            return values
        scale = name + SCALE_SUFFIX
        if scale not in self._files:
            raise CheckpointError(
                f"{self.where(name)} is FP8 without {scale}; fetch the checkpoint again or "
                "convert it to bfloat16"
            )
        scales = to_float32(self.read_raw(scale), self.dtype(scale), self.where(scale))
        return dequantize_blocks(values, scales, self._block, self.where(name))

    def _entry(self, name: str) -> TensorEntry:
        if name not in self._files:
            raise CheckpointError(
                f"{self.path}: no tensor {name} among {len(self._files)}; the checkpoint is "
                "incomplete or of another architecture"
            )
        return self._files[name].entries[name]

    def _is_scale(self, name: str) -> bool:
        weight = name.removesuffix(SCALE_SUFFIX)
        return weight != name and weight in self._files and self.dtype(weight) == FP8
