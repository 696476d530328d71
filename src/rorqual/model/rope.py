"""Rotary positions for MLA's decoupled key, with YaRN (V3 section 4.3; arXiv 2309.00071).

Only `qk_rope_head_dim` channels are rotated, in interleaved pairs (2i, 2i+1) as DeepSeek's weights
expect. The tables are fp32; the attention kernels apply them.
"""

import math

import torch
from torch import Tensor

from rorqual.config import ModelConfig, YarnConfig, yarn_mscale


def inverse_frequencies(config: ModelConfig) -> Tensor:
    """Angular step per position of each rotated pair. [R/2] fp32"""
    dim = config.qk_rope_head_dim
    # The powers as float32, the way the reference computes them: last bits matter at 100k tokens.
    exponents = torch.arange(0, dim, 2, dtype=torch.float32, device="cpu") / dim
    frequencies = 1.0 / config.rope_theta**exponents
    if config.rope_scaling is None:
        return frequencies
    return _yarn_frequencies(frequencies, config.rope_scaling, dim, config.rope_theta)


def _yarn_frequencies(frequencies: Tensor, yarn: YarnConfig, dim: int, theta: float) -> Tensor:
    """Interpolate slow pairs by 1/factor, keep fast ones, ramp between. [R/2]"""

    def pair_index(num_rotations: float) -> float:
        """The (fractional) pair that turns `num_rotations` times over the original context."""
        length = yarn.original_max_position_embeddings
        return dim * math.log(length / (num_rotations * 2 * math.pi)) / (2 * math.log(theta))

    low = max(math.floor(pair_index(yarn.beta_fast)), 0)
    high = min(math.ceil(pair_index(yarn.beta_slow)), dim - 1)
    span = (high - low) or 0.001
    steps = torch.arange(dim // 2, dtype=torch.float32, device="cpu")
    interpolated = ((steps - low) / span).clamp(0, 1)  # [R/2]
    return frequencies / yarn.factor * interpolated + frequencies * (1 - interpolated)


def rope_tables(config: ModelConfig, num_positions: int) -> tuple[Tensor, Tensor]:
    """cos and sin of every position's rotation, scaled by YaRN's mscale ratio. 2 x [T, R/2] fp32"""
    angles = torch.outer(
        torch.arange(num_positions, dtype=torch.float32, device="cpu"), inverse_frequencies(config)
    )  # [T, R/2]
    ratio = 1.0
    yarn = config.rope_scaling
    if yarn is not None:
        ratio = yarn_mscale(yarn.factor, yarn.mscale or 1.0)
        if yarn.mscale and yarn.mscale_all_dim:
            ratio /= yarn_mscale(yarn.factor, yarn.mscale_all_dim)
    return angles.cos() * ratio, angles.sin() * ratio


def rotate_pairs(x: Tensor, rotation: Tensor) -> Tensor:
    """Rotate interleaved pairs: x [..., R], rotation broadcastable to [..., R/2]; x's dtype.

    rotation: the tables as complex numbers, cos + i sin.
    """
    pairs = torch.view_as_complex(x.float().unflatten(-1, (-1, 2)))  # [..., R/2]
    return torch.view_as_real(pairs * rotation).flatten(-2).to(x.dtype)
