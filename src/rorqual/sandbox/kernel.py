"""System calls that Python's `os` does not offer, through ctypes.

Every function raises OSError with the kernel's reason. Numbers are Linux's for x86-64 and arm64;
on another machine `MACHINE` is None and the layers that need numbers report themselves missing.
"""

import ctypes
import os
import platform
from typing import Literal

Machine = Literal["x86_64", "aarch64"]

CLONE_NEWNS = 0x00020000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_BIND = 0x1000
MS_REC = 0x4000
MS_PRIVATE = 0x40000
MNT_DETACH = 0x2

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_SECCOMP = 22
PR_CAPBSET_DROP = 24
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_CLEAR_ALL = 4

_MOUNT_ATTR_RDONLY = 0x1
_MOUNT_ATTR_NOSUID = 0x2
_MOUNT_ATTR_NODEV = 0x4
_AT_RECURSIVE = 0x8000
_AT_FDCWD = -100

_SYS_MOUNT_SETATTR = 442
_SYS_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
_SYS_CAPSET = {"x86_64": 126, "aarch64": 91}
_CAPABILITY_VERSION_3 = 0x20080522
_LAST_CAPABILITY = 63


def _machine() -> Machine | None:
    name = platform.machine().lower()
    if name in ("x86_64", "amd64") and ctypes.sizeof(ctypes.c_void_p) == 8:
        return "x86_64"
    return "aarch64" if name in ("aarch64", "arm64") else None


MACHINE = _machine()
_libc = ctypes.CDLL(None, use_errno=True)


def _checked(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def syscall(number: int, *arguments: object, what: str) -> int:
    """A raw system call; ints go as C longs."""
    values = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    return _checked(_libc.syscall(ctypes.c_long(number), *values), what)


def prctl(option: int, first: object = 0, second: object = 0) -> int:
    """prctl(2); ints go as unsigned longs, as the kernel reads them."""
    values = [ctypes.c_ulong(a) if isinstance(a, int) else a for a in (first, second, 0, 0)]
    return _checked(_libc.prctl(option, *values), f"prctl {option}")


def unshare(flags: int) -> None:
    """Leave the namespaces named by the flags."""
    _checked(_libc.unshare(flags), "unshare")


def mount(source: str, target: str, kind: str, flags: int, options: str = "") -> None:
    """mount(2)."""
    done = _libc.mount(
        source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags), options.encode()
    )
    _checked(done, f"mount {target}")


def make_read_only(target: str, *, devices: bool = False) -> None:
    """Read-only, and no set-uid or device files (unless `devices`), for a mount and all in it."""

    class MountAttributes(ctypes.Structure):
        _fields_ = [(name, ctypes.c_uint64) for name in ("set", "clear", "propagation", "userns")]

    bits = _MOUNT_ATTR_RDONLY | _MOUNT_ATTR_NOSUID | (0 if devices else _MOUNT_ATTR_NODEV)
    attributes = MountAttributes(bits, 0, 0, 0)
    syscall(
        _SYS_MOUNT_SETATTR,
        _AT_FDCWD,
        target.encode(),
        _AT_RECURSIVE,
        ctypes.byref(attributes),
        ctypes.sizeof(attributes),
        what=f"mount_setattr {target}",
    )


def enter_root(new_root: str) -> None:
    """Make a mounted folder the root and let go of the old one."""
    if MACHINE is None:
        raise OSError("pivot_root: unknown machine")
    os.chdir(new_root)
    syscall(_SYS_PIVOT_ROOT[MACHINE], b".", b".", what="pivot_root")
    _checked(_libc.umount2(b".", MNT_DETACH), "umount2")
    os.chdir("/")


def empty_bounding_set() -> None:
    """No exec of this process or its children will ever give a capability back."""
    for capability in range(_LAST_CAPABILITY + 1):
        try:
            prctl(PR_CAPBSET_DROP, capability)
        except OSError:
            break  # above the last one this kernel knows, or no privilege, then none to fear


def drop_capabilities() -> None:
    """Give up every capability this process holds."""
    if MACHINE is None:
        raise OSError("capset: unknown machine")
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    nothing = (ctypes.c_uint32 * 6)()
    syscall(_SYS_CAPSET[MACHINE], header, nothing, what="capset")
