"""The layers, in the order a child puts them on; after the last one there is no way back."""

import os
import resource
import signal
from dataclasses import dataclass

from rorqual.sandbox import jail, kernel, landlock, seccomp
from rorqual.sandbox.visible import Visible

_FILE_BYTES = 8 << 20
_OPEN_FILES = 64
# In a user namespace of its own only the zygote and the run's supervisors count beside a run.
_TASKS_BESIDE = 8
# Node's private writable memory before the program's first byte: code, stacks of its threads.
_NODE_BYTES = 192 << 20


@dataclass(frozen=True, slots=True)
class Layers:
    """What a zygote found to work, made ready once for all its runs.

    readable are the paths for Landlock, None without it; the two filters are seccomp's common
    parts, None without it; user is whom to turn into (None: stay).
    """

    namespaces: bool
    readable: tuple[str, ...] | None
    python_filter: bytes | None
    node_filter: bytes | None
    user: int | None


@dataclass(frozen=True, slots=True)
class Bounds:
    """A run's limits as its child needs them."""

    seconds: float
    memory_bytes: int
    processes: int


def _set_limits(bounds: Bounds, layers: Layers, *, node: bool) -> None:
    """Resource limits, soft and hard alike.

    V8 reserves far more addresses than it uses, so Node's bound is on private writable memory
    (RLIMIT_DATA) beside its own heap limit; everything else is bounded by addresses (RLIMIT_AS).
    """
    if node:
        _limit(resource.RLIMIT_DATA, bounds.memory_bytes + _NODE_BYTES)
    else:
        _limit(resource.RLIMIT_AS, bounds.memory_bytes)
    _limit(resource.RLIMIT_CPU, int(bounds.seconds) + 2)
    _limit(resource.RLIMIT_FSIZE, _FILE_BYTES)
    _limit(resource.RLIMIT_NOFILE, _OPEN_FILES)
    _limit(resource.RLIMIT_CORE, 0)
    if layers.namespaces:
        _limit(resource.RLIMIT_NPROC, bounds.processes + _TASKS_BESIDE)
    elif layers.python_filter is None:
        _limit(resource.RLIMIT_NPROC, bounds.processes + _tasks_of_user())
    # Between the two, seccomp refuses processes and the memory limit bounds threads by their
    # stacks; a number would count the user's other programs too.


def confine(bounds: Bounds, layers: Layers, visible: Visible, scratch: str, *, node: bool) -> None:
    """Put every layer on this process. Landlock comes before seccomp, which refuses it."""
    if layers.user is not None:
        jail.become(layers.user)
    _set_limits(bounds, layers, node=node)
    kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
    kernel.drop_capabilities()
    kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
    os.chdir(scratch)
    os.umask(0o077)
    if layers.readable is not None:
        landlock.restrict(
            readable=layers.readable,
            devices=visible.devices,
            executable=visible.executable if node else (),
            writable=scratch,
        )
    common = layers.node_filter if node else layers.python_filter
    if common is not None:
        seccomp.install(common, os.getpid())


def _limit(which: int, value: int) -> None:
    _, hard = resource.getrlimit(which)
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(which, (value, value))


def _tasks_of_user() -> int:
    """Threads that this user runs now, by /proc."""
    user, tasks = os.getuid(), 0
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                if os.stat(f"/proc/{name}").st_uid == user:
                    tasks += len(os.listdir(f"/proc/{name}/task"))
            except FileNotFoundError:
                continue
    return tasks
