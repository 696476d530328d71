"""`manifest.json`: what each corpus is made of, under which licence, and how much there is.

It is rewritten whole and atomically after each source, so an interrupted fetch loses at most the
source it was working on.
"""

import errno
import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from rorqual.errors import CapacityError, DataError

MANIFEST_NAME = "manifest.json"
_FORMAT = 1


@dataclass(frozen=True, slots=True)
class Entry:
    """One source. Byte counts are of UTF-8 text; `corpus_sha256` is of `corpus/<name>.jsonl`."""

    name: str
    language: str
    registry: str
    package: str
    version: str
    sha256: str | None
    licence: str
    attribution: str
    recipe: str
    documents: int
    bytes: int
    held_out_documents: int
    held_out_bytes: int
    duplicates: int
    near_duplicates: int
    corpus_bytes: int
    corpus_sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """The sources of one data folder, by name."""

    root: Path
    sources: dict[str, Entry]

    def corpus_path(self, name: str) -> Path:
        """Where the documents of a source lie."""
        return self.root / "corpus" / f"{name}.jsonl"

    def is_whole(self, name: str) -> bool:
        """Whether the corpus file of a source is there at its full length."""
        path = self.corpus_path(name)
        return path.is_file() and path.stat().st_size == self.sources[name].corpus_bytes

    def record(self, entry: Entry) -> None:
        """Adds or replaces one source and writes the file."""
        self.sources[entry.name] = entry
        sources = {name: asdict(self.sources[name]) for name in sorted(self.sources)}
        text = json.dumps({"format": _FORMAT, "sources": sources}, ensure_ascii=False, indent=1)
        write_atomically(self.root / MANIFEST_NAME, text + "\n")


@contextmanager
def exclusive(root: Path) -> Iterator[None]:
    """One writer at a time in a data folder; a second one (another rank, say) waits its turn.

    The lock goes with its process, so a killed one leaves nothing to clean up. A full disk or a
    folder that may not be written is an error of one line.
    """
    try:
        root.mkdir(parents=True, exist_ok=True)
        with (root / ".lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise CapacityError(
                f"{root}: the disk is full; free some space and run the same command again, what "
                "was finished is kept"
            ) from error
        if error.errno in (errno.EACCES, errno.EROFS):
            raise DataError(f"{root}: may not be written; choose another folder") from error
        raise


def write_atomically(path: Path, text: str) -> None:
    """The new file is either there whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def load_manifest(root: Path) -> Manifest:
    """The manifest of a data folder; empty if nothing was ever fetched or added."""
    path = root / MANIFEST_NAME
    if not path.exists():
        return Manifest(root, {})
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != _FORMAT:
            raise ValueError(f"format {content['format']}, expected {_FORMAT}")
        sources = {name: Entry(**fields) for name, fields in content["sources"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path}: not a manifest ({error}); delete it and run `rorqual data fetch` or "
            "`rorqual data add` again"
        ) from error
    return Manifest(root, sources)
