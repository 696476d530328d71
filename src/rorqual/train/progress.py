"""Live progress on stderr: a bar in a terminal, a line every few seconds anywhere else."""

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from rorqual.train.step import StepResult
from rorqual.units import format_count, format_flops, format_seconds

_LINE_SECONDS = 10.0
_SMOOTHING = 0.9  # of the speed that the time left is computed from


class LiveProgress:
    """How far something is, and a line of status; quiet on every process but the main one."""

    def __init__(self, label: str, total: int, *, enabled: bool = True):
        self.console = Console(stderr=True, quiet=not enabled)
        self.total = total
        self._last_line = float("-inf")
        self._live = enabled and self.console.is_terminal
        self._bar = Progress(
            TextColumn(f"[bold]{label}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f}%"),
            TextColumn("{task.fields[status]}"),
            TimeElapsedColumn(),
            console=self.console,
            disable=not self._live,
        )
        self._task = self._bar.add_task(label, total=total, status="")

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def say(self, message: str) -> None:
        """One line that stays above the bar."""
        self.console.print(message, highlight=False, markup=False)

    def show(self, done: int, status: str) -> None:
        """`done` of the total, and what to say about it."""
        self._bar.update(self._task, completed=done, status=status)
        now = time.monotonic()
        due = now - self._last_line >= _LINE_SECONDS or done >= self.total
        if not self._live and due:
            self._last_line = now
            self.say(f"{100 * done / self.total:5.1f}%  {status}")


class TrainingProgress(LiveProgress):
    """Shows loss, speed and time left."""

    def __init__(self, token_budget: int, flops_per_token: float, *, enabled: bool):
        super().__init__("training", token_budget, enabled=enabled)
        self.flops_per_token = flops_per_token
        self._usual_speed = 0.0  # tokens per second

    def step(
        self, step: int, tokens_seen: int, result: StepResult, tokens_per_second: float
    ) -> None:
        """Show one step."""
        usual = self._usual_speed or tokens_per_second
        usual = _SMOOTHING * usual + (1 - _SMOOTHING) * tokens_per_second
        self._usual_speed = usual
        left = max(self.total - tokens_seen, 0) / max(usual, 1e-9)
        self.show(
            tokens_seen,
            f"step {step}  loss {result.loss:.3f}  {format_count(usual)} tok/s  "
            f"{format_flops(usual * self.flops_per_token)}/s  ETA {format_seconds(left)}",
        )
