"""Stages in order, each once: finished ones are skipped, an unfinished one goes on.

A stage sees of the others only what they left, so running again gives what an uninterrupted run
would have given.
"""

import time
from dataclasses import dataclass
from pathlib import Path

from rorqual.config.recipe import Pipeline
from rorqual.recipe.check import check_pipeline
from rorqual.recipe.folder import StageFolder, stage_folders
from rorqual.recipe.progress import RecipeProgress
from rorqual.recipe.report import write_recipe_report
from rorqual.recipe.stages import run_stage


@dataclass(frozen=True, slots=True)
class RecipeResult:
    """The report, and the signal that ended the recipe early (None: it is finished)."""

    report: Path | None
    stopped_by: str | None


def run_recipe(pipeline: Pipeline, out: Path) -> RecipeResult:
    """Run what is not done yet in the folder `out`; report.html says how it went."""
    folders = stage_folders(pipeline, out)
    for folder in folders:
        folder.check_unchanged()
    check_pipeline(pipeline)
    progress = RecipeProgress(pipeline.stages)
    results: dict[str, Path] = {}
    for number, folder in enumerate(folders, start=1):
        done = folder.done()
        if done is not None:
            progress.kept(number, done.seconds, done.facts)
            result = done.result
        else:
            stopped_by, result = _run(folder, number, results, progress)
            if stopped_by is not None:
                return RecipeResult(write_recipe_report(pipeline, out), stopped_by)
        if result is not None:
            results[folder.stage.name] = result
    return RecipeResult(write_recipe_report(pipeline, out), None)


def _run(
    folder: StageFolder, number: int, results: dict[str, Path], progress: RecipeProgress
) -> tuple[str | None, Path | None]:
    """One stage: the signal that stopped it, and its result."""
    progress.begin(number)
    folder.begin()
    started = time.monotonic()
    try:
        ended = run_stage(folder.stage, results, folder.path, progress)
    finally:
        spent = folder.spend(time.monotonic() - started)
    if ended.stopped_by is not None:
        return ended.stopped_by, None
    folder.finish(ended.result, spent, ended.facts)
    progress.end(number, spent, ended.facts)
    return None, ended.result
