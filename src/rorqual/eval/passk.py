"""pass@1, pass@k, maj@k, and intervals that treat a problem, not a sample, as the unit.

pass@k is the unbiased estimator of Chen et al. 2021 (section 2.1), as a product that neither
overflows nor cancels. maj@k is the consensus of all k samples (Wang et al. 2022).

Intervals: samples of one problem resemble each other, so their number alone would make intervals
too narrow; and near 0 or 1 a bootstrap or a normal interval collapses onto the estimate. Both are
met by what survey statistics does with clusters (Kish 1965; Korn & Graubard 1998; Franco et al.
2019): the variance between problems gives the number of independent trials that would be as
uncertain, and Wilson's score interval (1927) is taken at that number. No random numbers enter.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

_Z = 1.959963984540054  # 97.5 % quantile of the normal distribution


class Interval(NamedTuple):
    """A 95 % confidence interval."""

    low: float
    high: float


def pass_at_k(num_samples: int, num_correct: int, k: int) -> float:
    """Chance that at least one of k samples is right, from num_correct of num_samples right ones.

    1 - C(n - c, k) / C(n, k), averaged over problems an unbiased estimate for k <= n.
    """
    assert 0 <= num_correct <= num_samples and 1 <= k <= num_samples, "k beyond the samples"
    if num_samples - num_correct < k:
        return 1.0
    first = num_samples - num_correct + 1
    return 1.0 - math.prod(1.0 - k / i for i in range(first, num_samples + 1))


def majority(votes: Sequence[tuple[str | None, bool]]) -> float:
    """Whether the most frequent answer is right; of answers equally frequent, the share that is.

    votes: per sample its answer in normal form (None casts no vote) and whether it is right.
    """
    tally: dict[str, list[bool]] = {}
    for answer, correct in votes:
        if answer is not None:
            tally.setdefault(answer, []).append(correct)
    if not tally:
        return 0.0
    most = max(len(group) for group in tally.values())
    leading = [group for group in tally.values() if len(group) == most]
    return math.fsum(sum(group) / most for group in leading) / len(leading)


def mean_interval(clusters: Mapping[str, Sequence[float]], max_trials: int) -> Interval:
    """95 % interval of the mean of values in [0, 1] that come in clusters.

    A cluster is a problem; its values are the shares of right samples, one per form it was asked
    in (language). max_trials bounds the information: all samples, were they independent.
    """
    values = [value for cluster in clusters.values() for value in cluster]
    num_clusters = len(clusters)
    if num_clusters < 2:
        return Interval(0.0, 1.0)
    mean = math.fsum(values) / len(values)
    sums = [math.fsum(value - mean for value in cluster) for cluster in clusters.values()]
    between = math.fsum(total * total for total in sums)
    variance = num_clusters / (num_clusters - 1) * between / len(values) ** 2
    if variance > 0:
        trials = min(mean * (1 - mean) / variance, float(max_trials))
        return wilson(mean, trials * (_Z / student_quantile(num_clusters - 1)) ** 2)
    # All alike. At 0 or 1 nothing shows that samples of a problem are independent: count problems.
    return wilson(mean, float(num_clusters if mean in (0.0, 1.0) else max_trials))


def wilson(mean: float, trials: float) -> Interval:
    """Wilson's 95 % score interval of a share seen in `trials` trials (need not be whole)."""
    ratio = _Z * _Z / trials
    centre = (mean + ratio / 2) / (1 + ratio)
    half = math.sqrt(mean * (1 - mean) * ratio + ratio * ratio / 4) / (1 + ratio)
    return Interval(max(0.0, min(centre - half, mean)), min(1.0, max(centre + half, mean)))


def student_quantile(degrees: int) -> float:
    """97.5 % quantile of Student's t: exact for 1 and 2 degrees, then Abramowitz & Stegun 26.7.5.

    It pays for estimating the variance from few values; with a hundred it hardly shows.
    """
    if degrees == 1:
        return math.tan(0.475 * math.pi)
    if degrees == 2:
        return 0.95 / math.sqrt(2 * 0.975 * 0.025)
    z = _Z
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + sum(term / degrees**power for power, term in enumerate(terms, start=1))
