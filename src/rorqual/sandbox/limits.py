"""What a run may use, and what came of it."""

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from rorqual.errors import ConfigError

# What crosses the border of the sandbox: None, bool, int, float, str, lists, dicts with str keys.
JSON: TypeAlias = Any

Status = Literal["ok", "error", "timeout", "memory", "output", "killed"]


@dataclass(frozen=True, slots=True)
class Limits:
    """The most that one run may use.

    seconds is wall-clock time, memory_bytes address space (for Node: private writable memory),
    output_bytes stdout and stderr together, result_bytes everything a run returns as values,
    processes threads and processes at one time.
    """

    seconds: float = 2.0
    memory_bytes: int = 512 << 20
    output_bytes: int = 64 << 10
    result_bytes: int = 1 << 20
    processes: int = 16

    def __post_init__(self) -> None:
        for name in ("seconds", "memory_bytes", "output_bytes", "result_bytes", "processes"):
            value = getattr(self, name)
            if not value > 0:
                raise ConfigError(f"sandbox limit {name}={value!r} must be above 0; raise it")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one run.

    status: "ok" ran to its end; "error" raised, exited early or broke the protocol; "timeout",
    "memory" and "output" met that limit; "killed" died of a signal. completed says that the
    run's nonce came back after the program's last statement: the exit code and what was printed
    never count. detail is one line for logs, in the program's own words where it raised.
    """

    status: Status
    stdout: str
    stderr: str
    seconds: float
    completed: bool
    detail: str = ""


@dataclass(frozen=True, slots=True)
class CallResult:
    """What one call returned: a value of plain types if status is "ok", else None."""

    status: Status
    value: JSON
    detail: str = ""
