"""Before the first step: can reinforcement learning work here at all?

RL sharpens what the policy already does now and then. So every family and level is sampled first,
and the table says where a step would learn something: somewhere right, not always right.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from rorqual.config.rl import RLConfig
from rorqual.config.tasks import TaskShare
from rorqual.eval.passk import pass_at_k
from rorqual.model import Transformer
from rorqual.rl.curriculum import derive_seed
from rorqual.rl.rewards import Rewards, Written
from rorqual.rl.rollout import Sampler, completion_text, prompt_ids
from rorqual.tasks import Task, make_in_split
from rorqual.tasks.answers import THINK_BEGIN
from rorqual.tokenizer import Tokenizer

_SAMPLES = 16
_LEAST_PASS_1 = 0.02
_LEAST_PASS_16 = 0.3
_SOLVED = 0.95

Verdict = Literal["learnable", "too hard", "solved"]


@dataclass(frozen=True, slots=True)
class Probed:
    """One family at one level: shares over problems, and what RL can do with it."""

    share_idx: int
    name: str
    level: int
    pass_at_1: float
    pass_at_16: float
    truncated: float
    thinking: float

    @property
    def verdict(self) -> Verdict:
        """learnable: a group of 16 usually holds right and wrong answers."""
        if self.pass_at_1 >= _SOLVED:
            return "solved"
        enough = self.pass_at_1 >= _LEAST_PASS_1 and self.pass_at_16 >= _LEAST_PASS_16
        return "learnable" if enough else "too hard"

    def __str__(self) -> str:
        return (
            f"{self.name} level {self.level}: pass@1 {self.pass_at_1:.0%}, pass@16 "
            f"{self.pass_at_16:.0%}, {self.truncated:.0%} truncated, {self.thinking:.0%} think: "
            f"{self.verdict}"
        )


def probe(
    model: Transformer,
    tokenizer: Tokenizer,
    config: RLConfig,
    shares: Sequence[TaskShare],
    tasks: Sequence[Task],
    rewards: Rewards,
    sampler: Sampler,
    dtype: torch.dtype,
) -> list[Probed]:
    """Sample training problems of every family and level; tasks: one per share."""
    found: list[Probed] = []
    for share_idx, (share, task) in enumerate(zip(shares, tasks, strict=True)):
        for level in share.levels:
            rng = random.Random(derive_seed("probe", config.seed, share.name, level))
            problems = [
                make_in_split(task, rng, level, rng.choice(share.languages), held_out=False)
                for _ in range(config.probe_problems)
            ]
            prompts = [prompt_ids(tokenizer, problem, config.thinking) for problem in problems]
            repeated = [prompt for prompt in prompts for _ in range(_SAMPLES)]
            seeds = [derive_seed("probe", config.seed, level, row) for row in range(len(repeated))]
            completions = sampler(
                model,
                repeated,
                seeds=seeds,
                max_new_tokens=config.max_completion_length,
                dtype=dtype,
            )
            written = [
                Written(
                    problems[row // _SAMPLES],
                    completion_text(tokenizer, completion, config.thinking),
                    completion.ids,
                    completion.ended,
                    seeds[row],
                )
                for row, completion in enumerate(completions)
            ]
            right = [score.correct for score in rewards.judge(written, step=0).scores]
            counts = [
                sum(right[begin : begin + _SAMPLES]) for begin in range(0, len(right), _SAMPLES)
            ]
            thinks = [item.text.lstrip().startswith(THINK_BEGIN) for item in written]
            found.append(
                Probed(
                    share_idx,
                    share.name,
                    level,
                    pass_at_1=sum(right) / len(right),
                    pass_at_16=sum(pass_at_k(_SAMPLES, c, _SAMPLES) for c in counts) / len(counts),
                    truncated=sum(not item.ended for item in written) / len(written),
                    thinking=sum(thinks) / len(thinks),
                )
            )
    return found


def starting_places(probed: Sequence[Probed], num_shares: int) -> list[int]:
    """Where a curriculum starts: each share's hardest learnable level, else its easiest."""
    places = [0] * num_shares
    for share_idx in range(num_shares):
        levels = [item for item in probed if item.share_idx == share_idx]
        learnable = [place for place, item in enumerate(levels) if item.verdict == "learnable"]
        solved = [place for place, item in enumerate(levels) if item.verdict == "solved"]
        if learnable:
            places[share_idx] = learnable[-1]
        elif solved:
            places[share_idx] = solved[-1]
    return places
