"""Routed experts forward and backward: native, the twins, and padded rows.

    python benchmarks/kernels_moe.py [--threads 2] [--rounds 7] [--dtype bfloat16] [--skew 3]

One layer of m_tiny and m_small with 8 x 512 tokens. "padded" is plain torch with the rows of
each expert padded to those of the fullest, and one bmm per matrix. Implementations and a 2048-cubed
fp32 product take turns in one process; a cell is the median with (min-max). FLOPs are those of the
three products (twice in the backward) and count no padding.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from rorqual.kernels import fused_moe, twins_moe
from rorqual.kernels.library import native_library

SHAPES = {"m_tiny": (4096, 256, 128, 16, 4), "m_small": (4096, 512, 256, 32, 4)}  # M H F E K
GEMM_SIZE = 2048


def moe_experts_padded(
    x: Tensor, expert_idx: Tensor, expert_weight: Tensor, gate_up: Tensor, down: Tensor
) -> Tensor:
    """Every expert's rows padded to the most; one bmm per matrix."""
    experts, (tokens, chosen) = down.shape[0], expert_idx.shape
    flat = expert_idx.flatten()
    order = flat.argsort(stable=True)  # [M * K]
    counts = torch.bincount(flat, minlength=experts)
    most = int(counts.max())
    starts = counts.cumsum(0) - counts  # [E]
    place = flat[order] * most + torch.arange(flat.numel()) - starts[flat[order]]  # [M * K]
    source = torch.zeros(experts * most, dtype=torch.long).scatter_(0, place, order // chosen)
    rows = x[source].view(experts, most, -1)  # [E, most, H]
    gate, up = torch.bmm(rows, gate_up.transpose(1, 2)).chunk(2, dim=-1)  # [E, most, F]
    outputs = torch.bmm(F.silu(gate) * up, down.transpose(1, 2)).flatten(0, 1)
    where = torch.empty_like(order).scatter_(0, order, place)  # [M * K]
    slots = outputs[where].view(tokens, chosen, -1)  # [M, K, H]
    return (slots * expert_weight.unsqueeze(-1).to(x.dtype)).sum(dim=1)  # [M, H]


def make(shape: tuple[int, ...], dtype: torch.dtype, skew: float) -> list[Tensor]:
    tokens, hidden, width, experts, chosen = shape
    torch.manual_seed(0)
    scores = torch.rand(tokens, experts) + torch.linspace(0, skew, experts)
    return [
        torch.randn(tokens, hidden).to(dtype).requires_grad_(),
        scores.topk(chosen).indices,
        torch.rand(tokens, chosen).requires_grad_(),
        (torch.randn(experts, 2 * width, hidden) * hidden**-0.5).to(dtype).requires_grad_(),
        (torch.randn(experts, hidden, width) * width**-0.5).to(dtype).requires_grad_(),
    ]


def time_step(
    function: Callable[..., Tensor], operands: list[Tensor], grad_out: Tensor
) -> tuple[float, float]:
    """Seconds forward and backward."""
    begin = time.perf_counter()
    out = function(*operands)
    middle = time.perf_counter()
    torch.autograd.grad(out, [t for t in operands if t.requires_grad], grad_out)
    return middle - begin, time.perf_counter() - middle


def cell(seconds: tuple[float, ...], flops: float, speed: float) -> str:
    median = statistics.median(seconds)
    return (
        f"{1e3 * median:6.1f} ({1e3 * min(seconds):.1f}-{1e3 * max(seconds):.1f}) ms "
        f"{flops / median / 1e9:4.0f} GFLOP/s {flops / median / speed:4.0%}"
    )


def bench(name: str, dtype: torch.dtype, threads: int, rounds: int, skew: float) -> None:
    library = native_library()
    assert library is not None, "the native kernels are not built"
    contestants = {
        "native": partial(fused_moe.moe_experts, library.using(num_threads=threads)),
        "grouped": twins_moe.moe_experts_grouped,
        "padded": moe_experts_padded,
        "loop": twins_moe.moe_experts_loop,
    }
    shape = SHAPES[name]
    operands = make(shape, dtype, skew)
    grad_out = torch.randn(shape[:2]).to(dtype)
    yardstick = torch.randn(2, GEMM_SIZE, GEMM_SIZE)
    reference: list[float] = []
    steps: dict[str, list[tuple[float, float]]] = {key: [] for key in contestants}
    for _ in range(rounds + 1):  # the first round warms up
        begin = time.perf_counter()
        torch.mm(yardstick[0], yardstick[1])
        reference.append(time.perf_counter() - begin)
        for key, function in contestants.items():
            steps[key].append(time_step(function, operands, grad_out))
    speed = 2 * GEMM_SIZE**3 / statistics.median(reference[1:])
    print(f"{name} {dtype}: fp32 product {speed / 1e9:.0f} GFLOP/s")
    flops = 6.0 * shape[0] * shape[4] * shape[1] * shape[2]
    for key, times in steps.items():
        forward, backward = zip(*times[1:], strict=True)
        print(
            f"  {key:8s} forward {cell(forward, flops, speed)}"
            f"   backward {cell(backward, 2 * flops, speed)}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--skew", type=float, default=0.0, help="0: even routing; 3: crowded")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    for name in SHAPES:
        bench(name, getattr(torch, options.dtype), options.threads, options.rounds, options.skew)


if __name__ == "__main__":
    main()
