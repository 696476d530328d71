"""Where reinforcement learning can begin: verdicts, starting levels, and what is counted."""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from rorqual.checkpoint import load_model
from rorqual.model import Completion, Transformer
from rorqual.rl.probe import Probed, Verdict, probe, starting_places
from rorqual.rl.rewards import Rewards
from rorqual.tasks import Language, Problem, Solution, Task
from rorqual.tokenizer import Tokenizer
from tests.rl.conftest import run_config


def probed(verdict: Verdict, share_idx: int = 0) -> Probed:
    at_1, at_16 = {"learnable": (0.3, 0.9), "too hard": (0.0, 0.0), "solved": (0.99, 1.0)}[verdict]
    return Probed(share_idx, "running_state", 1, at_1, at_16, truncated=0.0, thinking=0.5)


@pytest.mark.parametrize(
    ("at_1", "at_16", "verdict"),
    [
        (0.0, 0.0, "too hard"),
        (0.01, 0.9, "too hard"),  # hardly ever right
        (0.5, 0.2, "too hard"),  # on few problems only
        (0.02, 0.3, "learnable"),
        (0.94, 1.0, "learnable"),
        (0.95, 1.0, "solved"),
    ],
)
def test_learnable_lies_between_too_hard_and_solved(
    at_1: float, at_16: float, verdict: Verdict
) -> None:
    found = Probed(0, "countdown", 2, at_1, at_16, truncated=0.1, thinking=0.25)
    assert found.verdict == verdict
    assert str(found).startswith(f"countdown level 2: pass@1 {at_1:.0%}, pass@16 {at_16:.0%}")
    assert str(found).endswith(verdict)


@pytest.mark.parametrize(
    ("verdicts", "place"),
    [
        (["learnable", "learnable", "too hard"], 1),  # the hardest learnable one
        (["solved", "solved", "too hard"], 1),  # else the hardest solved one
        (["solved", "learnable", "solved"], 1),
        (["too hard", "too hard"], 0),  # else the easiest
        ([], 0),  # not probed
    ],
)
def test_a_curriculum_starts_where_there_is_something_to_learn(
    verdicts: list[Verdict], place: int
) -> None:
    found = [probed("learnable", 0), *(probed(verdict, 1) for verdict in verdicts)]
    assert starting_places(found, 2) == [0, place]


class Sevens(Task):
    """Every answer is 7."""

    name, num_levels = "sevens", 9

    def make(self, rng: random.Random, level: int, language: Language | None = None) -> Problem:
        key = str(rng.random())
        return Problem(self.name, level, language or "en", f"Which number? {key}", "7", key)

    def solve(self, problem: Problem, rng: random.Random) -> Solution:
        raise NotImplementedError


def test_shares_are_counted_over_problems_and_samples(
    model_path: Path, tokenizer: Tokenizer
) -> None:
    """A scripted sampler: on every second problem 4 of 16 samples are right, 8 are cut short."""
    tasks: list[dict[str, object]] = [
        {"name": "sevens", "levels": [1, 3]},
        {"name": "sevens", "levels": [2], "languages": ["en"]},
    ]
    config = run_config(model_path, tasks, probe_problems=4)
    asked: set[tuple[int, ...]] = set()

    def scripted(
        model: Transformer, prompts: Sequence[Sequence[int]], *, seeds: Sequence[int], **_: Any
    ) -> list[Completion]:
        assert len(set(seeds)) == len(seeds) == len(prompts) == 4 * 16
        asked.update(tuple(prompt) for prompt in prompts)
        found: list[Completion] = []
        for row in range(len(prompts)):
            problem, sample = divmod(row, 16)
            thinking = "<think>\nx\n</think>\n\n" if sample < 12 else ""
            answer = 7 if problem % 2 == 0 and sample < 4 else 8
            ids = tokenizer.encode_with_special(f"{thinking}\\boxed{{{answer}}}")
            ended = sample < 8
            ids = [*ids, tokenizer.eos_token_id] if ended else ids
            found.append(Completion(ids, [0.0] * len(ids), ended, 0.0))
        return found

    task = Sevens()
    found = probe(
        load_model(model_path, dtype=torch.float32), tokenizer, config.rl, config.tasks,
        [task, task], Rewards(config.rl, {"sevens": task}), scripted, torch.float32,
    )  # fmt: skip
    assert [(item.share_idx, item.level) for item in found] == [(0, 1), (0, 3), (1, 2)]
    assert len(asked) == 3 * 4
    for item in found:
        assert item.pass_at_1 == pytest.approx(0.5 * 4 / 16)
        assert item.pass_at_16 == pytest.approx(0.5)
        assert (item.truncated, item.thinking) == (0.5, 0.75)
        assert item.verdict == "learnable"
