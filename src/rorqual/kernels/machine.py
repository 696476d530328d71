"""What this machine was just measured to do, so that a speed can be given as a share of it."""

import statistics
import time
from collections.abc import Callable
from ctypes import c_int, c_int64, c_void_p
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from rorqual.errors import ConfigError
from rorqual.kernels.library import Library, num_physical_cores

_READ: Final = (c_void_p, c_int64, c_void_p)
_PAIRS: Final = (c_void_p, c_void_p, c_int64, c_void_p)
_GEMM: Final = (*(c_int,) * 3, *(c_int64,) * 3, *(c_void_p, c_int64) * 3, c_int)  # kernels/gemm.py


def read_bytes_per_second(library: Library, num_bytes: int, repeats: int = 5) -> float:
    """How fast a buffer of `num_bytes` is read by all threads: the median of `repeats` passes.

    A model that decodes one sequence reads its touched weights once a token, so a buffer of as
    many bytes is its limit (smaller ones may live in a cache).
    """
    count = num_bytes // 4
    if count < 1 or repeats < 1:
        raise ConfigError(f"num_bytes={num_bytes} and repeats={repeats}: nothing to read")
    data = np.ones(count, np.float32)
    check = np.zeros(library.num_threads, np.float32)

    def read() -> None:
        library.call("rq_read_memory", _READ, data.ctypes.data, count, check.ctypes.data)

    return 4 * count / statistics.median(_times(read, repeats))


def gemm_flops_per_second(library: Library, size: int = 1024, repeats: int = 5) -> dict[str, float]:
    """Speed of a square matrix product [size, size] by name: the medians of `repeats`.

    Ours in fp32, in bf16 and, where the machine multiplies them, in pairs of bf16; and numpy's
    where `library` uses every core (it cannot be told otherwise): so that a share of the best of
    them is no share of our own weakness alone.
    """
    if size < 1 or repeats < 1:
        raise ConfigError(f"size={size} and repeats={repeats}: nothing to multiply")
    a, b = np.random.default_rng(0).standard_normal((2, size, size), np.float32)
    out = np.empty((size, size), np.float32)

    def product(dtype: int, left: NDArray[Any], right: NDArray[Any]) -> None:
        operands = [value for array in (left, right, out) for value in (array.ctypes.data, size)]
        library.call("rq_gemm", _GEMM, dtype, 0, 0, size, size, size, *operands, 0)

    halves = [(array.view(np.uint32) >> 16).astype(np.uint16) for array in (a, b)]  # bf16, cut off
    runs: dict[str, Callable[[], object]] = {
        "fp32": lambda: product(0, a, b),
        "bf16": lambda: product(1, *halves),
    }
    if library.rounds_rows and size % 64 == 0:
        check = np.zeros(library.num_threads, np.float32)
        places = [*(half.ctypes.data for half in halves), size, check.ctypes.data]
        runs["bf16 pairs"] = lambda: library.call("rq_multiply_pairs", _PAIRS, *places)
    if library.num_threads == num_physical_cores():
        runs["numpy fp32"] = lambda: np.matmul(a, b, out=out)
    return {
        name: 2 * size**3 / statistics.median(_times(run, repeats)) for name, run in runs.items()
    }


def _times(run: Callable[[], object], repeats: int) -> list[float]:
    """Seconds of each repeat after one that is not counted."""
    seconds: list[float] = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return seconds[1:]
