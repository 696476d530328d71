"""Live progress of reinforcement learning on stderr."""

from collections.abc import Mapping
from typing import Any

from rorqual.train.progress import LiveProgress


class RLProgress(LiveProgress):
    """Shows reward, accuracy, share that think, length and the split of a step's time."""

    def __init__(self, max_steps: int, *, enabled: bool = True):
        super().__init__("RL", max_steps, enabled=enabled)

    def step(self, step: int, figures: Mapping[str, Any]) -> None:
        """Show one step."""
        self.show(
            step,
            f"step {step}  right {figures['accuracy']:.0%}  reward {figures['reward']:.2f}  think "
            f"{figures['completions/thinking_share']:.0%}  length "
            f"{figures['completions/mean_length']:.0f}  "
            f"gen {figures['time/gen']:.1f} score {figures['time/score']:.1f} "
            f"train {figures.get('time/train', 0.0):.1f} s",
        )
