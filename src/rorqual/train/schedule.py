"""What changes over a run, as functions of progress = tokens seen / token budget, in [0, 1]."""

import math

from rorqual.config import TrainConfig


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
