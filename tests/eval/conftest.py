"""A tokenizer that reads tasks, a tiny model, and samplers that follow a script."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from rorqual.checkpoint import save_model
from rorqual.config.run import load_run_config
from rorqual.config.tasks import TaskShare
from rorqual.eval import held_out_problems
from rorqual.eval.run import sample_seed
from rorqual.model import Transformer, initialize
from rorqual.tasks import Problem
from rorqual.tokenizer import Tokenizer, train_tokenizer

SHARES = (TaskShare(name="running_state", levels=(1, 2)),)


@dataclass
class Row:
    """A completion as a sampler gives it."""

    ids: list[int]
    ended: bool


@dataclass
class Script:
    """Writes what `reply` says for a problem and sample number; ids cut at max_new_tokens."""

    tokenizer: Tokenizer
    problems: Sequence[Problem]
    reply: Callable[[Problem, int], str]
    evaluation_seed: int = 0
    calls: list[int] = field(default_factory=list)
    prompts: list[list[int]] = field(default_factory=list)
    during: Callable[[], None] = lambda: None

    def __call__(
        self,
        model: Any,
        prompts: Sequence[Sequence[int]],
        *,
        seeds: Sequence[int],
        max_new_tokens: int,
        temperature: float,
        should_stop: Callable[[], bool],
    ) -> list[Row]:
        self.calls.append(len(prompts))
        self.prompts += [list(prompt) for prompt in prompts]
        self.during()
        asked = {
            sample_seed(self.evaluation_seed, problem, idx): (problem, idx)
            for problem in self.problems
            for idx in range(64)
        }
        return [self._row(*asked[seed], max_new_tokens) for seed in seeds]

    def _row(self, problem: Problem, idx: int, max_new_tokens: int) -> Row:
        text = self.reply(problem, idx)
        ids = [*self.tokenizer.encode_with_special(text), self.tokenizer.eos_token_id]
        return Row(ids[:max_new_tokens], ended=len(ids) <= max_new_tokens)


@pytest.fixture(scope="session")
def problems() -> list[Problem]:
    return held_out_problems(SHARES, 8, seed=0)


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    texts = [problem.prompt for problem in held_out_problems(SHARES, 64, seed=1)]
    return train_tokenizer(texts * 4, vocab_size=512, digits="single")


@pytest.fixture(scope="session")
def model_path(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny preset with random weights, saved."""
    model = Transformer(load_run_config("tiny").model)
    initialize(model, 0)
    path = tmp_path_factory.mktemp("model") / "tiny"
    save_model(model, tokenizer, path)
    return path
