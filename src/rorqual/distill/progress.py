"""Live progress of a distillation on stderr."""

from collections.abc import Mapping
from typing import Any

from rorqual.train.progress import LiveProgress


class DistillProgress(LiveProgress):
    """Shows loss, length, share of right samples and the split of a step's time."""

    def __init__(self, max_steps: int, *, enabled: bool = True):
        super().__init__("distilling", max_steps, enabled=enabled)

    def step(self, step: int, figures: Mapping[str, Any]) -> None:
        """Show one step."""
        right = f"right {figures['accuracy']:.0%}  " if "accuracy" in figures else ""
        self.show(
            step,
            f"step {step}  loss {figures['loss']:.3f}  {right}"
            f"length {figures['completions/mean_length']:.0f}  "
            f"gen {figures.get('time/gen', 0.0):.1f} train {figures['time/train']:.1f} s",
        )
