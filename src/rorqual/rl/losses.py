"""The policy-gradient loss in its parts: ratio and clipping, KL, and how tokens are averaged.

All per-token tensors are flat, [M]: the completion tokens of a step one after another, with
`sequence` [M] naming the completion each belongs to. Three log-probability slots exist from the
start: of the sampler, of the policy before this step's first update (old), and of the policy now.
"""

from typing import Literal

import torch
from torch import Tensor

Aggregation = Literal["grpo", "dr_grpo", "dapo"]


def clipped_surrogate(
    logp: Tensor, old_logp: Tensor, advantage: Tensor, epsilon: float, epsilon_high: float
) -> Tensor:
    """PPO's pessimistic objective as a loss [M] (GRPO eq. 3; clip-higher: DAPO eq. 10)."""
    ratio = (logp - old_logp).exp()
    clipped = ratio.clamp(1 - epsilon, 1 + epsilon_high)
    return -torch.minimum(ratio * advantage, clipped * advantage)


def k3_kl(logp: Tensor, ref_logp: Tensor) -> Tensor:
    """Schulman's low-variance estimate of KL(policy, reference) per token (GRPO eq. 4). [M]"""
    log_ratio = ref_logp - logp
    return log_ratio.exp() - log_ratio - 1


def aggregation_weights(
    sequence: Tensor, num_sequences: int, max_length: int, kind: Aggregation
) -> Tensor:
    """What each token's loss is multiplied by, so that the weighted sum is the step's loss. [M]

    grpo: mean over sequences of the mean over a sequence's tokens; dr_grpo: the sum over sequences
    and the longest allowed length, a constant; dapo: mean over all tokens of the step. The weights
    are of the whole step, so micro-batches simply add up.
    """
    if kind == "dr_grpo":
        return torch.full(sequence.shape, 1.0 / (num_sequences * max_length))
    if kind == "dapo":
        return torch.full(sequence.shape, 1.0 / max(len(sequence), 1))
    lengths = torch.bincount(sequence, minlength=num_sequences).clamp(min=1)  # [sequences]
    return 1.0 / (lengths[sequence].float() * num_sequences)


def clip_fractions(
    logp: Tensor, old_logp: Tensor, advantage: Tensor, epsilon: float, epsilon_high: float
) -> tuple[float, float]:
    """Shares of tokens whose gradient the lower and the upper clip cut off."""
    if logp.numel() == 0:
        return 0.0, 0.0
    ratio = (logp - old_logp).exp()
    low = (ratio < 1 - epsilon) & (advantage < 0)
    high = (ratio > 1 + epsilon_high) & (advantage > 0)
    return float(low.float().mean()), float(high.float().mean())
