"""RMSNorm and SwiGLU in plain torch: the specification of `fused_norm`, and its fallback.

RMSNorm (arXiv 1910.07467) takes its statistics in fp32 and returns to the input's dtype before the
weight is applied, as DeepSeek's and transformers' code does. SwiGLU (arXiv 2002.05202) is
silu(gate) * up.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from rorqual.errors import ConfigError


def check_norm_shapes(x: Tensor, weight: Tensor) -> None:
    """Raises ConfigError unless the weight has one entry per column of x."""
    if x.ndim == 0 or weight.shape != x.shape[-1:]:
        raise ConfigError(
            f"rms_norm: weight {list(weight.shape)} must be one number per column of x "
            f"{list(x.shape)}"
        )


def check_swiglu_shapes(gate: Tensor, up: Tensor) -> None:
    """Raises ConfigError unless gate and up have one shape."""
    if gate.shape != up.shape:
        raise ConfigError(
            f"swiglu: gate {list(gate.shape)} and up {list(up.shape)} must have one shape"
        )


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """x / rms(x) * weight over the last axis. x [..., D], weight [D] -> [..., D] in x's dtype."""
    check_norm_shapes(x, weight)
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    rstd = torch.rsqrt(wide.square().mean(dim=-1, keepdim=True) + eps)  # [..., 1] fp32
    return (weight * (wide * rstd).to(x.dtype)).to(x.dtype)


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """silu(gate) * up. gate and up [..., F] -> [..., F]"""
    check_swiglu_shapes(gate, up)
    return F.silu(gate) * up
