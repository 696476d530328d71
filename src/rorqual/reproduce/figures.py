"""What the runs of a claim show: per arm a mean with its interval, against the first arm in pairs.

The rule, fixed for all claims: runs of one seed see the same data in the same order, so the
difference to the favoured arm is taken seed by seed, with Student's 95 % interval over the seeds.
The claim "holds here" against another arm if that interval lies above zero (lower measures are
better), is "contradicted here" if it lies below, and is "undecided" otherwise.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rorqual.config.claim import ClaimConfig
from rorqual.eval import student_quantile
from rorqual.reproduce.logs import RunFigures, read_run, read_stages

Verdict = Literal["holds here", "contradicted here", "undecided"]


@dataclass(frozen=True, slots=True)
class Measured:
    """A mean over seeds and half the width of its 95 % interval."""

    mean: float
    half: float


@dataclass(frozen=True, slots=True)
class ArmFigures:
    """One arm over its seeds.

    measures: by name, lower is better. tokens: trained on, None of a recipe's stage. curves: of
    each seed, points of (million tokens or TFLOP, seconds, the claim's main measure).
    """

    measures: dict[str, Measured]
    tokens: float | None
    flops: float
    seconds: Measured
    curves: tuple[tuple[tuple[float, float, float], ...], ...]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Another arm's measure minus the favoured arm's, seed by seed."""

    difference: Measured
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Outcome:
    """Everything that the page and the table say."""

    arms: dict[str, ArmFigures]
    comparisons: dict[str, Comparison]


def collect(claim: ClaimConfig, out: Path) -> Outcome:
    """Read the finished runs; DataError if one is missing or unfinished."""
    if claim.claim.recipe is None:
        runs = {
            arm: [read_run(claim, out, arm, seed) for seed in claim.claim.seeds]
            for arm in claim.arms
        }
    else:
        by_seed = [read_stages(claim, out, seed) for seed in claim.claim.seeds]
        runs = {arm: [found[arm] for found in by_seed] for arm in claim.arms}
    arms = {arm: _arm_figures(found) for arm, found in runs.items()}
    favoured, *others = claim.arms
    measure = claim.claim.measure
    first = [run.measures[measure] for run in runs[favoured]]
    comparisons = {
        arm: compare(first, [run.measures[measure] for run in runs[arm]]) for arm in others
    }
    return Outcome(arms, comparisons)


def compare(favoured: Sequence[float], other: Sequence[float]) -> Comparison:
    """Paired by seed."""
    differences = [b - a for a, b in zip(favoured, other, strict=True)]
    measured = over_seeds(differences)
    low, high = measured.mean - measured.half, measured.mean + measured.half
    verdict: Verdict = "holds here" if low > 0 else "contradicted here" if high < 0 else "undecided"
    return Comparison(measured, verdict)


def over_seeds(values: Sequence[float]) -> Measured:
    """Mean and half of Student's 95 % interval."""
    deviation = statistics.stdev(values)
    half = student_quantile(len(values) - 1) * deviation / math.sqrt(len(values))
    return Measured(statistics.fmean(values), half)


def _arm_figures(runs: Sequence[RunFigures]) -> ArmFigures:
    tokens = [run.tokens for run in runs if run.tokens is not None]
    names = runs[0].measures
    return ArmFigures(
        measures={name: over_seeds([run.measures[name] for run in runs]) for name in names},
        tokens=statistics.fmean(tokens) if tokens else None,
        flops=statistics.fmean(run.flops for run in runs),
        seconds=over_seeds([run.seconds for run in runs]),
        curves=tuple(run.curve for run in runs),
    )
