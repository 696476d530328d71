"""A GGUF model in one file or in shards `NAME-00001-of-00003.gguf`, as llama.cpp splits them."""

import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rorqual.checkpoint.gguf_file import GgufEntry, GgufFile
from rorqual.checkpoint.mapped import FileIdentity
from rorqual.errors import CheckpointError

MAX_SHARDS = 10_000
_SHARD = re.compile(r"(?P<stem>.*)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf")


class GgufReader:
    """Metadata and tensors of all shards; metadata are those of the first."""

    def __init__(self, path: Path):
        first = GgufFile(path)
        files = [first, *(GgufFile(shard) for shard in _other_shards(path, first.metadata))]
        self.metadata: dict[str, Any] = first.metadata
        self.entries: dict[str, GgufEntry] = {}
        self._files: dict[str, GgufFile] = {}
        for file in files:
            for name, entry in file.entries.items():
                if name in self.entries:
                    raise CheckpointError(
                        f"{file.where(name)} is also in {self._files[name].path}; the shards do "
                        "not belong together"
                    )
                self.entries[name], self._files[name] = entry, file

    def identity(self) -> list[FileIdentity]:
        """Of the shards."""
        return sorted({file.identity for file in self._files.values()})

    def where(self, name: str) -> str:
        """`file: tensor name`, the start of every error about a tensor."""
        return self._files[name].where(name)

    def read(self, name: str, index: int | None = None) -> NDArray[np.float32]:
        """A tensor in float32, or with `index` the slice `tensor[index]` alone."""
        return self._files[name].read(name, index)


def _other_shards(path: Path, metadata: dict[str, Any]) -> list[Path]:
    count = metadata.get("split.count", 1)
    if not isinstance(count, int) or not 0 <= count <= MAX_SHARDS:
        raise CheckpointError(
            f"{path}: split.count={count!r}, expected at most {MAX_SHARDS}; the file is corrupt"
        )
    if count <= 1:
        return []
    match = _SHARD.fullmatch(path.name)
    if match is None or int(match["count"]) != count:
        raise CheckpointError(
            f"{path}: one of {count} shards, expected the name ...-00001-of-{count:05d}.gguf; "
            "give the files the names they were published with"
        )
    if int(match["number"]) != 1:
        raise CheckpointError(
            f"{path}: shard {match['number']} of {count}; give the first one, "
            f"{match['stem']}-00001-of-{count:05d}.gguf"
        )
    shards = [
        path.with_name(f"{match['stem']}-{number:05d}-of-{count:05d}.gguf")
        for number in range(2, count + 1)
    ]
    missing = next((shard for shard in shards if not shard.is_file()), None)
    if missing is not None:
        raise CheckpointError(f"{missing}: missing, one of {count} shards; fetch it too")
    return shards
