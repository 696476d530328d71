"""Which of the host's files a confined program may read: the interpreter's, and no others.

Installed packages are left out even where they lie inside the standard library's folder: they may
hold what a program is graded against.
"""

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass

_LIBRARY_FOLDERS = ("/lib", "/lib64", "/usr/lib", "/usr/lib64")
_ZONES = "/usr/share/zoneinfo"
_HIDDEN_NAMES = ("site-packages", "dist-packages")
_DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom", "/dev/random")
_LOADERS = ("/lib64/ld-linux-x86-64.so.2", "/lib/ld-linux-aarch64.so.1")


@dataclass(frozen=True, slots=True)
class Visible:
    """Real paths. hidden lies within readable; executable is Node and the ELF loader, if any."""

    readable: tuple[str, ...]
    hidden: tuple[str, ...]
    devices: tuple[str, ...]
    executable: tuple[str, ...]


def visible_paths(node: str | None) -> Visible:
    """What this interpreter, started with -S, and Node where it is given, need to run."""
    # Without site, sys.path is the standard library.
    wanted = [*sys.path, *_LIBRARY_FOLDERS, _ZONES, *_mapped_libraries()]
    if node is not None:
        wanted.append(node)
    real = {os.path.realpath(path) for path in wanted if os.path.exists(path)}
    readable = tuple(sorted(p for p in real if not any(_is_inside(p, q) for q in real - {p})))
    loaders = [os.path.realpath(path) for path in _LOADERS if os.path.exists(path)]
    return Visible(
        readable=readable,
        hidden=tuple(sorted({h for path in readable for h in _package_folders(path)})),
        devices=tuple(path for path in _DEVICES if os.path.exists(path)),
        executable=() if node is None else (os.path.realpath(node), *loaders),
    )


def without_hidden(visible: Visible) -> tuple[str, ...]:
    """The readable paths as a list that can only allow: folders with a hidden part, entry by
    entry, since a Landlock rule cannot take back what a rule above it gave."""
    paths: list[str] = []
    for path in visible.readable:
        paths += _split_around(path, visible.hidden)
    return tuple(paths)


def _split_around(path: str, hidden: tuple[str, ...]) -> Iterator[str]:
    if path in hidden:
        return
    if not any(_is_inside(h, path) for h in hidden):
        yield path
        return
    for entry in sorted(os.listdir(path)):
        yield from _split_around(os.path.join(path, entry), hidden)


def _package_folders(path: str) -> Iterator[str]:
    """Folders of installed packages at most two levels down, where distributions put them."""
    for depth_one in _folders(path):
        if os.path.basename(depth_one) in _HIDDEN_NAMES:
            yield depth_one
        elif os.path.basename(depth_one).startswith("python"):
            yield from (p for p in _folders(depth_one) if os.path.basename(p) in _HIDDEN_NAMES)


def _folders(path: str) -> list[str]:
    if not os.path.isdir(path):
        return []
    with os.scandir(path) as entries:
        return [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]


def _mapped_libraries() -> set[str]:
    """Shared libraries this process has mapped: an interpreter built elsewhere has its own."""
    with open("/proc/self/maps", encoding="utf-8") as lines:
        paths = {line.split(maxsplit=5)[-1].strip() for line in lines if "/" in line}
    return {path for path in paths if ".so" in os.path.basename(path) and os.path.isfile(path)}


def _is_inside(path: str, folder: str) -> bool:
    return path.startswith(folder.rstrip("/") + "/")
