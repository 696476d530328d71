"""A checkpoint file as memory, read from disk on use."""

import mmap
import os
from pathlib import Path

from rorqual.errors import CheckpointError

FileIdentity = tuple[str, int, int, int]
"""Path, bytes, and when content and inode last changed (ns)."""


class MappedFile(mmap.mmap):
    """A mapped file that knows which one it is, even where another has taken its name since.

    NOTE: the inode's time of change counts because tools that copy times cannot set it.
    """

    identity: FileIdentity


def map_file(path: Path, fewest_bytes: int, kind: str) -> MappedFile:
    """The file, read-only. CheckpointError if it cannot be read or holds less than a header.

    kind: what it should be, for the error, as in "a GGUF file".
    """
    try:
        with open(path, "rb") as file:
            status = os.fstat(file.fileno())
            size = status.st_size
            if size < fewest_bytes:
                raise CheckpointError(f"{path}: {size} bytes, too short for {kind}; fetch it again")
            mapped = MappedFile(file.fileno(), 0, access=mmap.ACCESS_READ)
            mapped.identity = str(path.resolve()), size, status.st_mtime_ns, status.st_ctime_ns
            return mapped
    except OSError as error:
        raise CheckpointError(
            f"{path}: cannot be read ({error.strerror}); check that the file is there and that "
            "you may read it"
        ) from error
