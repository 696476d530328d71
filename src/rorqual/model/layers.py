"""The three building blocks that are not DeepSeek's invention: Linear, RMSNorm and SwiGLU MLP.

Weights are kept in the dtype they are stored in (fp32 while training) and cast to the dtype of the
activations on use, so one module serves fp32 training, bf16 compute with fp32 master weights, and
bf16 inference.
"""

import torch
from torch import Tensor, nn

from rorqual.kernels.ops import Ops


class Linear(nn.Module):
    """y = x W^T, W [out, in] under the published name `weight`; never a bias."""

    def __init__(self, in_features: int, out_features: int, ops: Ops):
        super().__init__()
        self.ops = ops
        self.weight = nn.Parameter(torch.empty(out_features, in_features))

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] -> [..., out]"""
        return self.ops.linear(x, self.weight.to(x.dtype))


class RMSNorm(nn.Module):
    """x / rms(x) * weight over the last dimension, statistics in fp32."""

    def __init__(self, dim: int, eps: float, ops: Ops):
        super().__init__()
        self.ops, self.eps = ops, eps
        self.weight = nn.Parameter(torch.empty(dim))

    def forward(self, x: Tensor) -> Tensor:
        """[..., dim] -> [..., dim]"""
        return self.ops.rms_norm(x, self.weight.to(x.dtype), self.eps)


class MLP(nn.Module):
    """SwiGLU feed-forward: down(silu(gate(x)) * up(x)); dense layers and shared experts."""

    def __init__(self, hidden_size: int, intermediate_size: int, ops: Ops):
        super().__init__()
        self.ops = ops
        self.gate_proj = Linear(hidden_size, intermediate_size, ops)
        self.up_proj = Linear(hidden_size, intermediate_size, ops)
        self.down_proj = Linear(intermediate_size, hidden_size, ops)

    def forward(self, x: Tensor) -> Tensor:
        """[..., H] -> [..., H]"""
        return self.down_proj(self.ops.swiglu(self.gate_proj(x), self.up_proj(x)))
