"""Drawing tokens from logits, a whole batch at once: the specification of the native sampler.

A token is drawn by inverse transform: one uniform number per row against the cumulated
probabilities, in the order of the ids. So a row depends on its own logits and number alone, and
without truncation the pick is model/sample.py's.

The sum over the vocabulary is taken in pieces of 128, each summed pairwise in fp32 and cumulated in
double precision; only the piece that the number falls into is cumulated one by one.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

_PIECE: Final = 128
_FIRST_CANDIDATES: Final = 1024
_LOWEST: Final = -1e4  # stands for the logarithm of nothing, so that 0 * log 0 is 0


@dataclass(frozen=True, slots=True)
class SamplingRows:
    """How each of S rows is drawn.

    temperature [S] fp32 (0: greedy), top_k [S] int32 (0: all), top_p [S] and min_p [S] fp32,
    uniform [S] float64 in [0, 1).
    """

    temperature: NDArray[np.float32]
    top_k: NDArray[np.int32]
    top_p: NDArray[np.float32]
    min_p: NDArray[np.float32]
    uniform: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Draws:
    """token_ids [S] int64; of the distribution drawn from, if asked: the token's log-probability
    and the entropy in nats, both [S] float64."""

    token_ids: NDArray[np.int64]
    logprobs: NDArray[np.float64] | None = None
    entropies: NDArray[np.float64] | None = None


def draw_tokens(
    logits: NDArray[np.float32], rows: SamplingRows, *, policy_stats: bool = False
) -> Draws:
    """One token per row: logits [S, V] are divided by the temperature, truncated, drawn from.

    Truncation: min_p, then top_k (ties with the k-th stay), then top_p of what is left (equal
    probabilities by id); the likeliest token always stays.
    """
    greedy = rows.temperature == 0  # [S]
    if not policy_stats and greedy.all():
        return Draws(logits.argmax(axis=1))
    if not (greedy | (rows.temperature == 1)).all():
        divisor = np.where(greedy, 1, rows.temperature).astype(np.float32)
        logits = logits / divisor[:, None]  # [S, V]
    shifted = logits - logits.max(axis=1, keepdims=True)  # [S, V]
    weight = np.exp(shifted)  # [S, V], the probability times an unknown
    truncated = ((rows.top_k > 0) | (rows.top_p < 1) | (rows.min_p > 0)) & ~greedy
    for row in np.flatnonzero(truncated):
        _truncate(weight[row], int(rows.top_k[row]), float(rows.top_p[row]), rows.min_p[row])
    picked, total = _invert(weight, rows.uniform)
    if greedy.any():
        picked[greedy] = logits[greedy].argmax(axis=1)
    if not policy_stats:
        return Draws(picked)
    # log p = shifted - log total, and so the entropy is log total - sum p shifted.
    log_total = np.log(total)  # [S]
    chosen = np.take_along_axis(shifted, picked[:, None], axis=1)[:, 0] - log_total
    mean = (weight * np.maximum(shifted, _LOWEST)).sum(axis=1, dtype=np.float64) / total
    return Draws(picked, chosen, log_total - mean)


def _truncate(weight: NDArray[np.float32], top_k: int, top_p: float, min_p: np.float32) -> None:
    """Zero what the row's parameters cut off. weight [V], its largest 1"""
    if min_p > 0:
        weight[weight < min_p] = 0
    size = len(weight)
    if 0 < top_k < size:
        smallest = np.partition(weight, size - top_k)[size - top_k]
        weight[weight < smallest] = 0
    if top_p < 1:
        wanted = top_p * float(weight.sum(dtype=np.float64))
        num_candidates = min(_FIRST_CANDIDATES, size)
        while True:
            kept = _nucleus(weight, wanted, num_candidates)
            if len(kept) < num_candidates or num_candidates == size:
                break
            num_candidates = min(4 * num_candidates, size)
        values = weight[kept]
        weight[:] = 0
        weight[kept] = values


def _nucleus(weight: NDArray[np.float32], wanted: float, num_candidates: int) -> NDArray[np.int64]:
    """The likeliest ids until their mass reaches `wanted`, among so many candidates."""
    size = len(weight)
    if num_candidates < size:
        found = np.argpartition(weight, size - num_candidates)[size - num_candidates :]
        found.sort()
    else:
        found = np.arange(size)
    found = found[np.argsort(-weight[found], kind="stable")]
    mass = weight[found].cumsum(dtype=np.float64)
    before = mass - weight[found]
    return found[: int(np.count_nonzero(before < wanted))]


def _invert(
    weight: NDArray[np.float32], uniform: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Where uniform * total falls among the cumulated weights: ids [S], totals [S] float64"""
    num_rows, size = weight.shape
    whole = size - size % _PIECE
    sums = weight[:, :whole].reshape(num_rows, -1, _PIECE).sum(axis=2)  # [S, pieces] fp32
    if whole < size:
        rest = weight[:, whole:].sum(axis=1, keepdims=True)  # [S, 1]
        sums = np.concatenate((sums, rest), axis=1)  # [S, pieces]
    ends = sums.cumsum(axis=1, dtype=np.float64)  # [S, pieces]
    total = ends[:, -1]
    point = uniform * total  # [S]
    piece = np.minimum((ends <= point[:, None]).sum(axis=1), ends.shape[1] - 1)  # [S]
    rows = np.arange(num_rows)
    columns = piece[:, None] * _PIECE + np.arange(_PIECE)  # [S, 128]
    inside = weight[rows[:, None], np.minimum(columns, size - 1)]  # [S, 128]
    if whole < size:
        inside[columns >= size] = 0
    cumulated = inside.cumsum(axis=1, dtype=np.float64)
    cumulated += (ends[rows, piece] - sums[rows, piece])[:, None]
    place = np.minimum((cumulated <= point[:, None]).sum(axis=1), _PIECE - 1)  # [S]
    picked = columns[rows, place]
    for row in np.flatnonzero(inside[rows, place] == 0):
        # Rounding put the point behind the last token of the piece that can be drawn.
        possible = np.flatnonzero(weight[row, : columns[row, -1] + 1])
        picked[row] = possible[-1]
    return picked, total


def log_normalizers(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """log sum exp of each row, in double precision: logits [S, V] -> [S]"""
    largest = logits.max(axis=1)  # [S]
    total = np.exp(logits - largest[:, None]).sum(axis=1, dtype=np.float64)  # [S]
    return np.log(total) + largest


def likeliest(
    logits: NDArray[np.float32], normalizer: float, count: int
) -> tuple[tuple[int, float], ...]:
    """The `count` likeliest ids of a row [V] with their log-probabilities, best first."""
    if not count:
        return ()
    count = min(count, len(logits))
    found = np.argpartition(logits, len(logits) - count)[len(logits) - count :]
    found.sort()
    found = found[np.argsort(-logits[found], kind="stable")]
    return tuple((int(token), float(logits[token] - normalizer)) for token in found)
