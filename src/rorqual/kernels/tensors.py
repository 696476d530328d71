"""Torch tensors at the C boundary: which can cross it, and how they are named there."""

from typing import Final

import torch
from torch import Tensor

DTYPE_CODES: Final = {torch.float32: 0, torch.bfloat16: 1}


def runs_natively(*tensors: Tensor) -> bool:
    """Whether all tensors are plain CPU tensors of one dtype that the kernels read.

    Anything else (CUDA, fp64, meta, DTensor and other subclasses, a dtype mix, tracing by
    torch.compile) takes the twin.
    """
    dtype = tensors[0].dtype
    if dtype not in DTYPE_CODES or torch.compiler.is_compiling():
        return False
    return all(
        tensor.device.type == "cpu"
        and tensor.dtype == dtype
        and type(tensor) in (Tensor, torch.nn.Parameter)
        for tensor in tensors
    )


def dense_rows(tensor: Tensor) -> Tensor:
    """The tensor itself if the elements of its last axis are adjacent, else a contiguous copy."""
    return tensor if tensor.stride(-1) == 1 else tensor.contiguous()
