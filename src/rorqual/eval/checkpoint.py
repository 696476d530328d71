"""Evaluating a model directory: load, draw, score, write down (torch)."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from rorqual import __version__
from rorqual.checkpoint import load_model, model_directory
from rorqual.config.eval import EvalRunConfig
from rorqual.engine.rollouts import EngineSampler
from rorqual.errors import DataError
from rorqual.eval.folder import EvalFolder
from rorqual.eval.items import Item
from rorqual.eval.problems import held_out_problems, open_tasks
from rorqual.eval.run import evaluate
from rorqual.interrupt import stop_on_signals
from rorqual.tasks import Problem
from rorqual.tokenizer import Tokenizer
from rorqual.train.folder import git_commit

_DIGESTED = ("model*.safetensors", "config.json", "tokenizer*.json")


@dataclass(frozen=True, slots=True)
class Outcome:
    """The summary, and the signal that ended the evaluation early (None: it is whole)."""

    summary: dict[str, Any]
    stopped_by: str | None


def evaluate_checkpoint(
    path: Path,
    config: EvalRunConfig,
    folder: EvalFolder,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Outcome:
    """Ask the model at `path` and write config, items and summary into the folder.

    A folder that holds a part of the same evaluation is completed. Ctrl-C and SIGTERM keep what is
    finished.
    """
    directory = model_directory(path)
    problems = held_out_problems(config.tasks, config.eval.num_problems, config.eval.seed)
    about = {
        "model": str(path),
        "model_sha256": file_digests(directory),
        "version": __version__,
        "git_commit": git_commit(),
    }
    done = folder.open(config, about)
    _check_same_problems(done, problems)
    tokenizer = Tokenizer.load(directory)
    model = load_model(directory, dtype=torch.float32, with_mtp=False).eval()
    with stop_on_signals() as stop, open_tasks(config.tasks) as tasks:
        evaluation = evaluate(
            model,
            tokenizer,
            problems,
            tasks,
            config.eval,
            sampler=EngineSampler(),
            done=done,
            on_items=folder.append,
            on_progress=on_progress,
            should_stop=lambda: bool(stop),
        )
    summary = folder.conclude(evaluation)
    return Outcome(summary, None if evaluation.finished else stop.signal_name)


def file_digests(directory: Path) -> dict[str, str]:
    """SHA-256 of the files that decide what a model says, as sha256sum prints it."""
    files = sorted(file for pattern in _DIGESTED for file in directory.glob(pattern))
    digests: dict[str, str] = {}
    for file in files:
        with file.open("rb") as stream:
            digests[file.name] = hashlib.file_digest(stream, "sha256").hexdigest()
    return digests


def _check_same_problems(done: Sequence[Item], problems: Sequence[Problem]) -> None:
    """DataError if the finished items were asked something else than is asked now."""
    asked = {(problem.problem_id, problem.language): problem.prompt for problem in problems}
    for item in done:
        if asked.get(item.key[:2]) != item.problem.prompt:
            raise DataError(
                f"problem {item.problem.problem_id} of the finished items is not asked any more: "
                "the tasks' code has changed since; choose another --out"
            )
