"""MLA attention on the native kernels: blockwise, without a score matrix in memory.

The forward keeps the output and one log-sum-exp per query and head; the backward recomputes the
probabilities block by block. Arithmetic is fp32 whatever the dtype. Results depend on neither the
thread count nor timing: a head belongs to one thread, and heads are added in order.
"""

# pyright: reportIncompatibleMethodOverride=false
# (once_differentiable returns another signature than Function.backward declares.)

import ctypes
from typing import Any, Final

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from rorqual.kernels import twins_attention
from rorqual.kernels.library import Library
from rorqual.kernels.tensors import DTYPE_CODES, runs_natively

_SHAPE: Final = (ctypes.c_int, *(ctypes.c_int64,) * 6, ctypes.c_float)
_INPUTS: Final = (*_SHAPE, *(ctypes.c_void_p,) * 8, ctypes.c_int)
_FORWARD: Final = (*_INPUTS, *(ctypes.c_void_p,) * 2)
_BACKWARD: Final = (*_INPUTS, *(ctypes.c_void_p,) * 6)


class _MlaAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        library: Library,
        q: Tensor,
        kv: Tensor,
        k_rope: Tensor,
        cos: Tensor,
        sin: Tensor,
        document_start: Tensor | None,
        gap_start: Tensor | None,
        gap_end: Tensor | None,
        softmax_scale: float,
        nope_head_dim: int,
    ) -> Tensor:
        batch, tokens, heads, _ = q.shape
        value_dim = kv.shape[-1] - nope_head_dim
        rope_dim = k_rope.shape[-1]
        shape = (batch, tokens, heads, nope_head_dim, rope_dim, value_dim)
        out = q.new_empty(batch, tokens, heads, value_dim)
        lse = torch.empty(batch, heads, tokens, dtype=torch.float32)
        inputs = (q, kv, k_rope, cos, sin, document_start, gap_start, gap_end)
        library.call(
            "rq_attention_forward", _FORWARD, DTYPE_CODES[q.dtype], *shape, softmax_scale,
            *map(_address, inputs), cos.ndim == 3, out.data_ptr(), lse.data_ptr(),
        )  # fmt: skip
        ctx.save_for_backward(*inputs, out, lse)
        ctx.library, ctx.shape, ctx.softmax_scale = library, shape, softmax_scale
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:
        *inputs, out, lse = ctx.saved_tensors
        q, kv, k_rope, cos = inputs[:4]
        grad_out = grad_out.contiguous()
        grads = (torch.empty_like(q), torch.empty_like(kv), torch.empty_like(k_rope))
        others = [tensor.data_ptr() for tensor in (out, lse, grad_out, *grads)]
        library: Library = ctx.library
        library.call(
            "rq_attention_backward", _BACKWARD, DTYPE_CODES[q.dtype], *ctx.shape,
            ctx.softmax_scale, *map(_address, inputs), cos.ndim == 3, *others,
        )  # fmt: skip
        return (None, *grads, *(None,) * 7)


def _address(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def mla_attention(
    library: Library,
    q: Tensor,
    kv: Tensor,
    k_rope: Tensor,
    cos: Tensor,
    sin: Tensor,
    document_start: Tensor | None,
    softmax_scale: float,
    nope_head_dim: int,
    gap: twins_attention.Gap | None = None,
) -> Tensor:
    """`twins_attention.mla_attention` on native kernels; cos and sin get no gradient."""
    fp32_angles = cos.dtype == torch.float32 and runs_natively(cos, sin)
    if not fp32_angles or not runs_natively(q, kv, k_rope):
        return twins_attention.mla_attention(
            q, kv, k_rope, cos, sin, document_start, softmax_scale, nope_head_dim, gap
        )
    twins_attention.check_attention_shapes(
        q, kv, k_rope, cos, sin, document_start, nope_head_dim, gap
    )
    visible = (document_start, *(gap or (None, None)))
    limits = (None if t is None else t.to(torch.int32).contiguous() for t in visible)
    operands = (tensor.contiguous() for tensor in (q, kv, k_rope, cos, sin))
    return _MlaAttention.apply(library, *operands, *limits, softmax_scale, nope_head_dim)
