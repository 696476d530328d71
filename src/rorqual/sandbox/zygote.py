"""The small process that every run is forked from, and the supervisor between the two.

A zygote is a fresh interpreter without site, environment or threads, started by the parent once
per worker. It enters the jail, then forks a supervisor for each run it is asked for; the supervisor
makes the run's process table and folder, forks the child that puts on the layers, and kills it at
the deadline or when the parent says so (or dies). Neither ever reads a byte the candidate wrote.
"""

import contextlib
import gc
import json
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

from rorqual.sandbox import harness, jail, kernel, landlock, seccomp
from rorqual.sandbox.confine import Bounds, Layers, confine
from rorqual.sandbox.levels import SandboxLevel
from rorqual.sandbox.scratch import remove_tree
from rorqual.sandbox.visible import Visible, visible_paths, without_hidden

CHANNEL = 3
NUM_DESCRIPTORS = 5
_MESSAGE_BYTES = 1 << 16
# Without it Node stops where it may not read the machine's OpenSSL settings.
_NODE_ENVIRONMENT = {"OPENSSL_CONF": "/dev/null"}


@dataclass(frozen=True, slots=True)
class Zygote:
    """What every run of this worker shares."""

    folder: str
    node: str | None
    node_harness: str
    visible: Visible
    layers: Layers


def main() -> None:
    """Serve runs until the parent closes the control socket."""
    settings = json.loads(sys.argv[1])
    control = socket.socket(fileno=settings["control"])
    os.environ.clear()
    sys.argv = ["program.py"]
    zygote, found = _prepare(settings)
    control.send(json.dumps(found).encode())
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # supervisors are reaped by the kernel
    gc.collect()
    gc.freeze()
    number = 0
    while True:
        message, descriptors, _, _ = socket.recv_fds(control, _MESSAGE_BYTES, NUM_DESCRIPTORS)
        if not message:
            break
        number += 1
        if os.fork() == 0:
            try:
                control.close()
                _supervise(zygote, json.loads(message), descriptors, number)
            finally:
                os._exit(1)  # whatever happened, this copy must not serve as a zygote
        for descriptor in descriptors:
            os.close(descriptor)
    if not zygote.layers.namespaces:
        with contextlib.suppress(OSError):
            os.rmdir(zygote.folder)


def _prepare(settings: dict[str, Any]) -> tuple[Zygote, dict[str, str]]:
    """Try each layer in a child, enter those that hold; what was found is "" for a success."""
    visible = visible_paths(settings["node"])
    folder: str = settings["folder"]
    most = SandboxLevel(settings["at_most"])

    def try_jail() -> None:
        jail.enter(folder, visible)
        jail.enter_run()
        _finish(os.fork())

    def try_user() -> None:
        jail.become(jail.NOBODY)
        for path in visible.readable:
            if not os.access(path, os.R_OK):
                raise PermissionError(f"user {jail.NOBODY} cannot read {path}")

    def try_seccomp() -> None:
        kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
        seccomp.install(seccomp.common_part(may_exec=True), os.getpid())

    not_asked = "not asked for"
    found = {
        "seccomp": not_asked if most < SandboxLevel.LANDLOCK_SECCOMP else _tried(try_seccomp),
        "landlock": not_asked if most < SandboxLevel.LANDLOCK_SECCOMP else _tried(_try_landlock),
        "namespaces": not_asked if most < SandboxLevel.NAMESPACES else _tried(try_jail),
        "user": _tried(try_user) if os.geteuid() == 0 else "not started as root",
    }
    namespaces = not found["namespaces"]
    readable = visible.readable if namespaces else without_hidden(visible)
    if namespaces:
        jail.enter(folder, visible)
    kernel.empty_bounding_set()
    has_seccomp = not found["seccomp"]
    layers = Layers(
        namespaces=namespaces,
        readable=None if found["landlock"] else readable,
        python_filter=seccomp.common_part(may_exec=False) if has_seccomp else None,
        node_filter=seccomp.common_part(may_exec=True) if has_seccomp else None,
        user=jail.NOBODY if not namespaces and not found["user"] else None,
    )
    return Zygote(folder, settings["node"], settings["node_harness"], visible, layers), found


def _try_landlock() -> None:
    kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
    landlock.restrict(readable=(), devices=(), executable=(), writable="/")


