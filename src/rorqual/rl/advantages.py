"""From rewards to advantages: how much better than its group each completion was.

GRPO divides by the group's standard deviation (DeepSeekMath, section 4.1); Dr. GRPO shows that
this favours groups that are nearly all right or all wrong and drops it (arXiv 2503.20783), as does
DeepSeek-V3.2; Lite PPO divides by the batch's (arXiv 2508.08221).
"""

from typing import Literal

import torch
from torch import Tensor

STD_EPSILON = 1e-4  # as TRL adds it


def group_advantages(rewards: Tensor, scale: Literal["none", "group", "batch"]) -> Tensor:
    """rewards [P, G] of P prompts with G completions each -> advantages [P, G] fp32"""
    rewards = rewards.float()
    centred = rewards - rewards.mean(dim=1, keepdim=True)
    if scale == "none":
        return centred
    spread = rewards.std(dim=1, keepdim=True) if scale == "group" else rewards.std()
    return centred / (spread + STD_EPSILON)


def has_signal(rewards: Tensor) -> Tensor:
    """Groups whose rewards differ: the only ones that say anything. [P, G] -> [P] bool"""
    return (rewards - rewards[:, :1]).abs().amax(dim=1) > 1e-6


def soft_overlong_penalty(lengths: Tensor, max_length: int, buffer: int) -> Tensor:
    """DAPO eq. 13: 0 up to max_length - buffer, then linearly to -1 at max_length. [M] -> [M]"""
    over = (lengths.float() - (max_length - buffer)) / max(buffer, 1)
    return -over.clamp(min=0.0, max=1.0) if buffer else torch.zeros_like(over)
