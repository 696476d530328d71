"""Tasks whose reward runs the model's program: they share or open a sandbox, and close their own.

Several tasks of one run should share a sandbox: give it to each. A task made without one opens its
own at the first program it has to run, so making and solving problems never starts a process.
"""

import os
import threading
from types import TracebackType
from typing import ClassVar, Self

from rorqual.sandbox import Limits, Sandbox
from rorqual.tasks.base import Score, Task, wrong

_REASONS = {
    "timeout": "out of time",
    "memory": "out of memory",
    "output": "writes too much",
    "killed": "killed",
    "error": "program fails",
}


class SandboxedTask(Task):
    """Base of tasks that run code. Scoring is safe from several threads at once."""

    uses_sandbox: ClassVar[bool] = True
    limits: ClassVar[Limits] = Limits()

    def __init__(self, sandbox: Sandbox | None = None):
        self._given = sandbox
        self._own: Sandbox | None = None
        self._lock = threading.Lock()

    @property
    def sandbox(self) -> Sandbox:
        """The sandbox given, or this task's own, opened now if it is not yet."""
        if self._given is not None:
            return self._given
        with self._lock:
            if self._own is None:
                self._own = Sandbox(num_workers=os.cpu_count() or 1)
            return self._own

    def close(self) -> None:
        """Close this task's own sandbox; one that was given stays open."""
        with self._lock:
            own, self._own = self._own, None
        if own is not None:
            own.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def failed_run(status: str) -> Score:
    """The score of a program that did not get through, by the sandbox's word for it."""
    return wrong(_REASONS.get(status, "program fails"))
