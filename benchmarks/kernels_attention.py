"""MLA attention forward and backward: native kernel, SDPA with padded values, explicit twin.

    python benchmarks/kernels_attention.py [--threads 2] [--rounds 9] [--dtype bfloat16]

The shapes are those of one layer of m_tiny and m_small at sequence 512 and batch 8. Implementations
and a 2048-cubed fp32 product take turns in one process; a cell is the median with (min-max). FLOPs
count the causal half only: 2 (E + V) per visible pair forward and 2 (3 E + 2 V) backward, with E
the width of a key and V of a value. The share is that of the product's median.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from rorqual.kernels import fused_attention, twins_attention
from rorqual.kernels.library import native_library

SHAPES = {"m_tiny": (8, 512, 8, 32, 16, 32), "m_small": (8, 512, 8, 64, 32, 64)}  # B T N D R V
GEMM_SIZE = 2048


def make_inputs(shape: tuple[int, ...], dtype: torch.dtype) -> tuple[list[Tensor], list[Tensor]]:
    """q, kv, k_rope with gradients; cos, sin and the gradient of the output."""
    batch, tokens, heads, nope, rope, value = shape
    torch.manual_seed(0)
    angles = torch.outer(
        torch.arange(tokens).float(), 1e4 ** (-torch.arange(0, rope, 2) / rope)
    )  # [T, R/2]
    inputs = [
        torch.randn(batch, tokens, heads, nope + rope),
        torch.randn(batch, tokens, heads, nope + value),
        torch.randn(batch, tokens, rope),
    ]
    grad_out = torch.randn(batch, tokens, heads, value).to(dtype)
    return [t.to(dtype).requires_grad_() for t in inputs], [angles.cos(), angles.sin(), grad_out]


def time_step(
    attention: Callable[..., Tensor],
    shape: tuple[int, ...],
    inputs: list[Tensor],
    rest: list[Tensor],
) -> tuple[float, float]:
    """Seconds forward and backward."""
    nope, rope = shape[3], shape[4]
    begin = time.perf_counter()
    out = attention(*inputs, *rest[:2], None, (nope + rope) ** -0.5, nope)
    middle = time.perf_counter()
    torch.autograd.grad(out, inputs, rest[2])
    return middle - begin, time.perf_counter() - middle


def time_gemm(a: Tensor, b: Tensor) -> float:
    begin = time.perf_counter()
    a @ b
    return time.perf_counter() - begin


def cell(seconds: list[float], flops: float, gemm_flops_per_second: float) -> str:
    median = statistics.median(seconds)
    return (
        f"{1e3 * median:7.1f} ({1e3 * min(seconds):.1f}-{1e3 * max(seconds):.1f}) ms "
        f"{flops / median / 1e9:6.1f} GFLOP/s {flops / median / gemm_flops_per_second:4.0%}"
    )


def bench(name: str, dtype: torch.dtype, rounds: int, explicit_every: int = 3) -> None:
    library = native_library()
    implementations: dict[str, Callable[..., Tensor]] = {
        "sdpa": twins_attention.mla_attention,
        "explicit": twins_attention.mla_attention_explicit,
    }
    if library is not None:
        native = library.using(num_threads=torch.get_num_threads())
        implementations["native"] = partial(fused_attention.mla_attention, native)
    shape = SHAPES[name]
    inputs, rest = make_inputs(shape, dtype)
    a, b = torch.randn(2, GEMM_SIZE, GEMM_SIZE).unbind()
    gemm: list[float] = []
    steps: dict[str, list[tuple[float, float]]] = {key: [] for key in implementations}
    for index in range(rounds + 1):  # the first round warms up
        gemm.append(time_gemm(a, b))
        for key, attention in implementations.items():
            if key != "explicit" or index % explicit_every == 0:
                steps[key].append(time_step(attention, shape, inputs, rest))
    batch, tokens, heads, nope, rope, value = shape
    pairs = batch * heads * tokens * (tokens + 1) / 2
    speed = 2 * GEMM_SIZE**3 / statistics.median(gemm[1:])
    print(f"{name} {str(dtype).removeprefix('torch.')}: fp32 product {speed / 1e9:.0f} GFLOP/s")
    for key, times in steps.items():
        forward, backward = zip(*times[1:], strict=True)
        forward_cell = cell(list(forward), pairs * 2 * (nope + rope + value), speed)
        backward_cell = cell(list(backward), pairs * 2 * (3 * (nope + rope) + 2 * value), speed)
        print(f"  {key:9s} forward {forward_cell}   backward {backward_cell}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], action="append")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    for name in SHAPES:
        for dtype in options.dtype or ["float32", "bfloat16"]:
            bench(name, getattr(torch, dtype), options.rounds)


if __name__ == "__main__":
    main()
