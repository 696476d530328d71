"""Namespaces: a file tree, network, process table and host name of their own (level NAMESPACES).

The zygote of a worker enters them once. The new root is an empty file system that holds the
interpreter's folders, read-only, at their own paths, and nothing else: no /proc, /home, /etc. Each
run then gets a process table and a scratch folder of its own on top, which vanish with it.

An ordinary user gets the privilege for this from a user namespace. Root builds the root first (the
interpreter may lie where only root can read), then turns into `NOBODY`, and enters a user namespace
like everybody else, so nothing in the jail ever holds a privilege on the host.
"""

import os
import socket
import stat

from rorqual.sandbox import kernel
from rorqual.sandbox.visible import Visible

NOBODY = 65534
INSIDE_ID = 1000
SCRATCH = "/scratch"
SCRATCH_BYTES = 32 << 20
_SCRATCH_FILES = 2048
_WITHOUT_USER = kernel.CLONE_NEWNS | kernel.CLONE_NEWNET | kernel.CLONE_NEWIPC | kernel.CLONE_NEWUTS


def enter(mount_point: str, visible: Visible) -> None:
    """Move this process into a jail built on an empty folder; raises OSError where refused.

    NOTE: a failure leaves the process half way, so try it in a child first.
    """
    proc = os.open("/proc", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if os.geteuid() == 0:
            kernel.unshare(_WITHOUT_USER)
            _build(mount_point, visible)
            become(NOBODY)
            kernel.unshare(kernel.CLONE_NEWUSER)
            _map_ids(proc, NOBODY, NOBODY)
        else:
            user, group = os.geteuid(), os.getegid()
            kernel.unshare(kernel.CLONE_NEWUSER | _WITHOUT_USER)
            _map_ids(proc, user, group)
            _build(mount_point, visible)
    finally:
        os.close(proc)


def enter_run() -> None:
    """A process table for the next child of this process, and an empty scratch folder."""
    kernel.unshare(kernel.CLONE_NEWNS | kernel.CLONE_NEWPID)
    flags = kernel.MS_NOSUID | kernel.MS_NODEV
    options = f"size={SCRATCH_BYTES},nr_inodes={_SCRATCH_FILES},mode=700"
    kernel.mount("scratch", SCRATCH, "tmpfs", flags, options)


def become(user: int) -> None:
    """Turn root into an ordinary user for good, without its groups."""
    os.setgroups([])
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)
    kernel.prctl(kernel.PR_SET_DUMPABLE, 1)  # else /proc/self belongs to root, uid_map with it


def _map_ids(proc: int, user: int, group: int) -> None:
    for name, text in (
        ("setgroups", "deny"),
        ("uid_map", f"{INSIDE_ID} {user} 1"),
        ("gid_map", f"{INSIDE_ID} {group} 1"),
    ):
        descriptor = os.open(f"self/{name}", os.O_WRONLY | os.O_CLOEXEC, dir_fd=proc)
        try:
            os.write(descriptor, text.encode())
        finally:
            os.close(descriptor)


def _build(root: str, visible: Visible) -> None:
    socket.sethostname("sandbox")
    kernel.mount("none", "/", "", kernel.MS_REC | kernel.MS_PRIVATE)
    kernel.mount("root", root, "tmpfs", kernel.MS_NOSUID, "mode=755,size=1m")
    for path in visible.readable:
        _bind(root, path)
        kernel.make_read_only(root + path)
    for path in visible.hidden:
        kernel.mount("none", root + path, "tmpfs", kernel.MS_NOSUID, "mode=755,size=4k")
        kernel.make_read_only(root + path)
    for path in visible.devices:
        _bind(root, path)
    for name in ("/lib", "/lib64"):
        if os.path.islink(name) and not os.path.lexists(root + name):
            os.symlink(os.readlink(name), root + name)
    os.mkdir(root + SCRATCH, 0o755)
    kernel.enter_root(root)
    kernel.make_read_only("/", devices=True)


def _bind(root: str, path: str) -> None:
    target = root + path
    os.makedirs(os.path.dirname(target), mode=0o755, exist_ok=True)
    if stat.S_ISDIR(os.stat(path).st_mode):
        os.mkdir(target, 0o755)
    else:
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o644))
    kernel.mount(path, target, "", kernel.MS_BIND | kernel.MS_REC)
