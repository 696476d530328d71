"""Routed experts on the native kernels: `twins_moe.moe_experts` as one autograd function.

Forward keeps x, the weights, and gate and up before SiLU (in sorted order); backward recomputes
the hidden activations. Nothing of the size of the gathered rows or of the expert outputs is kept,
so memory stays below the twin's. Sums are fp32 for both dtypes; gradients come back in the dtype of
what they belong to. Results do not depend on the number of threads but for the last bits of the
weight gradients.
"""

# pyright: reportIncompatibleMethodOverride=false
# (once_differentiable returns another signature than Function.backward declares.)

from ctypes import c_int, c_int64, c_void_p
from typing import Any, Final

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from rorqual.kernels import twins_moe
from rorqual.kernels.library import Library
from rorqual.kernels.tensors import DTYPE_CODES, dense_rows, runs_natively

_SIZES: Final = (c_int, *(c_int64,) * 5)
_FORWARD: Final = (
    *_SIZES, c_void_p, c_int64, *(c_void_p,) * 4, c_int, *(c_void_p,) * 3,
)  # fmt: skip
_BACKWARD: Final = (
    *_SIZES, c_void_p, c_int64, *(c_void_p,) * 3, c_int, *(c_void_p,) * 3, c_int64,
    *(c_void_p,) * 4,
)  # fmt: skip
_MIN_TOKENS_PER_CHUNK: Final = 16


class _MoeExperts(Function):
    @staticmethod
    def forward(
        ctx: Any,
        library: Library,
        x: Tensor,
        expert_idx: Tensor,
        expert_weight: Tensor,
        gate_up: Tensor,
        down: Tensor,
    ) -> Tensor:
        num_tokens, num_chosen = expert_idx.shape
        num_experts, hidden_size, width = down.shape
        chunks = max(1, min(library.num_threads, num_tokens // _MIN_TOKENS_PER_CHUNK))
        num_rows = num_tokens * num_chosen
        activations = x.new_empty(num_rows, 2 * width)
        plan = torch.empty(2 * num_rows + chunks * (num_experts + 1), dtype=torch.int32)
        out = x.new_empty(num_tokens, hidden_size)
        sizes = (DTYPE_CODES[x.dtype], num_tokens, hidden_size, width, num_experts, num_chosen)
        library.call(
            "rq_moe_forward", _FORWARD, *sizes, x.data_ptr(), x.stride(0), expert_idx.data_ptr(),
            expert_weight.data_ptr(), gate_up.data_ptr(), down.data_ptr(), chunks,
            activations.data_ptr(), plan.data_ptr(), out.data_ptr(),
        )  # fmt: skip
        ctx.save_for_backward(x, expert_weight, gate_up, down, activations, plan)
        ctx.library, ctx.sizes, ctx.chunks = library, sizes, chunks
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:
        x, expert_weight, gate_up, down, activations, plan = ctx.saved_tensors
        grad_out = dense_rows(grad_out)
        grad_x, grad_expert_weight = x.new_empty(x.shape), torch.empty_like(expert_weight)
        grad_gate_up, grad_down = torch.empty_like(gate_up), torch.empty_like(down)
        ctx.library.call(
            "rq_moe_backward", _BACKWARD, *ctx.sizes, x.data_ptr(), x.stride(0),
            expert_weight.data_ptr(), gate_up.data_ptr(), down.data_ptr(), ctx.chunks,
            activations.data_ptr(), plan.data_ptr(), grad_out.data_ptr(), grad_out.stride(0),
            grad_x.data_ptr(), grad_expert_weight.data_ptr(), grad_gate_up.data_ptr(),
            grad_down.data_ptr(),
        )  # fmt: skip
        return None, grad_x, None, grad_expert_weight, grad_gate_up, grad_down


def moe_experts(
    library: Library,
    x: Tensor,
    expert_idx: Tensor,
    expert_weight: Tensor,
    gate_up: Tensor,
    down: Tensor,
) -> Tensor:
    """As `twins_moe.moe_experts`, on the library if x and the weights are all fp32 or all bf16."""
    if not runs_natively(x, gate_up, down) or x.shape[0] == 0:
        return twins_moe.moe_experts(x, expert_idx, expert_weight, gate_up, down)
    twins_moe.check_moe_shapes(x, expert_idx, expert_weight, gate_up, down)
    return _MoeExperts.apply(
        library,
        dense_rows(x),
        expert_idx.long().contiguous(),
        expert_weight.float().contiguous(),
        gate_up.contiguous(),
        down.contiguous(),
    )
