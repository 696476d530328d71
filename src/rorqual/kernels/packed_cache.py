"""Packed weights kept in the user's cache, so that a second start of a model maps them.

An entry is named by a digest of all that determines its bytes: the checkpoint's files (path, size,
times of change), the network's config, the precision, the instruction set and the library that
packed. So it never needs to be told that it is old: what no longer fits is not found, and goes when
the folder has reached its bound, least recently used first.

Nothing here can fail a start. What cannot be read or written is one warning, and weights packed
anew.
"""

import hashlib
import json
import os
import platform
import shutil
import threading
import time
import warnings
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rorqual.config import DenseConfig, ModelConfig
from rorqual.errors import CheckpointError
from rorqual.kernels.library import Library
from rorqual.kernels.packed_file import PackedFile, Piece, write_packed
from rorqual.kernels.runtime_layout import Precision
from rorqual.units import format_bytes

PACKING_VERSION: Final = 2
"""Raise it when Python lays weights out differently; the library's own changes count by themselves.
"""
FEWEST_BYTES: Final = 32 << 20
"""Smaller models are packed within some 50 ms: not worth a file."""

_SUFFIX: Final = ".packed"
_SPARE_BYTES: Final = 1 << 30  # of the disk that stay free
_STALE_SECONDS: Final = 3600.0  # after which a file that somebody began to write was given up


@dataclass(frozen=True, slots=True)
class PackedCache:
    """The entries of one model in a folder of all.

    weights: what changes when the checkpoint does. about: its path, for whoever looks at an entry.
    max_bytes: of the whole folder.
    """

    folder: Path
    max_bytes: int
    weights: str
    about: str
    fewest_bytes: int = FEWEST_BYTES
    spare_bytes: int = _SPARE_BYTES

    def entry(
        self, config: ModelConfig | DenseConfig, precision: Precision, library: Library
    ) -> "PackedEntry":
        """Where the weights of such a runtime are kept, or would be."""
        packer = os.stat(library.handle._name)
        parts = (
            PACKING_VERSION, self.weights, config.model_dump_json(), precision, library.isa,
            packer.st_size, packer.st_mtime_ns, platform.machine(),
        )  # fmt: skip
        key = hashlib.sha256(json.dumps(parts).encode()).hexdigest()
        return PackedEntry(self, key, self.folder / f"{key[:40]}{_SUFFIX}", library)

    def make_room(self, num_bytes: int, but: Path) -> None:
        """Remove entries, least recently used first, and what killed processes left behind."""
        entries: list[tuple[float, int, Path]] = []
        for path in self.folder.iterdir():
            with suppress(FileNotFoundError):  # another process may be at the same work
                status = path.stat()
                if path.suffix == _SUFFIX and path != but:
                    entries.append((status.st_mtime, status.st_size, path))
                elif path.name.startswith(".") and status.st_mtime < time.time() - _STALE_SECONDS:
                    path.unlink()
        total = num_bytes + sum(size for _, size, _ in entries)
        for _, size, path in sorted(entries):
            if total <= self.max_bytes:
                break
            path.unlink(missing_ok=True)
            total -= size


@dataclass(frozen=True, slots=True)
class PackedEntry:
    """One entry: the packed weights of one model in one precision."""

    cache: PackedCache
    key: str
    path: Path
    library: Library

    def open(self, sizes: Sequence[int]) -> PackedFile | None:
        """The kept arrays of these sizes; None if there are none, or after a warning if they are
        damaged.
        """
        if sum(sizes) < self.cache.fewest_bytes:
            return None
        try:
            file = PackedFile(self.path, self.key, sizes, self.library)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            _warn(f"the packed weights cannot be read ({error}): packing them anew")
            return None
        except CheckpointError as error:
            _warn(f"the packed weights are damaged ({error}): packing them anew")
            self._remove()
            return None
        with suppress(OSError):
            os.utime(self.path)  # used now; a folder that cannot be written still serves
        return file

    def check_beside(self, file: PackedFile) -> None:
        """Check in a thread what opening left out; wrong blocks make the entry go."""
        if file.has_rest:
            threading.Thread(target=self._check_rest, args=(file,), daemon=True).start()

    def keep(self, pieces: Sequence[Piece]) -> None:
        """Write the arrays for the next start; a warning if that cannot be done."""
        needed = sum(piece.num_bytes for piece in pieces)
        if not self.cache.fewest_bytes <= needed <= self.cache.max_bytes:
            return
        folder = self.cache.folder
        temporary = folder / f".{self.path.stem}-{os.getpid()}-{threading.get_ident()}"
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self.cache.make_room(needed, self.path)
            free = shutil.disk_usage(folder).free
            if free < needed + self.cache.spare_bytes:
                _warn(
                    f"{folder}: {format_bytes(needed)} of packed weights are not kept, "
                    f"{format_bytes(free)} of disk are free, of which "
                    f"{format_bytes(self.cache.spare_bytes)} stay so; free space, or set "
                    "packed_cache=off"
                )
                return
            write_packed(temporary, self.key, self.cache.about, pieces, self.library)
            os.replace(temporary, self.path)
        except OSError as error:
            _warn(
                f"{folder}: packed weights cannot be kept ({error}), the next start packs them "
                "again; free space, make the folder writable, or set packed_cache=off"
            )
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)

    def _check_rest(self, file: PackedFile) -> None:
        file.check_rest()
        if file.failure is not None:
            self._remove()

    def _remove(self) -> None:
        with suppress(OSError):
            self.path.unlink(missing_ok=True)


def _warn(message: str) -> None:
    warnings.warn(message, RuntimeWarning, stacklevel=4)
