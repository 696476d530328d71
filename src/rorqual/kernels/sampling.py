"""Picking a token from each row of logits: settings, checks and the native path.

Each row is drawn from its own logits and its own uniform number alone, so a request's tokens depend
neither on its neighbours nor on thread timing. `sampling_twin.py` says what is computed.
"""

from ctypes import POINTER, Structure, byref, c_int64, c_void_p
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from rorqual.errors import ConfigError
from rorqual.kernels.library import Library


@dataclass(frozen=True, slots=True)
class SamplingRows:
    """How each of L rows is sampled.

    temperature [L]: 0 takes the most probable token; top_k [L]: 0 for all; top_p, min_p [L];
    uniform [L] float64 in [0, 1); allowed [M, ceil(V / 32)]: bit t % 32 of word t // 32 allows
    token t; allowed_row [L]: which of the M rows applies, -1 for every token.
    """

    temperature: NDArray[np.float32]
    top_k: NDArray[np.int32]
    top_p: NDArray[np.float32]
    min_p: NDArray[np.float32]
    uniform: NDArray[np.float64]
    allowed: NDArray[np.uint32]
    allowed_row: NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Sampled:
    """The picks [L]; -1 where nothing could be picked (nothing allowed, or a NaN logit).

    logprobs [L]: of the pick under softmax(logits), whatever the settings; drawn_logprobs [L]:
    under the distribution it was drawn from (temperature, filters and mask; 0 where greedy).
    """

    ids: NDArray[np.int32]
    logprobs: NDArray[np.float32]
    drawn_logprobs: NDArray[np.float32]


class _Arguments(Structure):
    """`rq::SampleArguments`."""

    _fields_ = [
        *((name, c_int64) for name in ("rows", "vocabulary", "allowed_words")),
        *(
            (name, c_void_p)
            for name in (
                "logits", "temperature", "top_p", "min_p", "top_k", "uniform", "allowed",
                "allowed_row", "ids", "logprobs", "drawn_logprobs",
            )
        ),
    ]  # fmt: skip


_SAMPLE: Final = (POINTER(_Arguments),)


def sample(library: Library, logits: NDArray[np.float32], rows: SamplingRows) -> Sampled:
    """One token from each row of logits [L, V]."""
    check_sampling(logits, rows)
    count, vocabulary = logits.shape
    ids, logprobs = np.empty(count, np.int32), np.empty(count, np.float32)
    out = Sampled(ids, logprobs, np.empty_like(logprobs))
    pointers = (
        logits, rows.temperature, rows.top_p, rows.min_p, rows.top_k, rows.uniform, rows.allowed,
        rows.allowed_row, out.ids, out.logprobs, out.drawn_logprobs,
    )  # fmt: skip
    arguments = _Arguments(
        count, vocabulary, rows.allowed.shape[1], *(array.ctypes.data for array in pointers)
    )
    threads = min(library.num_threads, count) if count * vocabulary > 1 << 14 else 1
    library.using(num_threads=max(1, threads)).call("rq_sample", _SAMPLE, byref(arguments))
    return out


def check_sampling(logits: NDArray[np.float32], rows: SamplingRows) -> None:
    """ConfigError names the first array that does not fit the logits."""
    if logits.ndim != 2:
        raise ConfigError(f"logits are {list(logits.shape)}, expected [L, V]")
    count, vocabulary = logits.shape
    words = (vocabulary + 31) // 32
    _check("logits", logits, np.float32, (count, vocabulary))
    _check("temperature", rows.temperature, np.float32, (count,))
    _check("top_k", rows.top_k, np.int32, (count,))
    _check("top_p", rows.top_p, np.float32, (count,))
    _check("min_p", rows.min_p, np.float32, (count,))
    _check("uniform", rows.uniform, np.float64, (count,))
    _check("allowed_row", rows.allowed_row, np.int32, (count,))
    _check("allowed", rows.allowed, np.uint32, (len(rows.allowed), words))
    if count and int(rows.allowed_row.max()) >= len(rows.allowed):
        raise ConfigError(
            f"allowed_row names row {int(rows.allowed_row.max())} of {len(rows.allowed)} masks"
        )


def _check(name: str, array: NDArray[Any], dtype: type[np.generic], shape: tuple[int, ...]) -> None:
    if array.dtype != dtype or array.shape != shape or not array.flags.c_contiguous:
        raise ConfigError(
            f"{name} is {array.dtype} {list(array.shape)}, expected contiguous "
            f"{np.dtype(dtype)} {list(shape)}"
        )
