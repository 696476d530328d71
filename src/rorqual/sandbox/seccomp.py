"""The seccomp filter: a list of allowed system calls, built by hand as a classic BPF program.

A call that is not allowed fails with EPERM, so a program sees an ordinary error. clone3 fails with
ENOSYS instead: its flags lie behind a pointer that a filter cannot read, and libc falls back to
clone, whose flags it can. A call under another architecture's numbers kills the process.
"""

import ctypes
import errno
import struct
from collections.abc import Iterable
from dataclasses import dataclass

from rorqual.sandbox import kernel
from rorqual.sandbox.syscalls import ALWAYS, ON_CONDITION

_LOAD, _JUMP_EQUAL, _JUMP_AT_LEAST, _AND, _RETURN = 0x20, 0x15, 0x35, 0x54, 0x06
_ALLOW, _KILL_PROCESS = 0x7FFF0000, 0x80000000
_ERRNO = 0x00050000
_OFFSET_NUMBER, _OFFSET_ARCHITECTURE, _OFFSET_ARGUMENTS = 0, 4, 16
_ARCHITECTURE = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_COLUMN = {"x86_64": 0, "aarch64": 1}  # in the tables of system calls
_X32_BIT = 0x40000000
_MODE_FILTER = 2
_INSTRUCTION = struct.Struct("<HBBI")

_CLONE_THREAD = 0x00010000
_CLONE_NEW_ANY = 0x7E020080  # every CLONE_NEW* flag
_AF_UNIX, _SOCK_STREAM, _SOCK_TYPE_MASK = 1, 1, 0xF
_FCNTL_COMMANDS = (0, 1, 2, 3, 4, 5, 6, 7, 1030, 1032)  # dup, flags, locks; not F_SETOWN, F_SETSIG
_IOCTL_COMMANDS = (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)  # isatty, size, FION*, FIO*CLEX
_PRCTL_COMMANDS = (15, 16, 0x53564D41)  # names of threads and of mappings


@dataclass(frozen=True, slots=True)
class _Condition:
    """One 32-bit word of the arguments, masked, must be one of some values."""

    argument: int
    values: tuple[int, ...]
    mask: int = 0xFFFFFFFF
    high_word: bool = False

    def code(self) -> list[tuple[int, int, int, int]]:
        offset = _OFFSET_ARGUMENTS + 8 * self.argument + 4 * self.high_word
        tests = [
            # On a match jump past the remaining tests and the refusal.
            (_JUMP_EQUAL, len(self.values) - i, 0, value)
            for i, value in enumerate(self.values)
        ]
        return [(_LOAD, 0, 0, offset), (_AND, 0, 0, self.mask), *tests, _refuse(errno.EPERM)]


def _null_pointer(argument: int) -> tuple[_Condition, _Condition]:
    return _Condition(argument, (0,)), _Condition(argument, (0,), high_word=True)


def _conditions() -> dict[str, tuple[_Condition, ...]]:
    """What must hold for the calls that are allowed with conditions."""
    thread_flags = _CLONE_THREAD | _CLONE_NEW_ANY
    return {
        "clone": (_Condition(0, (_CLONE_THREAD,), thread_flags),),
        "fcntl": (_Condition(1, _FCNTL_COMMANDS),),
        "ioctl": (_Condition(1, _IOCTL_COMMANDS),),
        "prctl": (_Condition(0, _PRCTL_COMMANDS),),
        "prlimit64": (_Condition(0, (0,)), *_null_pointer(2)),
        # A pair of connected streams, as asyncio makes for itself; it cannot send elsewhere.
        "socketpair": (_Condition(0, (_AF_UNIX,)), _Condition(1, (_SOCK_STREAM,), _SOCK_TYPE_MASK)),
        "sendto": _null_pointer(4),
    }


def _refuse(number: int) -> tuple[int, int, int, int]:
    return (_RETURN, 0, 0, _ERRNO | number)


def _encoded(code: Iterable[tuple[int, int, int, int]]) -> bytes:
    return b"".join(_INSTRUCTION.pack(*instruction) for instruction in code)


def _when(number: int, conditions: tuple[_Condition, ...]) -> list[tuple[int, int, int, int]]:
    """Allow this call if its arguments meet every condition."""
    body = [instruction for c in conditions for instruction in c.code()]
    body.append((_RETURN, 0, 0, _ALLOW))
    return [(_JUMP_EQUAL, 0, len(body), number), *body]


def common_part(*, may_exec: bool) -> bytes:
    """The filter up to what depends on the process, made once; may_exec is for becoming Node."""
    if kernel.MACHINE is None:
        raise OSError("seccomp: no table of system calls for this machine")
    column = _COLUMN[kernel.MACHINE]
    allowed = [pair[column] for pair in ALWAYS.values()]
    if may_exec:
        allowed.append(ON_CONDITION["execve"][column])
    code = [
        (_LOAD, 0, 0, _OFFSET_ARCHITECTURE),
        (_JUMP_EQUAL, 1, 0, _ARCHITECTURE[kernel.MACHINE]),
        (_RETURN, 0, 0, _KILL_PROCESS),
        (_LOAD, 0, 0, _OFFSET_NUMBER),
        (_JUMP_AT_LEAST, 0, 1, _X32_BIT),
        (_RETURN, 0, 0, _KILL_PROCESS),
        (_JUMP_EQUAL, 0, 1, ON_CONDITION["clone3"][column]),
        _refuse(errno.ENOSYS),
    ]
    for number in allowed:
        if number >= 0:
            code += [(_JUMP_EQUAL, 0, 1, number), (_RETURN, 0, 0, _ALLOW)]
    for name, conditions in _conditions().items():
        code += _when(ON_CONDITION[name][column], conditions)
    return _encoded(code)


class _FilterProgram(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("code", ctypes.c_void_p)]


def program(common: bytes, pid: int) -> bytes:
    """The whole filter: the common part, then signals to this process id alone."""
    assert kernel.MACHINE is not None, "common_part raises without one"
    column = _COLUMN[kernel.MACHINE]
    own = (_Condition(0, (pid,)),)
    signals = [
        step for name in ("kill", "tgkill") for step in _when(ON_CONDITION[name][column], own)
    ]
    return common + _encoded([*signals, _refuse(errno.EPERM)])


def install(common: bytes, pid: int) -> None:
    """Confine this process, and whatever it may become, for good; needs no_new_privs.

    The process with this id, its own, is the only one it may still send signals to.
    """
    code = program(common, pid)
    buffer = ctypes.create_string_buffer(code, len(code))
    filter_program = _FilterProgram(len(code) // _INSTRUCTION.size, ctypes.addressof(buffer))
    kernel.prctl(kernel.PR_SET_SECCOMP, _MODE_FILTER, ctypes.byref(filter_program))
