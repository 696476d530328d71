"""Directories that are either whole or absent, whatever kills the process.

A save goes into a temporary sibling `.NAME.saving-PID`; once its files are on disk (fsync), the old
directory is renamed to `.NAME.previous`, the new one takes its name, and the old one is removed
(under the temporary name, so that `.NAME.previous` is always whole). Killed between the first two
renames, only `.NAME.previous` is left: readers find it, and the next save renames it back. Whatever
a killed save leaves behind, the next save of that name clears away.

NOTE: one process at a time may save a given name; readers may come at any time.
"""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rorqual.errors import CapacityError, CheckpointError

_FULL = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def atomic_directory(path: Path) -> Iterator[Path]:
    """Yield an empty directory to fill; it becomes `path` when the block ends without an error.

    On an error the directory at `path` stays as it was and the new one is removed. A full disk is
    a CapacityError, any other operating system error a CheckpointError.
    """
    path = path.resolve()
    temporary = path.parent / f"{_temporary_prefix(path)}{os.getpid()}"
    try:
        _prepare(path, temporary)
        temporary.mkdir()
        yield temporary
        _sync_tree(temporary)
        _replace(path, temporary)
    except BaseException as error:
        shutil.rmtree(temporary, ignore_errors=True)
        _raise_named(error, path, "directory")
        raise


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a file name to write to; it becomes `path` when the block ends without an error."""
    path = path.resolve()
    temporary = path.parent / f"{_temporary_prefix(path)}{os.getpid()}"
    if path.is_dir():
        raise CheckpointError(f"{path}: is a directory, expected a file or nothing; move it away")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for left_behind in path.parent.glob(f"{_temporary_prefix(path)}*"):
            left_behind.unlink()
        yield temporary
        _sync(temporary)
        os.replace(temporary, path)
        _sync(path.parent)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        _raise_named(error, path, "place")
        raise


def _raise_named(error: BaseException, path: Path, what: str) -> None:
    """A full disk or another operating system error as one that names the path; else nothing."""
    if _is_disk_full(error):
        raise CapacityError(
            f"{path}: the disk is full, nothing was saved and what was there is kept; free "
            "space or save elsewhere"
        ) from error
    if isinstance(error, OSError):
        raise CheckpointError(
            f"{path}: cannot be saved ({error}), what was there is kept; choose a {what} "
            "that can be written"
        ) from error


def resolve_directory(path: Path) -> Path:
    """`path`, or the directory kept aside by a save that was killed while it replaced `path`."""
    aside = _aside(path.resolve())
    return aside if aside.is_dir() and not path.exists() else path


def _temporary_prefix(path: Path) -> str:
    return f".{path.name}.saving-"


def _aside(path: Path) -> Path:
    return path.parent / f".{path.name}.previous"


def _prepare(path: Path, temporary: Path) -> None:
    """Make the parent, undo a half-done replacement, clear what a killed save left behind."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and not path.is_dir():
        raise CheckpointError(f"{path}: is a file, expected a directory or nothing; move it away")
    for sibling in path.parent.iterdir():
        if sibling.name.startswith(_temporary_prefix(path)):
            shutil.rmtree(sibling)
    if _aside(path).is_dir():
        if path.exists():
            _discard(_aside(path), temporary)
        else:
            os.rename(_aside(path), path)


def _replace(path: Path, temporary: Path) -> None:
    """Put `temporary` at `path`; a failing rename puts the old directory back."""
    aside = _aside(path)
    replaces = path.exists()
    if replaces:
        os.rename(path, aside)
    try:
        os.rename(temporary, path)
    except OSError:
        if replaces:
            os.rename(aside, path)
        raise
    _sync(path.parent)
    if replaces:
        _discard(aside, temporary)


def _discard(aside: Path, temporary: Path) -> None:
    """Remove the old directory; what cannot be removed now, the next save clears away."""
    os.rename(aside, temporary)
    shutil.rmtree(temporary, ignore_errors=True)


def _sync_tree(directory: Path) -> None:
    for folder, _, files in os.walk(directory):
        for file in files:
            _sync(Path(folder) / file)
        _sync(Path(folder))


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _is_disk_full(error: BaseException | None) -> bool:
    """Whether a full disk is the error or its cause (writers below may have wrapped it)."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _FULL:
            return True
        error = error.__cause__
    return False
