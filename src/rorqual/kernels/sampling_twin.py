"""What sampling computes, in plain numpy: the specification and the path without a library.

Of a row's logits, in this order:
1. tokens that the mask does not allow are out;
2. temperature: weights are exp((logit - max) / T); T = 0 takes the largest logit, the first of
   equals;
3. min-p: weights below min_p times the largest are out;
4. top-k: the k largest stay, the first of equals;
5. top-p: of what stays the fewest, largest first, that reach top_p of its sum; the one that crosses
   stays;
6. the pick is the first token, in the order of ids, at which the running sum of the weights passes
   uniform times their total.

The native path rounds exp differently in the last bits, so a uniform number within about 1e-6 of
an edge may pick the neighbour there.
"""

import numpy as np
from numpy.typing import NDArray

from rorqual.kernels.sampling import Sampled, SamplingRows, check_sampling


def sample_twin(logits: NDArray[np.float32], rows: SamplingRows) -> Sampled:
    """One token from each row of logits [L, V]; as `sampling.sample`."""
    check_sampling(logits, rows)
    ids = np.full(len(logits), -1, np.int32)
    logprobs, drawn = (np.full(len(logits), np.nan, np.float32) for _ in range(2))
    for row, values in enumerate(logits):
        weights = _weights(values, rows, row)  # [V]
        if weights is None:
            continue
        running = np.cumsum(weights)  # [V]
        passed = int(np.searchsorted(running, rows.uniform[row] * running[-1], side="right"))
        token = min(passed, int(np.flatnonzero(weights)[-1]))
        exact = values.astype(np.float64)
        total = np.exp(exact - exact.max()).sum()
        ids[row] = token
        logprobs[row] = exact[token] - exact.max() - np.log(total)
        drawn[row] = np.log(weights[token] / running[-1])
    return Sampled(ids, logprobs, drawn)


def _weights(
    logits: NDArray[np.float32], rows: SamplingRows, row: int
) -> NDArray[np.float64] | None:
    """What each token weighs after every filter, 0 where it is out. [V]; None: nothing to pick"""
    allowed = np.ones(len(logits), bool)
    if rows.allowed_row[row] >= 0:
        words = rows.allowed[rows.allowed_row[row]]
        bits = np.unpackbits(words.view(np.uint8), bitorder="little")
        allowed = bits[: len(logits)].astype(bool)
    if np.isnan(logits).any() or not allowed.any():
        return None
    masked = np.where(allowed, logits.astype(np.float64), -np.inf)  # [V]
    if masked.max() == -np.inf:
        return None
    temperature = float(rows.temperature[row])
    if temperature <= 0:
        return np.eye(1, len(logits), int(masked.argmax()))[0]
    weights = np.exp((masked - masked.max()) / temperature)
    weights[weights < rows.min_p[row]] = 0
    order = np.argsort(-weights, kind="stable")  # largest first, of equals the first
    if 0 < rows.top_k[row] < len(logits):
        weights[order[rows.top_k[row] :]] = 0
    if rows.top_p[row] < 1:
        running = np.cumsum(weights[order])
        target = float(rows.top_p[row]) * running[-1]
        kept = int(np.searchsorted(running, target, side="left")) + 1
        weights[order[kept:]] = 0
    return weights
