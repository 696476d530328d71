"""Reads the members of what the registries deliver (.tgz, .whl, .deb) without unpacking to disk.

Nothing is ever written at a path that an archive names, so there is no path to escape from.
"""

import os
import re
import subprocess
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from rorqual.errors import DataError

_SKIPPED_FOLDERS = frozenset({"site-packages", "dist-packages", "__pycache__"})


class Member(NamedTuple):
    """One file of an archive: its path inside, and its bytes."""

    name: str
    data: bytes


def read_members(path: Path, pattern: str) -> Iterator[Member]:
    """The files of an archive or folder whose inner path matches `pattern` (re.search)."""
    wanted = re.compile(pattern)
    if path.is_dir():
        yield from _folder_members(path, wanted)
        return
    try:
        if path.suffix == ".deb":
            yield from _deb_members(path, wanted)
        elif path.suffix in (".whl", ".zip"):
            yield from _zip_members(path, wanted)
        else:
            with tarfile.open(path, "r:*") as archive:
                yield from _tar_members(archive, wanted)
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error) as error:
        raise DataError(
            f"{path}: not a whole archive ({error}); delete it and run `rorqual data fetch` again"
        ) from error


def _folder_members(folder: Path, wanted: re.Pattern[str]) -> Iterator[Member]:
    for directory, folders, files in os.walk(folder):
        folders[:] = sorted(set(folders) - _SKIPPED_FOLDERS)
        for file in sorted(files):
            path = Path(directory, file)
            name = path.relative_to(folder).as_posix()
            if wanted.search(name):
                yield Member(name, path.read_bytes())


def _zip_members(path: Path, wanted: re.Pattern[str]) -> Iterator[Member]:
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            if wanted.search(name) and not name.endswith("/"):
                yield Member(name, archive.read(name))


def _tar_members(archive: tarfile.TarFile, wanted: re.Pattern[str]) -> Iterator[Member]:
    for info in archive:
        name = info.name.removeprefix("./")
        if info.isfile() and wanted.search(name):
            stream = archive.extractfile(info)
            assert stream is not None, "a regular file has content"
            yield Member(name, stream.read())


def _deb_members(path: Path, wanted: re.Pattern[str]) -> Iterator[Member]:
    """`dpkg-deb` knows every compression that Debian has used; it is there wherever apt is."""
    command = ["dpkg-deb", "--fsys-tarfile", str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        with tarfile.open(fileobj=process.stdout, mode="r|") as archive:
            yield from _tar_members(archive, wanted)
    if process.returncode:
        raise DataError(
            f"{path}: dpkg-deb stopped with code {process.returncode}; "
            "delete the file and run `rorqual data fetch` again"
        )
