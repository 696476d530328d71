"""Live progress of a distillation on stderr: a bar in a terminal, lines elsewhere."""

import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

_LINE_SECONDS = 10.0


class DistillProgress:
    """Shows loss, length, share of right samples and the split of a step's time."""

    def __init__(self, max_steps: int, *, enabled: bool = True):
        self.console = Console(stderr=True, quiet=not enabled)
        self.max_steps = max_steps
        self._live = enabled and self.console.is_terminal
        self._last_line = float("-inf")
        self._bar = Progress(
            TextColumn("[bold]distilling"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f}%"),
            TextColumn("{task.fields[status]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self.console,
            disable=not self._live,
        )
        self._task = self._bar.add_task("distill", total=max_steps, status="")

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

    def step(self, step: int, figures: Mapping[str, Any]) -> None:
        """Show one step."""
        right = f"right {figures['accuracy']:.0%}  " if "accuracy" in figures else ""
        status = (
            f"step {step}  loss {figures['loss']:.3f}  {right}"
            f"length {figures['completions/mean_length']:.0f}  "
            f"gen {figures.get('time/gen', 0.0):.1f} train {figures['time/train']:.1f} s"
        )
        self._bar.update(self._task, completed=step, status=status)
        now = time.monotonic()
        if not self._live and (now - self._last_line >= _LINE_SECONDS or step == self.max_steps):
            self._last_line = now
            self.say(f"{100 * step / self.max_steps:5.1f}%  {status}")
