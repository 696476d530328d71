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


class TrainingProgress:
    """Shows loss, speed and time left; quiet on every process but the main one."""

    def __init__(self, token_budget: int, flops_per_token: float, *, enabled: bool):
        self.console = Console(stderr=True, quiet=not enabled)
        self.token_budget, self.flops_per_token = token_budget, flops_per_token
        self._last_line = float("-inf")
        self._usual_speed = 0.0  # tokens per second
        self._live = enabled and self.console.is_terminal
        self._bar = Progress(
            TextColumn("[bold]training"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f}%"),
            TextColumn("{task.fields[status]}"),
            TimeElapsedColumn(),
            console=self.console,
            disable=not self._live,
            transient=False,
        )
        self._task = self._bar.add_task("training", total=token_budget, status="")

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

    def step(
        self, step: int, tokens_seen: int, result: StepResult, tokens_per_second: float
    ) -> None:
        """Show one step."""
        usual = self._usual_speed or tokens_per_second
        usual = _SMOOTHING * usual + (1 - _SMOOTHING) * tokens_per_second
        self._usual_speed = usual
        left = max(self.token_budget - tokens_seen, 0) / max(usual, 1e-9)
        status = (
            f"step {step}  loss {result.loss:.3f}  {format_count(usual)} tok/s  "
            f"{format_flops(usual * self.flops_per_token)}/s  ETA {format_seconds(left)}"
        )
        self._bar.update(self._task, completed=tokens_seen, status=status)
        now = time.monotonic()
        done = tokens_seen >= self.token_budget
        if not self._live and (now - self._last_line >= _LINE_SECONDS or done):
            self._last_line = now
            self.say(f"{100 * tokens_seen / self.token_budget:5.1f}%  {status}")
