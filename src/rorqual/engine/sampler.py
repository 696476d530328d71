"""Drawing tokens from logits, a whole batch at once, and the figures that requests ask for.

The picks are the kernels' (kernels/sampling_twin.py says what is computed): by inverse transform,
one uniform number per row against the cumulated weights in the order of the ids. So a row depends
on its own logits and number alone, and without truncation the pick is model/sample.py's.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from rorqual.kernels.library import Library
from rorqual.kernels.sampling import SamplingRows, sample
from rorqual.kernels.sampling_twin import sample_twin

_LOWEST: Final = -1e4  # stands for the logarithm of nothing, so that 0 * log 0 is 0


@dataclass(frozen=True, slots=True)
class Draws:
    """token_ids [S] int32, -1 where there is nothing to pick; if asked, of the distribution drawn
    from: the token's log-probability and the entropy in nats, both [S] float64."""

    token_ids: NDArray[np.int32]
    logprobs: NDArray[np.float64] | None = None
    entropies: NDArray[np.float64] | None = None


def draw_tokens(
    library: Library | None,
    logits: NDArray[np.float32],
    rows: SamplingRows,
    *,
    policy_stats: bool = False,
) -> Draws:
    """One token per row of logits [S, V]. policy_stats: of rows that nothing truncates."""
    logits = np.ascontiguousarray(logits)
    drawn = sample_twin(logits, rows) if library is None else sample(library, logits, rows)
    if not policy_stats:
        return Draws(drawn.ids)
    divisor = np.where(rows.temperature == 0, 1, rows.temperature).astype(np.float32)  # [S]
    shifted = logits / divisor[:, None]  # [S, V]
    shifted -= shifted.max(axis=1, keepdims=True)
    weight = np.exp(shifted)  # [S, V], the probability times an unknown
    total = weight.sum(axis=1, dtype=np.float64)  # [S]
    # log p = shifted - log total, and so the entropy is log total - sum p shifted.
    log_total = np.log(total)  # [S]
    chosen = np.take_along_axis(shifted, drawn.ids[:, None], axis=1)[:, 0] - log_total
    mean = (weight * np.maximum(shifted, _LOWEST)).sum(axis=1, dtype=np.float64) / total
    return Draws(drawn.ids, chosen, log_total - mean)


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
