"""Output projection and cross entropy, a few hundred rows of logits at a time.

For a small model the logits are the largest activation by far: [4096, 8192] in fp32 are 128 MiB,
and plain torch holds several such. Here a chunk's logits become its loss and, in place, its
gradient, which is multiplied into the gradients of hidden and head at once; the upstream gradient
is a scalar and scales them in the backward. Logits, softmax and all sums are fp32; in bf16 the
gradient of the logits is rounded to bf16 on its way into the two products, as in the twin.
"""

# pyright: reportIncompatibleMethodOverride=false
# (once_differentiable returns another signature than Function.backward declares.)

import ctypes
from typing import Any, Final

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from rorqual.kernels import twins_loss
from rorqual.kernels.gemm import gemm
from rorqual.kernels.library import Library
from rorqual.kernels.tensors import DTYPE_CODES, runs_natively

_COUNT: Final = ctypes.c_int64
_POINTER: Final = ctypes.c_void_p
_CROSS_ENTROPY: Final = (_COUNT, _COUNT, *(_POINTER,) * 3, ctypes.c_int, _POINTER)
_CHUNK_LOGITS: Final = 1 << 22  # 16 MiB: products are large enough to be fast, the rest stays small


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        library: Library,
        hidden: Tensor,
        head: Tensor,
        targets: Tensor,
        want_grad: bool,
    ) -> Tensor:
        num_rows, vocab_size = hidden.shape[0], head.shape[0]
        chunk = max(16, min(num_rows, _CHUNK_LOGITS // vocab_size))
        losses = torch.empty(num_rows, dtype=torch.float32)
        grad_hidden = torch.empty(hidden.shape if want_grad else 0, dtype=torch.float32)
        grad_head = torch.zeros(head.shape if want_grad else 0, dtype=torch.float32)
        buffer = torch.empty(chunk, vocab_size, dtype=torch.float32)
        in_place = hidden.dtype == torch.float32
        grad_buffer = buffer if in_place else torch.empty_like(buffer, dtype=hidden.dtype)
        for begin in range(0, num_rows, chunk):
            rows = hidden[begin : begin + chunk]  # [C, H]
            logits, grads = buffer[: len(rows)], grad_buffer[: len(rows)]  # [C, V]
            gemm(library, "NT", rows, head, logits)
            library.call(
                "rq_cross_entropy", _CROSS_ENTROPY, len(rows), vocab_size, logits.data_ptr(),
                targets[begin:].data_ptr(), losses[begin:].data_ptr(), DTYPE_CODES[grads.dtype],
                grads.data_ptr() if want_grad else None,
            )  # fmt: skip
            if want_grad:
                gemm(library, "NN", grads, head, grad_hidden[begin : begin + chunk])
                gemm(library, "TN", grads, rows, grad_head, accumulate=True)
        ctx.save_for_backward(grad_hidden, grad_head)
        ctx.dtypes = hidden.dtype, head.dtype
        return losses.sum(dtype=torch.float64).float()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_loss: Tensor) -> tuple[Tensor | None, ...]:
        grad_hidden, grad_head = ctx.saved_tensors
        hidden_dtype, head_dtype = ctx.dtypes
        return (
            None,
            (grad_hidden * grad_loss).to(hidden_dtype),
            (grad_head * grad_loss).to(head_dtype),
            None,
            None,
        )


def linear_cross_entropy(library: Library, hidden: Tensor, head: Tensor, targets: Tensor) -> Tensor:
    """`twins_loss.linear_cross_entropy` on native kernels; never holds all logits."""
    if not runs_natively(hidden, head) or targets.dtype != torch.int64:
        return twins_loss.linear_cross_entropy(hidden, head, targets)
    twins_loss.check_loss_shapes(hidden, head, targets)
    twins_loss.check_targets(targets, head.shape[0])
    want_grad = torch.is_grad_enabled() and (hidden.requires_grad or head.requires_grad)
    return _LinearCrossEntropy.apply(
        library, hidden.contiguous(), head.contiguous(), targets.contiguous(), want_grad
    )
