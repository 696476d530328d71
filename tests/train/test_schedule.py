"""Schedules by hand-computed values."""

import pytest

from rorqual.config import TrainConfig
from rorqual.train import schedule

V3 = TrainConfig(
    token_budget=14_800,
    sequences_per_step=15360,
    sequences_per_step_start=3072,
    batch_ramp_fraction=469 / 14_800,
    warmup_fraction=0.01,
    learning_rate_final=7.3e-6,
)


def test_learning_rate_rises_holds_falls_and_ends() -> None:
    rates = [
        schedule.learning_rate(V3, p) for p in (0, 0.005, 0.01, 0.5, 0.68, 0.825, 0.975, 0.995)
    ]
    expected = [0, 1.1e-4, 2.2e-4, 2.2e-4, 2.2e-4, (2.2e-4 + 2.2e-5) / 2, 2.2e-5, 7.3e-6]
    assert rates == pytest.approx(expected, rel=1e-6)


def test_batch_grows_in_multiples_along_the_ramp() -> None:
    half = 469 / 14_800 / 2
    assert schedule.sequences_per_step(V3, 0) == 3072
    assert schedule.sequences_per_step(V3, half) == (3072 + 15360) // 2
    assert schedule.sequences_per_step(V3, 0.5) == 15360
    assert schedule.sequences_per_step(V3, half, multiple=1000) == 9000


def test_mtp_weight_and_gamma_switch_once() -> None:
    assert [schedule.mtp_weight(V3, p) for p in (0, 0.67, 0.68, 1)] == [0.3, 0.3, 0.1, 0.1]
    assert [schedule.bias_update_speed(V3, p) for p in (0, 0.96, 0.97)] == [1e-3, 1e-3, 0]