def _tried(attempt: Callable[[], None]) -> str:
    """Run an attempt in a child: "" if it held, else the reason in words."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        try:
            attempt()
        except OSError as error:
            os.write(writer, f"{error.strerror or error}"[:200].encode() or b"refused")
            os._exit(1)
        os._exit(0)
    os.close(writer)
    with open(reader, "rb") as stream:
        reason = stream.read().decode(errors="replace")
    _, status = os.waitpid(child, 0)
    return reason or ("" if status == 0 else f"died with status {status}")


def _finish(child: int) -> None:
    """End a child that only had to be made."""
    if child == 0:
        os._exit(0)
    if os.waitpid(child, 0)[1] != 0:
        raise OSError("a process in a new process table died")


def _supervise(
    zygote: Zygote, job: dict[str, Any], descriptors: list[int], number: int
) -> NoReturn:
    """Run one job to its end, report on its control socket, leave nothing behind."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    control = socket.socket(fileno=descriptors[-1])
    scratch = jail.SCRATCH
    failure_reader, failure_writer = os.pipe()
    if zygote.layers.namespaces:
        jail.enter_run()
    else:
        kernel.prctl(kernel.PR_SET_CHILD_SUBREAPER, 1)
        scratch = os.path.join(zygote.folder, f"run-{number}")
        os.mkdir(scratch, 0o700)
        if zygote.layers.user is not None:
            os.chown(scratch, zygote.layers.user, zygote.layers.user)
    child = os.fork()
    if child == 0:
        _be_candidate(zygote, job, descriptors, scratch, failure_writer)
    with contextlib.suppress(OSError):
        os.setpgid(child, child)  # the child does the same; whoever comes first
    for descriptor in (*descriptors[:-1], failure_writer):
        os.close(descriptor)
    with open(failure_reader, "rb") as stream:
        failure = stream.read()  # ends when the layers are on and the candidate is about to start
    started = time.monotonic()
    timed_out = not failure and _wait(child, control, job["seconds"])
    seconds = time.monotonic() - started
    status = _kill(child, zygote.layers)
    if not zygote.layers.namespaces:
        remove_tree(scratch)
    report = {
        "failure": failure.decode(errors="replace"),
        "timed_out": timed_out,
        "signal": os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0,
        "seconds": seconds,
    }
    with contextlib.suppress(OSError):  # the parent may be gone
        control.send(json.dumps(report).encode())
    os._exit(0)


def _wait(child: int, control: socket.socket, seconds: float) -> bool:
    """Wait for the child's end, the parent's word or the deadline; True for the deadline."""
    ended = os.pidfd_open(child)
    poller = select.poll()
    poller.register(ended, select.POLLIN)
    poller.register(control.fileno(), select.POLLIN | select.POLLHUP)
    events = poller.poll(seconds * 1000)
    os.close(ended)
    return not events


def _kill(child: int, layers: Layers) -> int:
    """Kill the child with everything it started, reap all of it, return the child's status.

    A process table dies with its first process. Without one, the child's process group goes first
    (seccomp forbids leaving it) and then whoever left it and was handed to this process.
    """
    with contextlib.suppress(ProcessLookupError):
        if layers.namespaces:
            os.kill(child, signal.SIGKILL)
        else:
            os.killpg(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if not layers.namespaces:
        me = os.getpid()
        while True:
            with open(f"/proc/{me}/task/{me}/children", encoding="ascii") as children:
                for orphan in children.read().split():
                    os.kill(int(orphan), signal.SIGKILL)
            try:
                os.waitpid(-1, 0)
            except ChildProcessError:
                break
    return status


def _be_candidate(
    zygote: Zygote, job: dict[str, Any], descriptors: list[int], scratch: str, failure: int
) -> NoReturn:
    """Put on the layers and hand over to the harness; `failure` closes when the layers hold."""
    node: bool = job["node"]
    try:
        with contextlib.suppress(OSError):
            os.setpgid(0, 0)
        bounds = Bounds(job["seconds"], job["memory_bytes"], job["processes"])
        _arrange(descriptors, failure)
        confine(bounds, zygote.layers, zygote.visible, scratch, node=node)
        if node and zygote.node is not None:
            megabytes = max(16, job["memory_bytes"] >> 20)
            heap = f"--max-old-space-size={megabytes}"
            os.execve(
                zygote.node, [zygote.node, heap, "-e", zygote.node_harness], _NODE_ENVIRONMENT
            )
    except OSError as error:
        os.write(CHANNEL + 1, f"{error}".encode() or b"refused")
        os._exit(1)
    os.close(CHANNEL + 1)
    harness.serve(CHANNEL)


def _arrange(descriptors: list[int], failure: int) -> None:
    """stdin, stdout, stderr and the channel at 0 to 3, the failure pipe at 4, nothing else."""
    sources = [*descriptors[: CHANNEL + 1], failure]
    high = [os.dup(source) for source in sources]
    while min(high) <= CHANNEL + 1:
        high = [os.dup(source) for source in high]
    for target, source in enumerate(high):
        os.dup2(source, target, inheritable=target <= CHANNEL)
    os.closerange(CHANNEL + 2, 1 << 16)


if __name__ == "__main__":
    main()
