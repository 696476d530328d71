"""Losses and advantages against numbers worked out by hand."""

import math

import pytest
import torch
from torch import Tensor

from rorqual.rl.advantages import group_advantages, has_signal, soft_overlong_penalty
from rorqual.rl.losses import (
    Aggregation,
    aggregation_weights,
    clip_fractions,
    clipped_surrogate,
    k3_kl,
)


def close(a: Tensor, b: list[float] | list[list[float]]) -> None:
    torch.testing.assert_close(a, torch.tensor(b), rtol=1e-5, atol=1e-6)


def test_advantages_without_scaling_are_reward_minus_group_mean() -> None:
    rewards = torch.tensor([[1.0, 0.0, 0.0, 0.0], [1.0, 1.0, 0.0, 0.0]])
    close(
        group_advantages(rewards, "none"),
        [[0.75, -0.25, -0.25, -0.25], [0.5, 0.5, -0.5, -0.5]],
    )


def test_group_scaling_divides_by_the_sample_deviation_of_the_group() -> None:
    # mean 1/4; squared deviations 9/16 + 3/16 = 12/16; over 3: 1/4; root 1/2
    close(
        group_advantages(torch.tensor([[1.0, 0.0, 0.0, 0.0]]), "group"),
        [[0.75 / 0.5001, -0.25 / 0.5001, -0.25 / 0.5001, -0.25 / 0.5001]],
    )


def test_batch_scaling_divides_by_the_deviation_of_all_rewards() -> None:
    rewards = torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    # all four: mean 1/4, deviation 1/2 as above
    close(group_advantages(rewards, "batch"), [[0.5 / 0.5001, -0.5 / 0.5001], [0.0, 0.0]])


def test_groups_of_equal_rewards_have_no_signal() -> None:
    rewards = torch.tensor([[1.0, 1.0], [0.0, 0.0], [1.0, 0.0], [0.3, 0.3 + 1e-9]])
    assert has_signal(rewards).tolist() == [False, False, True, False]


def test_overlong_penalty_falls_linearly_over_the_buffer() -> None:
    lengths = torch.tensor([10, 80, 90, 100])
    close(soft_overlong_penalty(lengths, max_length=100, buffer=20), [0.0, 0.0, -0.5, -1.0])
    close(soft_overlong_penalty(lengths, max_length=100, buffer=0), [0.0, 0.0, 0.0, 0.0])


def test_surrogate_clips_only_what_would_gain() -> None:
    ratio = torch.tensor([0.5, 0.5, 1.0, 1.5, 1.5])
    advantage = torch.tensor([1.0, -1.0, 2.0, 1.0, -1.0])
    loss = clipped_surrogate(ratio.log(), torch.zeros(5), advantage, 0.2, 0.28)
    close(loss, [-0.5, 0.8, -2.0, -1.28, 1.5])


def test_clipped_tokens_carry_no_gradient() -> None:
    logp = torch.tensor([math.log(0.5), math.log(1.5), math.log(1.1)], requires_grad=True)
    advantage = torch.tensor([-1.0, 1.0, 1.0])
    clipped_surrogate(logp, torch.zeros(3), advantage, 0.2, 0.28).sum().backward()
    assert logp.grad is not None
    close(logp.grad, [0.0, 0.0, -1.1])
    low, high = clip_fractions(logp.detach(), torch.zeros(3), advantage, 0.2, 0.28)
    assert (low, high) == (pytest.approx(1 / 3), pytest.approx(1 / 3))


def test_on_policy_gradient_is_minus_the_advantage() -> None:
    logp = torch.tensor([-0.3, -2.0], requires_grad=True)
    clipped_surrogate(logp, logp.detach(), torch.tensor([0.7, -0.4]), 0.2, 0.28).sum().backward()
    assert logp.grad is not None
    close(logp.grad, [-0.7, 0.4])


def test_k3_is_zero_at_equality_and_follows_its_formula() -> None:
    logp, ref = torch.tensor([-1.0, -1.0, -2.0]), torch.tensor([-1.0, -2.0, -1.0])
    # r = ref - logp: e^r - r - 1
    close(k3_kl(logp, ref), [0.0, math.exp(-1), math.e - 2])


def test_k3_averages_to_the_kl_divergence() -> None:
    p, q = torch.tensor([0.7, 0.2, 0.1]), torch.tensor([0.5, 0.3, 0.2])
    expected = float((p * (p / q).log()).sum())
    estimate = float((p * k3_kl(p.log(), q.log())).sum())
    assert estimate == pytest.approx(expected, rel=1e-5)


SEQUENCE = torch.tensor([0, 0, 1, 1, 1, 1])  # completions of 2 and 4 tokens
LOSS = torch.tensor([1.0, 3.0, 2.0, 2.0, 2.0, 6.0])


def total(kind: Aggregation) -> float:
    return float((LOSS * aggregation_weights(SEQUENCE, 2, 10, kind)).sum())


def test_grpo_averages_within_then_over_sequences() -> None:
    assert total("grpo") == pytest.approx((2.0 + 3.0) / 2)


def test_dapo_averages_over_all_tokens() -> None:
    assert total("dapo") == pytest.approx(16 / 6)


def test_dr_grpo_divides_by_a_constant() -> None:
    assert total("dr_grpo") == pytest.approx(16 / 20)
