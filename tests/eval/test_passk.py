"""Estimators against enumeration, intervals against tables and simulation."""

import itertools
import random
import statistics

import pytest

from rorqual.eval.passk import Interval, majority, mean_interval, pass_at_k, wilson


@pytest.mark.parametrize(("n", "c"), [(n, c) for n in (1, 4, 7) for c in range(n + 1)])
def test_pass_at_k_is_the_share_of_subsets_that_hold_a_right_sample(n: int, c: int) -> None:
    samples = [True] * c + [False] * (n - c)
    for k in range(1, n + 1):
        subsets = list(itertools.combinations(samples, k))
        expected = sum(any(subset) for subset in subsets) / len(subsets)
        assert pass_at_k(n, c, k) == pytest.approx(expected, abs=1e-14)


def test_pass_at_k_stays_finite_and_exact_for_many_samples() -> None:
    # 1 - (1 - 1/2)(1 - 1/2 ...) by hand: one right of 10,000, half of them drawn.
    assert pass_at_k(10_000, 1, 5_000) == pytest.approx(0.5, abs=1e-12)
    assert pass_at_k(10_000, 0, 9_999) == 0.0
    assert pass_at_k(10_000, 10_000, 1) == 1.0


def test_majority_counts_answers_and_shares_ties() -> None:
    assert majority([("7", True), ("7", True), ("8", False)]) == 1.0
    assert majority([("7", True), ("8", False), ("8", False)]) == 0.0
    assert majority([("7", True), ("8", False)]) == 0.5
    assert majority([("7", True), ("8", False), ("9", False), (None, False)]) == 1 / 3
    assert majority([("7", True), (None, False), (None, False)]) == 1.0
    assert majority([(None, False)]) == 0.0


def test_wilson_matches_published_values() -> None:
    # Newcombe 1998 (Statistics in Medicine 17), table I: 81/263, 15/148, 0/20, 1/29.
    for successes, trials, low, high in (
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ):
        found = wilson(successes / trials, trials)
        assert (round(found.low, 4), round(found.high, 4)) == (low, high)


def test_one_sample_a_problem_is_wilson_over_problems() -> None:
    clusters = {str(i): [float(i < 70)] for i in range(100)}
    low, high = mean_interval(clusters, 100)
    plain = wilson(0.7, 100)
    assert low == pytest.approx(plain.low, abs=0.005) and high == pytest.approx(
        plain.high, abs=0.005
    )


def test_samples_of_one_problem_that_agree_add_nothing() -> None:
    once = {str(i): [float(i < 30)] for i in range(100)}
    assert mean_interval(once, 100) == mean_interval(once, 1600)


def test_independent_samples_narrow_the_interval() -> None:
    rng = random.Random(0)
    many = {str(i): [sum(rng.random() < 0.5 for _ in range(16)) / 16] for i in range(100)}
    low, high = mean_interval(many, 1600)
    assert high - low < 0.06  # 1,600 trials: 0.049; 100 trials: 0.19


def test_two_languages_of_one_problem_are_one_cluster() -> None:
    pairs = {str(i): [float(i < 30)] * 2 for i in range(60)}
    split = {f"{i} {j}": [float(i < 30)] for i in range(60) for j in range(2)}
    apart, together = mean_interval(split, 120), mean_interval(pairs, 120)
    ratio = (together.high - together.low) / (apart.high - apart.low)
    assert ratio == pytest.approx(2**0.5, rel=0.03)


def test_the_edges_keep_an_interval() -> None:
    none = mean_interval({str(i): [0.0] for i in range(100)}, 1600)
    every = mean_interval({str(i): [1.0] for i in range(100)}, 1600)
    assert none == wilson(0.0, 100) and none.low == 0.0 and 0.03 < none.high < 0.05
    assert every.high == 1.0 and every.low == pytest.approx(1 - none.high)
    assert mean_interval({"a": [1.0]}, 16) == Interval(0.0, 1.0)


def test_interval_agrees_with_a_bootstrap_over_problems() -> None:
    rng = random.Random(1)
    values = [sum(rng.random() < rng.random() for _ in range(8)) / 8 for _ in range(200)]
    means = sorted(statistics.fmean(rng.choices(values, k=200)) for _ in range(4000))
    low, high = mean_interval({str(i): [v] for i, v in enumerate(values)}, 1600)
    assert low == pytest.approx(means[100], abs=0.01)
    assert high == pytest.approx(means[3899], abs=0.01)


@pytest.mark.parametrize(
    ("num_problems", "samples", "alpha", "beta"),
    [
        (40, 4, 0.5, 0.5),
        (40, 4, 2.0, 2.0),
        (100, 1, 1.0, 9.0),
        (12, 8, 1.0, 1.0),
        (50, 8, 9.0, 0.5),
    ],
)
def test_interval_holds_the_truth_about_95_times_in_100(
    num_problems: int, samples: int, alpha: float, beta: float
) -> None:
    rng = random.Random(2)
    truth, trials = alpha / (alpha + beta), 600
    covered = 0
    for _ in range(trials):
        clusters: dict[str, list[float]] = {}
        for i in range(num_problems):
            p = rng.betavariate(alpha, beta)
            clusters[str(i)] = [sum(rng.random() < p for _ in range(samples)) / samples]
        low, high = mean_interval(clusters, num_problems * samples)
        covered += low <= truth <= high
    assert 0.925 <= covered / trials <= 0.99
