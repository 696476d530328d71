"""How well this machine can confine a program, as a number to require and in words to print."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum


class SandboxLevel(IntEnum):
    """Each level holds what the one below holds.

    RLIMITS bounds what a run uses, not what it reads or writes. LANDLOCK_SECCOMP adds: no
    network, no new processes, no writes outside the run's folder, no reads outside the
    interpreter. NAMESPACES adds: a file tree, process table and network of its own.
    """

    NONE = 0
    RLIMITS = 1
    LANDLOCK_SECCOMP = 2
    NAMESPACES = 3


HOW_TO_RAISE = {
    SandboxLevel.RLIMITS: "run on Linux 5.4 or newer",
    SandboxLevel.LANDLOCK_SECCOMP: (
        "run on Linux 5.13 or newer (x86-64 or arm64) with Landlock enabled "
        "(`lsm=landlock,...` on the kernel command line) and seccomp allowed by the container"
    ),
    SandboxLevel.NAMESPACES: (
        "allow user and mount namespaces (`sysctl user.max_user_namespaces`, "
        "`kernel.apparmor_restrict_unprivileged_userns=0`), or run as root with CAP_SYS_ADMIN"
    ),
}


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer of protection: whether it holds, and a phrase that says what was found."""

    name: str
    active: bool
    found: str


@dataclass(frozen=True, slots=True)
class SandboxReport:
    """The level this machine gives, and the layers it rests on, each tried in a real child."""

    level: SandboxLevel
    layers: Sequence[Layer]

    @property
    def words(self) -> str:
        """One line for people and for a run's records."""
        layers = "; ".join(
            f"{layer.name}: {'yes' if layer.active else 'no'} ({layer.found})"
            for layer in self.layers
        )
        return f"sandbox level {self.level.name} ({int(self.level)} of 3): {layers}"
