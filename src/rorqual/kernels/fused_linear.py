"""The linear layer, on the native product where that is the faster one.

In fp32 torch's own product (MKL) is as fast, so it stays. In bf16 torch is several times slower
than fp32 on processors without bf16 hardware; the native product widens to fp32 while packing. On
processors with AMX torch's bf16 product is kept: ours has not been measured there.
"""

# pyright: reportIncompatibleMethodOverride=false
# (once_differentiable returns another signature than Function.backward declares.)

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from rorqual.errors import ConfigError
from rorqual.kernels.gemm import gemm
from rorqual.kernels.library import Library
from rorqual.kernels.tensors import dense_rows, runs_natively


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, library: Library, x: Tensor, weight: Tensor) -> Tensor:
        rows = dense_rows(x.flatten(0, -2))  # [M, K]
        out = x.new_empty(rows.shape[0], weight.shape[0])  # [M, N]
        gemm(library, "NT", rows, weight, out)
        ctx.save_for_backward(rows, weight)
        ctx.library, ctx.x_shape = library, x.shape
        return out.view(*x.shape[:-1], -1)  # [..., N]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:
        rows, weight = ctx.saved_tensors
        grad_rows = dense_rows(grad_out.flatten(0, -2))  # [M, N]
        _, needs_x, needs_weight = ctx.needs_input_grad
        grad_x = grad_weight = None
        if needs_x:
            grad_x = torch.empty_like(rows, memory_format=torch.contiguous_format)  # [M, K]
            gemm(ctx.library, "NN", grad_rows, weight, grad_x)
            grad_x = grad_x.view(ctx.x_shape)  # [..., K]
        if needs_weight:
            grad_weight = torch.empty_like(weight, memory_format=torch.contiguous_format)  # [N, K]
            gemm(ctx.library, "TN", grad_rows, rows, grad_weight)
        return None, grad_x, grad_weight


def linear(library: Library, x: Tensor, weight: Tensor) -> Tensor:
    """x [..., K] times weight [N, K] transposed -> [..., N]"""
    if weight.ndim != 2 or x.shape[-1] != weight.shape[1]:
        raise ConfigError(
            f"linear: x {list(x.shape)} does not fit weight {list(weight.shape)}; the last axes "
            "of both must be equal"
        )
    own = x.dtype == torch.bfloat16 and library.isa != "amx" and x.numel() > 0 and x.ndim > 1
    if not own or not runs_natively(x, weight):
        return F.linear(x, weight)
    return _Linear.apply(library, x, dense_rows(weight))
