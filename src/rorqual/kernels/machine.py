"""What this machine was just measured to do, so that a speed can be given as a share of it."""

import time
from ctypes import c_int64, c_void_p
from typing import Final

import numpy as np

from rorqual.errors import ConfigError
from rorqual.kernels.library import Library

_READ: Final = (c_void_p, c_int64, c_void_p)


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
    seconds: list[float] = []
    for _ in range(repeats + 1):  # the first pass warms caches and threads
        start = time.perf_counter()
        library.call("rq_read_memory", _READ, data.ctypes.data, count, check.ctypes.data)
        seconds.append(time.perf_counter() - start)
    return 4 * count / float(np.median(seconds[1:]))
