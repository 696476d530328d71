"""The one place that chooses between native kernels and torch twins.

A model takes an `Ops` and calls its fields; it never asks which path runs. Native ops send what
the library cannot read (another device or dtype) to their twin by themselves.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

from torch import Tensor
from torch.nn import functional

from rorqual.errors import ConfigError
from rorqual.kernels import (
    fused_attention,
    fused_linear,
    fused_loss,
    fused_moe,
    fused_norm,
    twins_attention,
    twins_loss,
    twins_moe,
    twins_norm,
)
from rorqual.kernels.library import Library, native_library
from rorqual.kernels.twins_attention import Gap


@dataclass(frozen=True)
class Ops:
    """The hot operations of a model, all from one path. Signatures: the twin of each."""

    moe_experts: Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]
    mla_attention: Callable[
        [Tensor, Tensor, Tensor, Tensor, Tensor, Tensor | None, float, int, Gap | None], Tensor
    ]
    rms_norm: Callable[[Tensor, Tensor, float], Tensor]
    swiglu: Callable[[Tensor, Tensor], Tensor]
    linear: Callable[[Tensor, Tensor], Tensor]
    linear_cross_entropy: Callable[[Tensor, Tensor, Tensor], Tensor]


_TWINS = Ops(
    moe_experts=twins_moe.moe_experts,
    mla_attention=twins_attention.mla_attention,
    rms_norm=twins_norm.rms_norm,
    swiglu=twins_norm.swiglu,
    linear=functional.linear,
    linear_cross_entropy=twins_loss.linear_cross_entropy,
)


def _native_ops(library: Library) -> Ops:
    return Ops(
        moe_experts=partial(fused_moe.moe_experts, library),
        mla_attention=partial(fused_attention.mla_attention, library),
        rms_norm=partial(fused_norm.rms_norm, library),
        swiglu=partial(fused_norm.swiglu, library),
        linear=partial(fused_linear.linear, library),
        linear_cross_entropy=partial(fused_loss.linear_cross_entropy, library),
    )


def select_ops(
    kind: Literal["auto", "native", "twin"] = "auto", num_threads: int | None = None
) -> Ops:
    """Ops of a kind: "auto" is native where the library is there, else the twins (one warning).

    num_threads: of the native kernels (None: one per core this process may use).
    """
    if kind == "twin":
        return _TWINS
    library = native_library()
    if library is not None:
        return _native_ops(library.using(num_threads=num_threads))
    if kind == "native":
        raise ConfigError(
            'kernels="native" but the native library is missing; build it (`pip install .` with a '
            'C++ compiler) or set kernels="auto"'
        )
    return _TWINS
