"""The filter's decisions, by running its program: both machines, without needing either."""

import errno
import struct

import pytest

from rorqual.sandbox import kernel, seccomp
from rorqual.sandbox.syscalls import ALWAYS, ON_CONDITION

ARCHITECTURE = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
ALLOW, KILL, ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
PID = 4321
SOCKET = {"x86_64": 41, "aarch64": 198}
PTRACE = {"x86_64": 101, "aarch64": 117}
THREAD_FLAGS = 0x3D0F00  # what libc passes for a new thread


def decide(program: bytes, architecture: int, number: int, *arguments: int) -> int:
    """A classic BPF machine with the five instructions that the filter uses."""
    values = [a & (1 << 64) - 1 for a in (*arguments, *[0] * (6 - len(arguments)))]
    data = struct.pack("<IIQ6Q", number, architecture, 0, *values)
    code = list(struct.iter_unpack("<HBBI", program))
    accumulator, at = 0, 0
    while True:
        operation, if_true, if_false, k = code[at]
        at += 1
        if operation == 0x20:
            (accumulator,) = struct.unpack_from("<I", data, k)
        elif operation == 0x54:
            accumulator &= k
        elif operation == 0x15:
            at += if_true if accumulator == k else if_false
        elif operation == 0x35:
            at += if_true if accumulator >= k else if_false
        else:
            assert operation == 0x06
            return k


@pytest.fixture(params=["x86_64", "aarch64"])
def machine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(kernel, "MACHINE", request.param)
    return request.param


def decision(machine: str, name_or_number: str | int, *arguments: int, node: bool = False) -> int:
    program = seccomp.program(seccomp.common_part(may_exec=node), PID)
    column = 0 if machine == "x86_64" else 1
    number = name_or_number
    if isinstance(number, str):
        number = (ALWAYS | ON_CONDITION)[number][column]
    return decide(program, ARCHITECTURE[machine], number, *arguments)


def test_listed_calls_pass_and_others_do_not(machine: str) -> None:
    column = 0 if machine == "x86_64" else 1
    listed = {pair[column] for pair in (ALWAYS | ON_CONDITION).values()}
    for name, pair in ALWAYS.items():
        if pair[column] >= 0:
            assert decision(machine, name) == ALLOW, name
    refused = [n for n in range(600) if n not in listed]
    assert {decision(machine, n) for n in refused} == {ERRNO | errno.EPERM}
    assert SOCKET[machine] in refused and PTRACE[machine] in refused


def test_each_number_stands_for_one_call(machine: str) -> None:
    column = 0 if machine == "x86_64" else 1
    numbers = [p[column] for p in (ALWAYS | ON_CONDITION).values() if p[column] >= 0]
    assert len(numbers) == len(set(numbers))


@pytest.mark.parametrize(
    ("name", "arguments", "allowed"),
    [
        ("clone", (THREAD_FLAGS,), True),
        ("clone", (17,), False),
        ("clone", (THREAD_FLAGS | 0x10000000,), False),
        ("kill", (PID, 9), True),
        ("kill", (1, 9), False),
        ("kill", (-1, 9), False),
        ("tgkill", (PID, PID, 6), True),
        ("tgkill", (7, 7, 6), False),
        ("fcntl", (0, 4), True),
        ("fcntl", (0, 8), False),
        ("ioctl", (0, 0x5401), True),
        ("ioctl", (0, 0x5412), False),
        ("prctl", (15,), True),
        ("prctl", (4, 1), False),
        ("prlimit64", (0, 7, 0), True),
        ("prlimit64", (0, 7, 1 << 40), False),
        ("prlimit64", (5, 7, 0), False),
        ("socketpair", (1, 1 | 0x80800), True),
        ("socketpair", (1, 2), False),
        ("socketpair", (2, 1), False),
        ("sendto", (3, 9, 9, 0, 0), True),
        ("sendto", (3, 9, 9, 0, 1 << 33), False),
    ],
)
def test_arguments_decide(
    machine: str, name: str, arguments: tuple[int, ...], allowed: bool
) -> None:
    assert decision(machine, name, *arguments) == (ALLOW if allowed else ERRNO | errno.EPERM)


def test_only_what_becomes_node_may_exec(machine: str) -> None:
    assert decision(machine, "execve") == ERRNO | errno.EPERM
    assert decision(machine, "execve", node=True) == ALLOW
    assert decision(machine, "clone3") == ERRNO | errno.ENOSYS


def test_another_architecture_is_killed(machine: str) -> None:
    program = seccomp.program(seccomp.common_part(may_exec=False), PID)
    other = ARCHITECTURE["aarch64" if machine == "x86_64" else "x86_64"]
    assert decide(program, other, 0) == KILL
    assert decision(machine, 0x40000000) == KILL


def test_an_unknown_machine_has_no_filter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "MACHINE", None)
    with pytest.raises(OSError, match="no table"):
        seccomp.common_part(may_exec=False)
