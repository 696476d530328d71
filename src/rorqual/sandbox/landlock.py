"""Landlock: the process itself gives up the file tree, TCP, and signals beyond its own domain.

Needs no privilege. Linux 5.13 brought the file rules, later versions ("ABI") the rest; each rule
is asked for where the kernel knows it. What Landlock does not cover at any version (chmod, chown,
utime, xattr, UDP) the seccomp filter refuses. Documentation: linux/Documentation/userspace-api/
landlock.rst.
"""

import ctypes
import os
import stat
from collections.abc import Iterable

from rorqual.sandbox import kernel

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION_FLAG = 1
_RULE_PATH_BENEATH = 1

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_ALL_OF_ABI_1 = (1 << 13) - 1
_REFER, _TRUNCATE, _IOCTL_DEV = 1 << 13, 1 << 14, 1 << 15  # since ABI 2, 3, 5
_ON_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEV
_DEVICE_FILES = 1 << 6 | 1 << 11  # making character and block devices
_NET_BOTH = 0b11  # bind and connect over TCP, since ABI 4
_SCOPE_BOTH = 0b11  # abstract unix sockets and signals, since ABI 6


class _RulesetAttributes(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in ("files", "net", "scoped")]


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = [("allowed", ctypes.c_uint64), ("parent_fd", ctypes.c_int32)]


def abi() -> int:
    """The version of Landlock this kernel runs; raises OSError where there is none."""
    return kernel.syscall(
        _CREATE_RULESET, None, ctypes.c_size_t(0), _VERSION_FLAG, what="landlock_create_ruleset"
    )


def restrict(
    *, readable: Iterable[str], devices: Iterable[str], executable: Iterable[str], writable: str
) -> None:
    """Confine this process to reading some paths and writing one folder; needs no_new_privs."""
    version = abi()
    handled = _ALL_OF_ABI_1
    for since, right in ((2, _REFER), (3, _TRUNCATE), (5, _IOCTL_DEV)):
        handled |= right if version >= since else 0
    attributes = _RulesetAttributes(
        handled, _NET_BOTH if version >= 4 else 0, _SCOPE_BOTH if version >= 6 else 0
    )
    size = 8 if version < 4 else 16 if version < 6 else 24
    ruleset = kernel.syscall(
        _CREATE_RULESET, ctypes.byref(attributes), ctypes.c_size_t(size), 0, what="landlock"
    )
    try:
        for path in readable:
            _allow(ruleset, path, _READ_FILE | _READ_DIR)
        for path in executable:
            _allow(ruleset, path, _READ_FILE | _EXECUTE)
        for path in devices:
            _allow(ruleset, path, _READ_FILE | _WRITE_FILE)
        _allow(ruleset, writable, handled & ~_EXECUTE & ~_DEVICE_FILES & ~_IOCTL_DEV)
        kernel.syscall(_RESTRICT_SELF, ruleset, 0, what="landlock_restrict_self")
    finally:
        os.close(ruleset)


def _allow(ruleset: int, path: str, rights: int) -> None:
    descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
            rights &= _ON_FILES
        rule = _PathBeneath(rights, descriptor)
        kernel.syscall(
            _ADD_RULE, ruleset, _RULE_PATH_BENEATH, ctypes.byref(rule), 0, what=f"landlock {path}"
        )
    finally:
        os.close(descriptor)
