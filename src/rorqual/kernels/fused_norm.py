"""RMSNorm and SwiGLU on the native kernels: one pass over memory forward, one backward.

The RMSNorm weight's gradient is added in groups of rows whose number depends on the shape alone,
so results depend on neither the thread count nor timing.
"""

# pyright: reportIncompatibleMethodOverride=false
# (once_differentiable returns another signature than Function.backward declares.)

import ctypes
from typing import Any, Final

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from rorqual.kernels import twins_norm
from rorqual.kernels.library import Library
from rorqual.kernels.tensors import DTYPE_CODES, runs_natively

_POINTER: Final = ctypes.c_void_p
_COUNT: Final = ctypes.c_int64
_NORM_FORWARD: Final = (ctypes.c_int, _COUNT, _COUNT, ctypes.c_float, *(_POINTER,) * 4)
_NORM_BACKWARD: Final = (ctypes.c_int, _COUNT, _COUNT, *(_POINTER,) * 6)
_SWIGLU_FORWARD: Final = (ctypes.c_int, _COUNT, *(_POINTER,) * 3)
_SWIGLU_BACKWARD: Final = (ctypes.c_int, _COUNT, *(_POINTER,) * 5)


class _RmsNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, library: Library, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        width = x.shape[-1]
        rows = x.numel() // width if width else 0
        out = torch.empty_like(x)
        rstd = torch.empty(rows, dtype=torch.float32)
        pointers = [tensor.data_ptr() for tensor in (x, weight, out, rstd)]
        library.call(
            "rq_rms_norm_forward", _NORM_FORWARD, DTYPE_CODES[x.dtype], rows, width, eps, *pointers
        )
        ctx.save_for_backward(x, weight, rstd)
        ctx.library = library
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, rstd = ctx.saved_tensors
        grad_out = grad_out.contiguous()
        grad_x, grad_weight = torch.empty_like(x), torch.empty_like(weight)
        tensors = (x, weight, rstd, grad_out, grad_x, grad_weight)
        library: Library = ctx.library
        library.call(
            "rq_rms_norm_backward", _NORM_BACKWARD, DTYPE_CODES[x.dtype], rstd.numel(),
            weight.numel(), *(tensor.data_ptr() for tensor in tensors),
        )  # fmt: skip
        return None, grad_x, grad_weight, None


class _Swiglu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, library: Library, gate: Tensor, up: Tensor) -> Tensor:
        out = torch.empty_like(gate)
        pointers = [tensor.data_ptr() for tensor in (gate, up, out)]
        library.call(
            "rq_swiglu_forward", _SWIGLU_FORWARD, DTYPE_CODES[gate.dtype], gate.numel(), *pointers
        )
        ctx.save_for_backward(gate, up)
        ctx.library = library
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:
        gate, up = ctx.saved_tensors
        grad_out = grad_out.contiguous()
        grad_gate, grad_up = torch.empty_like(gate), torch.empty_like(up)
        pointers = [t.data_ptr() for t in (gate, up, grad_out, grad_gate, grad_up)]
        library: Library = ctx.library
        library.call(
            "rq_swiglu_backward", _SWIGLU_BACKWARD, DTYPE_CODES[gate.dtype], gate.numel(), *pointers
        )
        return None, grad_gate, grad_up


def rms_norm(library: Library, x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """`twins_norm.rms_norm` on native kernels."""
    if not runs_natively(x, weight):
        return twins_norm.rms_norm(x, weight, eps)
    twins_norm.check_norm_shapes(x, weight)
    return _RmsNorm.apply(library, x.contiguous(), weight.contiguous(), eps)


def swiglu(library: Library, gate: Tensor, up: Tensor) -> Tensor:
    """`twins_norm.swiglu` on native kernels."""
    if not runs_natively(gate, up):
        return twins_norm.swiglu(gate, up)
    twins_norm.check_swiglu_shapes(gate, up)
    return _Swiglu.apply(library, gate.contiguous(), up.contiguous())
