"""What changes over a run, as functions of progress = tokens seen / token budget, in [0, 1]."""

import math
from typing import Protocol

from rorqual.config import TrainConfig


class StepSchedule(Protocol):
    """The fields of [rl] and [distill] that the learning rate follows, counted in steps."""

    @property
    def learning_rate(self) -> float: ...
    @property
    def min_learning_rate_ratio(self) -> float: ...
    @property
    def warmup_steps(self) -> int: ...
    @property
    def max_steps(self) -> int: ...


def learning_rate(config: TrainConfig, progress: float) -> float:
    """Linear rise, constant, cosine, constant, final constant (V3 section 4.2)."""
    if progress < config.warmup_fraction:
        return config.learning_rate * progress / config.warmup_fraction
    final = config.learning_rate_final
    if final is not None and progress >= 1 - config.final_fraction:
        return final
    start, end = config.decay_start_fraction, config.decay_end_fraction
    if progress < start:
        return config.learning_rate
    if progress >= end:
        return config.learning_rate_min
    cosine = 0.5 * (1 + math.cos(math.pi * (progress - start) / (end - start)))
    return config.learning_rate_min + (config.learning_rate - config.learning_rate_min) * cosine


def sequences_per_step(config: TrainConfig, progress: float, multiple: int = 1) -> int:
    """Rows of the next step: grows linearly along the ramp, in multiples of `multiple`."""
    start = config.sequences_per_step_start
    if start is None or progress >= config.batch_ramp_fraction:
        return config.sequences_per_step
    share = progress / config.batch_ramp_fraction
    rows = start + (config.sequences_per_step - start) * share
    return max(multiple, int(rows) // multiple * multiple)


def mtp_weight(config: TrainConfig, progress: float) -> float:
    """Lambda of V3 eq. 25: one value, then a smaller one."""
    late = progress >= config.mtp_switch_fraction
    return config.mtp_weight_late if late else config.mtp_weight


def bias_update_speed(config: TrainConfig, progress: float) -> float:
    """Gamma of the selection bias; 0 towards the end."""
    return 0.0 if progress >= config.bias_freeze_fraction else config.bias_update_speed


def learning_rate_of_step(config: StepSchedule, step: int) -> float:
    """Linear warm-up, then a cosine to min_learning_rate_ratio at max_steps."""
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    span = max(config.max_steps - config.warmup_steps, 1)
    cosine = 0.5 * (1 + math.cos(math.pi * min((step - config.warmup_steps) / span, 1.0)))
    lowest = config.min_learning_rate_ratio
    return config.learning_rate * (lowest + (1 - lowest) * cosine)
