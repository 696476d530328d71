"""What the runs of a claim show: per arm a mean with its interval, against the first arm in pairs.

The rule, fixed for all claims: runs of one seed see the same data in the same order, so the
difference to the favoured arm is taken seed by seed, with Student's 95 % interval over the seeds.
The claim "holds here" against another arm if that interval lies above zero (lower measures are
better), is "contradicted here" if it lies below, and is "undecided" otherwise.
"""

import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rorqual.config.claim import ClaimConfig
from rorqual.errors import DataError
from rorqual.eval import student_quantile
from rorqual.reproduce.run import arm_config, run_folder
from rorqual.train.run_loop import flops_per_token

Verdict = Literal["holds here", "contradicted here", "undecided"]
_LAST_SHARE = 0.1  # of the steps, over which MaxVio is averaged


@dataclass(frozen=True, slots=True)
class Measured:
    """A mean over seeds and half the width of its 95 % interval."""

    mean: float
    half: float


@dataclass(frozen=True, slots=True)
class ArmFigures:
    """One arm over its seeds; curve: (million tokens, bits per byte) of its first seed."""

    bits_per_byte: Measured
    max_violation: Measured
    tokens: float
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
    seeds = claim.claim.seeds
    runs = {arm: [_read(claim, out, arm, seed) for seed in seeds] for arm in claim.arms}
    arms = {arm: _arm_figures(claim, arm, found) for arm, found in runs.items()}
    favoured, *others = claim.arms
    measure = claim.claim.measure
    comparisons = {
        arm: compare([run[measure] for run in runs[favoured]], [run[measure] for run in runs[arm]])
        for arm in others
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


def _arm_figures(claim: ClaimConfig, arm: str, runs: Sequence[dict[str, Any]]) -> ArmFigures:
    config = arm_config(claim, arm, claim.claim.seeds[0])
    tokens = statistics.fmean(run["tokens"] for run in runs)
    return ArmFigures(
        bits_per_byte=over_seeds([run["bits_per_byte"] for run in runs]),
        max_violation=over_seeds([run["max_violation"] for run in runs]),
        tokens=tokens,
        flops=tokens * flops_per_token(config.model, config.train.sequence_length),
        seconds=over_seeds([run["seconds"] for run in runs]),
        curves=tuple(tuple(run["curve"]) for run in runs),
    )


def _read(claim: ClaimConfig, out: Path, arm: str, seed: int) -> dict[str, Any]:
    folder = run_folder(out, arm, seed)
    try:
        lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise DataError(f"{folder}: has not run; run the claim again without --collect") from error
    records = [json.loads(line) for line in lines]
    steps = [record for record in records if record["kind"] == "step"]
    looks = [record for record in records if record["kind"] == "validation"]
    if not any(name.startswith("bpb_") for look in looks for name in look):
        raise DataError(f"{folder}: has no held-out text to compare by; give it more documents")
    if looks[-1]["tokens_seen"] < steps[-1]["tokens_seen"]:
        raise DataError(f"{folder}: is not finished; run the claim again, it goes on there")
    last = steps[-max(1, round(_LAST_SHARE * len(steps))) :]
    time_at = {record["step"]: record["elapsed_seconds"] for record in steps}
    return {
        "bits_per_byte": _mean_bits(looks[-1]),
        "max_violation": statistics.fmean(record["max_violation"] for record in last),
        "tokens": steps[-1]["tokens_seen"],
        "seconds": steps[-1]["elapsed_seconds"],
        "curve": [
            (look["tokens_seen"] / 1e6, time_at.get(look["step"], 0.0), _mean_bits(look))
            for look in looks
        ],
    }


def _mean_bits(look: dict[str, Any]) -> float:
    values = [value for name, value in look.items() if name.startswith("bpb_")]
    return statistics.fmean(values)
