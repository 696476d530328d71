"""A checkpoint file as memory, read from disk on use."""

import mmap
from pathlib import Path

from rorqual.errors import CheckpointError


def map_file(path: Path, fewest_bytes: int, kind: str) -> mmap.mmap:
    """The file, read-only. CheckpointError if it cannot be read or holds less than a header.

    kind: what it should be, for the error, as in "a GGUF file".
    """
    try:
        with open(path, "rb") as file:
            size = path.stat().st_size
            if size < fewest_bytes:
                raise CheckpointError(f"{path}: {size} bytes, too short for {kind}; fetch it again")
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        raise CheckpointError(
            f"{path}: cannot be read ({error.strerror}); check that the file is there and that "
            "you may read it"
        ) from error
