"""How each kind of stage runs: its configuration and folder in, its result out."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rorqual.config.eval import EvalConfig, EvalRunConfig
from rorqual.config.recipe import Stage
from rorqual.distill import run_distill
from rorqual.eval import EvalFolder, evaluate_checkpoint, find_group
from rorqual.parallel import join_processes
from rorqual.recipe.corpus import make_corpus
from rorqual.recipe.progress import RecipeProgress
from rorqual.recipe.rejection import collect_traces
from rorqual.rl import run_rl
from rorqual.train import RunFolder, TrainResult, run_pretraining, run_sft


@dataclass(frozen=True, slots=True)
class Ended:
    """How a stage ended. stopped_by: the signal that interrupted it, None if it is finished.

    facts: figures that `words.stage_note` makes a sentence of, {} of an interrupted stage.
    """

    result: Path | None
    stopped_by: str | None
    facts: dict[str, Any]


Run = Callable[[Any, Path, RecipeProgress], Ended]


def run_stage(
    stage: Stage, results: dict[str, Path], path: Path, progress: RecipeProgress
) -> Ended:
    """Run a stage in its folder, or go on with it; results: of the stages before it."""
    config = stage.resolved(results)
    if stage.head.kind == "eval":
        return _eval(stage, config, path, progress)
    return _RUNS[stage.head.kind](config, path, progress)


def evaluated_models(stage: Stage) -> list[str]:
    """What the models of an evaluation are called: by their stages, or their folders."""
    config: Any = stage.config
    return [Path(str(model).removeprefix("@")).name for model in config.eval.models]


def _corpus(config: Any, path: Path, progress: RecipeProgress) -> Ended:
    examples = make_corpus(config, path)
    facts = {
        "examples": examples.count,
        "thinking": examples.thinking,
        "text_bytes": examples.text_bytes,
    }
    return Ended(path, None, facts)


def _pretrain(config: Any, path: Path, progress: RecipeProgress) -> Ended:
    processes = join_processes()
    result = run_pretraining(config, RunFolder(path), processes, progress.show_build)
    return _trained(result)


def _sft(config: Any, path: Path, progress: RecipeProgress) -> Ended:
    return _trained(run_sft(config, RunFolder(path), join_processes()))


def _trained(result: TrainResult) -> Ended:
    facts = {"tokens": result.tokens_seen, "steps": result.step}
    return Ended(result.checkpoint, result.stopped_by, facts)


def _rl(config: Any, path: Path, progress: RecipeProgress) -> Ended:
    folder = RunFolder(path)
    if folder.exists and not folder.checkpoint_steps():
        # Killed before its first checkpoint: what it logged will be logged again.
        for log in ("metrics.jsonl", "samples.jsonl", "rollouts.jsonl"):
            (path / log).unlink(missing_ok=True)
    result = run_rl(config, folder)
    facts = {
        "pass@1": result.best_pass_at_1,
        "ended_by": result.ended_by,
        "steps": result.step,
    }
    return Ended(result.best, _signal(result.ended_by), facts)


def _rejection(config: Any, path: Path, progress: RecipeProgress) -> Ended:
    file, collected, stop = collect_traces(config, RunFolder(path), progress.every_few_seconds())
    if collected is None:
        return Ended(None, stop.signal_name, {})
    found = collected.figures
    facts = {"kept": found["kept"], "right": found["right"], "asked": found["samples"]}
    return Ended(file, None, facts)


def _distill(config: Any, path: Path, progress: RecipeProgress) -> Ended:
    result = run_distill(config, RunFolder(path))
    facts = {
        "pass@1": result.summary["pass@1"]["best"],
        "ended_by": result.ended_by,
        "steps": result.step,
    }
    return Ended(result.best or result.checkpoint, _signal(result.ended_by), facts)


def _signal(ended_by: str) -> str | None:
    return ended_by if ended_by.startswith("SIG") else None


def _eval(stage: Stage, config: Any, path: Path, progress: RecipeProgress) -> Ended:
    """Every model on the same problems, each in a folder of its own."""
    asked = EvalConfig(**config.eval.model_dump(exclude={"models"}))
    scores: dict[str, float] = {}
    for label, model in zip(evaluated_models(stage), config.eval.models, strict=True):
        say = progress.every_few_seconds()
        outcome = evaluate_checkpoint(
            model,
            EvalRunConfig(eval=asked, tasks=config.tasks),
            EvalFolder(path / label),
            lambda done, total, say=say, label=label: say(f"{label}: {done} of {total} answers"),
        )
        if outcome.stopped_by is not None:
            return Ended(None, outcome.stopped_by, {})
        scores[label] = find_group(outcome.summary["groups"])["pass@1"]
        progress.say(f"{label}: pass@1 {scores[label]:.1%}")
    return Ended(None, None, {"pass@1": scores})


_RUNS: dict[str, Run] = {
    "corpus": _corpus,
    "pretrain": _pretrain,
    "rl": _rl,
    "sft": _sft,
    "rejection": _rejection,
    "distill": _distill,
}
