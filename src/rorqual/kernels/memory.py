"""Memory that this process can still take before the machine swaps or its container is killed.

The least of what the machine has left (MemAvailable), what every control group above this process
leaves, and what the process's own limits (RLIMIT_AS, RLIMIT_DATA) leave. File pages of a control
group count as free: they are dropped, not swapped.
"""

import resource
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_ROOT: Final = Path("/")
_V1_UNLIMITED_BYTES: Final = 1 << 60  # version 1 writes "no limit" as a number near 2^63


@dataclass(frozen=True, slots=True)
class FreeMemory:
    """What is left, and what leaves no more."""

    num_bytes: int
    limit: str


def free_memory(root: Path = _ROOT) -> FreeMemory | None:
    """The tightest limit on this process; None where the system names none.

    root: the folder that holds proc and sys, for tests of machines that are not at hand.
    """
    found = [*_machine(root), *_control_groups(root), *_process(root)]
    return min(found, key=lambda one: one.num_bytes, default=None)


def available_bytes(root: Path = _ROOT) -> int | None:
    """Bytes that `free_memory` leaves; None where the system does not say."""
    found = free_memory(root)
    return None if found is None else found.num_bytes


def _machine(root: Path) -> Iterator[FreeMemory]:
    available = _keyed(root / "proc/meminfo").get("MemAvailable")
    if available is not None:
        yield FreeMemory(1024 * available, "the machine's MemAvailable")


def _process(root: Path) -> Iterator[FreeMemory]:
    status = _keyed(root / "proc/self/status")
    for name, limit, used in (
        ("RLIMIT_AS", resource.RLIMIT_AS, "VmSize"),
        ("RLIMIT_DATA", resource.RLIMIT_DATA, "VmData"),
    ):
        soft, _ = resource.getrlimit(limit)
        if soft != resource.RLIM_INFINITY and used in status:
            yield FreeMemory(max(0, soft - 1024 * status[used]), f"the process's {name}")


def _control_groups(root: Path) -> Iterator[FreeMemory]:
    """Of this process's group and every group above it, in version 2 and in version 1."""
    mount = root / "sys/fs/cgroup"
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, group = line.split(":", 2)
        if controllers == "":
            for folder in _upwards(mount, group):
                limits = [_number(folder / name) for name in ("memory.max", "memory.high")]
                yield from _group(folder, limits, "memory.current", "")
        elif "memory" in controllers.split(","):
            for folder in _upwards(mount / "memory", group):
                limit = _number(folder / "memory.limit_in_bytes")
                yield from _group(folder, [limit], "memory.usage_in_bytes", "total_")


def _upwards(mount: Path, group: str) -> Iterator[Path]:
    """A group's folder and its parents', down to the mount; those that are not visible left out."""
    folder = mount / group.lstrip("/")
    while folder != mount and mount in folder.parents:
        if folder.is_dir():
            yield folder
        folder = folder.parent
    yield mount


def _group(folder: Path, limits: list[int | None], usage: str, prefix: str) -> Iterator[FreeMemory]:
    known = [limit for limit in limits if limit is not None and limit < _V1_UNLIMITED_BYTES]
    used = _number(folder / usage)
    if not known or used is None:
        return
    stat = _keyed(folder / "memory.stat")
    files = stat.get(f"{prefix}inactive_file", 0) + stat.get(f"{prefix}active_file", 0)
    left = max(0, min(known) - max(0, used - files))
    yield FreeMemory(left, f"the container's limit of {min(known)} bytes ({folder})")


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""


def _number(path: Path) -> int | None:
    text = _text(path).strip()
    return int(text) if text.isdigit() else None


def _keyed(path: Path) -> dict[str, int]:
    """`Key: 12 kB` or `key 12` lines; others are left out."""
    found: dict[str, int] = {}
    for line in _text(path).splitlines():
        words = line.split()
        if len(words) >= 2 and words[1].isdigit():
            found[words[0].rstrip(":")] = int(words[1])
    return found
