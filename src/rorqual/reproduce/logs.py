"""What one run of a claim came to, out of its log."""

import json
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rorqual.checkpoint import model_directory
from rorqual.config import ModelConfig, read_model_config
from rorqual.config.claim import ClaimConfig
from rorqual.config.recipe import Stage
from rorqual.errors import DataError
from rorqual.recipe.folder import StageFolder, stage_folders
from rorqual.reproduce.run import arm_config, arm_flops, claim_pipeline, recipe_folder, run_folder
from rorqual.rl.costs import FlopCounter, Tokens

_LAST_SHARE = 0.1  # of the steps, over which MaxVio is averaged


@dataclass(frozen=True, slots=True)
class RunFigures:
    """One arm of one seed; fields as in `figures.ArmFigures`."""

    measures: dict[str, float]
    tokens: float | None
    flops: float
    seconds: float
    curve: tuple[tuple[float, float, float], ...]


def read_run(claim: ClaimConfig, out: Path, arm: str, seed: int) -> RunFigures:
    """A pretraining run; DataError if it is missing or unfinished."""
    folder = run_folder(out, arm, seed)
    records = _read_log(folder)
    steps = [record for record in records if record["kind"] == "step"]
    looks = [record for record in records if record["kind"] == "validation"]
    if not any(name.startswith("bpb_") for look in looks for name in look):
        raise DataError(f"{folder}: has no held-out text to compare by; give it more documents")
    if looks[-1]["tokens_seen"] < steps[-1]["tokens_seen"]:
        raise DataError(f"{folder}: is not finished; run the claim again, it goes on there")
    last = steps[-max(1, round(_LAST_SHARE * len(steps))) :]
    time_at = {record["step"]: record["elapsed_seconds"] for record in steps}
    tokens = steps[-1]["tokens_seen"]
    return RunFigures(
        measures={
            "bits_per_byte": _mean_bits(looks[-1]),
            "max_violation": statistics.fmean(record["max_violation"] for record in last),
        },
        tokens=tokens,
        flops=tokens * arm_flops(claim, arm, arm_config(claim, arm, seed)),
        seconds=steps[-1]["elapsed_seconds"],
        curve=tuple(
            (look["tokens_seen"] / 1e6, time_at.get(look["step"], 0.0), _mean_bits(look))
            for look in looks
        ),
    )


def read_stages(claim: ClaimConfig, out: Path, seed: int) -> dict[str, RunFigures]:
    """The arms of a recipe's run, each where it had spent what the first arm spent in all.

    Between two evaluations the share of wrong answers is taken to change evenly with the FLOPs.
    DataError if a stage is unfinished or was given less to spend.
    """
    pipeline = claim_pipeline(claim, seed)
    folders = {
        folder.stage.name: folder for folder in stage_folders(pipeline, recipe_folder(out, seed))
    }
    results = {name: done.result for name, f in folders.items() if (done := f.done()) is not None}
    curves = {
        arm: _stage_curve(folders[str(said.stage)], results) for arm, said in claim.arms.items()
    }
    favoured = next(iter(claim.arms))
    budget = curves[favoured][-1][0]
    return {
        arm: at_budget(f"arms.{arm}, seed {seed}", curve, budget) for arm, curve in curves.items()
    }


def _stage_curve(
    folder: StageFolder, results: dict[str, Path | None]
) -> list[tuple[float, float, float]]:
    """(FLOPs, seconds, share of wrong answers) at each evaluation of an rl or distill stage."""
    if folder.stage.name not in results:
        raise DataError(f"{folder.path}: is not finished; run the claim again, it goes on there")
    records = _read_log(folder.path)
    spent = _spent_by_step(folder.stage, records, results)
    curve = [
        (*spent[record["step"]], 1 - record["eval/all/pass@1"])
        for record in records
        if record["kind"] == "eval"
    ]
    if folder.stage.head.kind == "distill":  # the traces are paid for before the first step
        curve = curve[1:]
    return curve


def _spent_by_step(
    stage: Stage, records: list[dict[str, Any]], results: dict[str, Path | None]
) -> dict[int, tuple[float, float]]:
    """FLOPs of everything, the teacher included, and seconds, after each step."""
    counter = FlopCounter(_shape(stage, results), None)
    tokens, seconds = Tokens(), 0.0
    spent = {0: (0.0, 0.0)}
    for record in records:
        if record["kind"] == "traces":
            seconds += record["seconds"]
        if record["kind"] != "step":
            continue
        seconds += record["step_time"]
        flops = record.get("flops/total")
        if flops is None:
            tokens.student_sampling += int(record["tokens/sampled"])
            tokens.student_training += int(record.get("tokens/trained", 0))
            flops = counter.flops(tokens)["student"] or 0
        spent[record["step"]] = (float(flops), seconds)
    return spent


def _shape(stage: Stage, results: dict[str, Path | None]) -> ModelConfig:
    """Of the network that the stage trains."""
    config: Any = stage.resolved({name: path for name, path in results.items() if path is not None})
    start = config.rl.model if stage.head.kind == "rl" else config.distill.student
    return read_model_config(model_directory(start))


def at_budget(place: str, curve: list[tuple[float, float, float]], budget: float) -> RunFigures:
    """Between the evaluations on either side, in proportion; `place` is named in the error."""
    if curve[-1][0] < budget:
        raise DataError(
            f"{place}: spent {curve[-1][0]:.2e} FLOP, the first arm {budget:.2e}; give it more "
            "steps in the recipe"
        )
    after = next(index for index, point in enumerate(curve) if point[0] >= budget)
    right = curve[after]
    left = curve[max(after - 1, 0)]
    share = 1.0 if right[0] == left[0] else (budget - left[0]) / (right[0] - left[0])
    seconds, errors = (left[i] + share * (right[i] - left[i]) for i in (1, 2))
    drawn = tuple((flops / 1e12, at, wrong) for flops, at, wrong in curve)
    return RunFigures({"errors": errors}, None, budget, seconds, drawn)


def _read_log(folder: Path) -> list[dict[str, Any]]:
    try:
        lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise DataError(f"{folder}: has not run; run the claim again without --collect") from error
    return [json.loads(line) for line in lines]


def _mean_bits(look: dict[str, Any]) -> float:
    values = [value for name, value in look.items() if name.startswith("bpb_")]
    return statistics.fmean(values)
