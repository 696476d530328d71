"""Removing a folder that a hostile program filled."""

import os

_FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def remove_tree(folder: str) -> None:
    """Remove a folder whatever its depth, modes and links; nobody else may be writing to it.

    `shutil.rmtree` recurses and holds a descriptor a level, so a few thousand nested folders stop
    it. This walks with one descriptor, down by name and up by "..", and never follows a link.
    """
    here = os.open(folder, _FOLDER_FLAGS)
    names: list[str] = []
    pending = [_empty_of_files(here)]
    while True:
        if pending[-1]:
            name = pending[-1].pop()
            os.chmod(name, 0o700, dir_fd=here)
            here = _move(here, name)
            names.append(name)
            pending.append(_empty_of_files(here))
        elif names:
            pending.pop()
            here = _move(here, "..")
            os.rmdir(names.pop(), dir_fd=here)
        else:
            break
    os.close(here)
    os.rmdir(folder)


def _move(here: int, name: str) -> int:
    there = os.open(name, _FOLDER_FLAGS, dir_fd=here)
    os.close(here)
    return there


def _empty_of_files(here: int) -> list[str]:
    """Remove everything but folders, and name those."""
    folders: list[str] = []
    with os.scandir(here) as entries:
        found = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    for name, is_folder in found:
        if is_folder:
            folders.append(name)
        else:
            os.unlink(name, dir_fd=here)
    return folders
