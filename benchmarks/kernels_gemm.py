"""The native matrix product against torch's at the shapes of a training step.

    python benchmarks/kernels_gemm.py [--threads 2] [--rounds 9] [--dtype float32|bfloat16]

Both take turns in one process, with a 2048-cubed fp32 product of torch as the yardstick; a cell is
the median with (min-max) in GFLOP/s. NT, NN and TN are a linear layer's forward, gradient of the
input and gradient of the weight.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch

from rorqual.kernels.gemm import Layout, gemm
from rorqual.kernels.library import native_library

SHAPES = [  # M, N, K of the forward, with 8 x 512 tokens
    (2048, 2048, 2048),
    (4096, 256, 256),
    (4096, 512, 512),
    (4096, 1024, 128),
    (4096, 1536, 512),
    (4096, 8192, 512),
]
LAYOUTS: tuple[Layout, ...] = ("NT", "NN", "TN")


def timed(function: Callable[[], object]) -> float:
    begin = time.perf_counter()
    function()
    return time.perf_counter() - begin


def cell(seconds: list[float], flops: float) -> str:
    speeds = sorted(flops / second / 1e9 for second in seconds)
    return f"{statistics.median(speeds):5.0f} ({speeds[0]:.0f}-{speeds[-1]:.0f})"


def products(
    layout: Layout, shape: tuple[int, int, int], dtype: torch.dtype, threads: int
) -> dict[str, Callable[[], object]]:
    """The same product by torch and natively."""
    m, n, k = shape
    rows, columns, depth = {"NT": (m, n, k), "NN": (m, k, n), "TN": (n, k, m)}[layout]
    a = torch.randn((depth, rows) if layout == "TN" else (rows, depth)).to(dtype)
    b = torch.randn((columns, depth) if layout == "NT" else (depth, columns)).to(dtype)
    out = torch.empty(rows, columns, dtype=dtype)
    left, right = a.T if layout == "TN" else a, b.T if layout == "NT" else b
    library = native_library()
    assert library is not None, "the native kernels are not built"
    native = library.using(num_threads=threads)
    return {
        "native": lambda: gemm(native, layout, a, b, out),
        "torch": lambda: torch.mm(left, right, out=out),
    }


def bench(shape: tuple[int, int, int], dtype: torch.dtype, threads: int, rounds: int) -> None:
    flops = 2.0 * shape[0] * shape[1] * shape[2]
    yardstick = torch.randn(2, 2048, 2048)
    reference: list[float] = []
    for layout in LAYOUTS:
        contestants = products(layout, shape, dtype, threads)
        seconds: dict[str, list[float]] = {name: [] for name in contestants}
        for index in range(rounds + 1):  # the first round warms up
            if index % 3 == 0:
                reference.append(timed(lambda: yardstick[0] @ yardstick[1]))
            for name, function in contestants.items():
                seconds[name].append(timed(function))
        cells = [f"{name} {cell(times[1:], flops)}" for name, times in seconds.items()]
        share = flops / statistics.median(seconds["native"][1:])
        share /= 2 * 2048**3 / statistics.median(reference)
        print(f"{shape!s:18s} {layout} {'  '.join(cells)} GFLOP/s, {share:.0%} of 2048-cubed")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    for shape in SHAPES:
        bench(shape, getattr(torch, options.dtype), options.threads, options.rounds)


if __name__ == "__main__":
    main()
