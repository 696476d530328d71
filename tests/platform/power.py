"""A power cut for a SQLite file: undoes what `unsynced.c` saw written since the last fsync.

A process killed by SIGKILL loses nothing that it wrote, so a kill alone says nothing about power.
The preloaded library keeps the writes that no fsync has confirmed. A power cut may lose all of them
(`keep=0`), or keep some sectors and lose others in any order, as a disk with a cache does
(`0 < keep < 1`). Shared memory (`-shm`) is gone in any case.
"""

import random
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from tests.conftest import IN_CI

_HEAD = struct.Struct("=qqq")
_SECTOR_BYTES = 512


@pytest.fixture(scope="session")
def unsynced_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled journal of unsynced writes; a missing compiler fails in CI."""
    compiler = shutil.which("cc")
    if compiler is None:
        message = "no C compiler; install gcc"
        pytest.fail(message) if IN_CI else pytest.skip(message)
    library = tmp_path_factory.mktemp("unsynced") / "unsynced.so"
    source = Path(__file__).with_name("unsynced.c")
    command = [compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-ldl"]
    subprocess.run(command, check=True)
    return library


def cut_power(database: Path, rng: random.Random, *, keep: float) -> int:
    """Takes the files back to what was synced, plus a part `keep` of the sectors written since.

    Returns how many unsynced writes there were.
    """
    num_writes = 0
    for path in (database, database.with_name(database.name + "-wal")):
        journal = path.with_name(path.name + ".unsynced")
        if not journal.exists():
            continue
        writes = _read_journal(journal.read_bytes())
        num_writes += len(writes)
        content = bytearray(path.read_bytes())
        for offset, size_before, old, _ in reversed(writes):
            content[offset : offset + len(old)] = old
            del content[size_before:]
        for offset, _, _, new in writes:
            for start in range(0, len(new), _SECTOR_BYTES):
                if rng.random() < keep:
                    _put(content, offset + start, new[start : start + _SECTOR_BYTES])
        path.write_bytes(content)
        journal.unlink()
    database.with_name(database.name + "-shm").unlink(missing_ok=True)
    return num_writes


def _read_journal(journal: bytes) -> list[tuple[int, int, bytes, bytes]]:
    writes: list[tuple[int, int, bytes, bytes]] = []
    place = 0
    while place + _HEAD.size <= len(journal):
        offset, length, size_before = _HEAD.unpack_from(journal, place)
        body = place + _HEAD.size
        if length < 0 and offset == size_before:  # "truncated" to the size it had
            place = body
            continue
        assert length >= 0, "SQLite truncated a file; this model of a power cut does not cover that"
        place = body + 2 * length
        if place > len(journal):  # killed while noting it: the write itself did not happen
            break
        old, new = journal[body : body + length], journal[body + length : place]
        writes.append((offset, size_before, old, new))
    return writes


def _put(content: bytearray, offset: int, new: bytes) -> None:
    if len(content) < offset:
        content.extend(bytes(offset - len(content)))
    content[offset : offset + len(new)] = new
