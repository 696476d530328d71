"""Rollouts: groups of completions with their rewards, and dynamic sampling (DAPO section 3.2).

The sampler is anything with `sample_completions`' signature: the engine in this process on these
weights, unless another is handed in. Groups whose rewards are all equal carry no signal;
they are counted, dropped and replaced by fresh draws, a bounded number of times.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from rorqual.config.rl import RLConfig
from rorqual.model import Completion, Transformer
from rorqual.rl.advantages import has_signal, soft_overlong_penalty
from rorqual.rl.costs import sampled_tokens
from rorqual.rl.curriculum import Curriculum, Drawn, derive_seed
from rorqual.rl.rewards import Judged, Rewards, Written
from rorqual.tasks import Problem, Score
from rorqual.tasks.answers import THINK_BEGIN
from rorqual.tokenizer import Tokenizer


class Sampler(Protocol):
    """What rollouts are drawn with."""

    def __call__(
        self,
        model: Transformer,
        prompts: Sequence[Sequence[int]],
        *,
        seeds: Sequence[int],
        max_new_tokens: int,
        temperature: float = 1.0,
        max_rows: int = 256,
        dtype: torch.dtype = torch.float32,
        record_routes: bool = False,
        should_stop: Callable[[], bool] = ...,
    ) -> list[Completion]: ...


@dataclass(frozen=True, slots=True)
class Group:
    """One prompt and its G completions. rewards [G] fp32."""

    problem: Problem
    share_idx: int
    prompt_ids: list[int]
    completions: list[Completion]
    texts: list[str]
    scores: list[Score]
    rewards: Tensor

    @property
    def pass_rate(self) -> float:
        """Share of right completions."""
        return sum(score.correct for score in self.scores) / len(self.scores)


@dataclass(slots=True)
class Rollouts:
    """What a step drew: groups that teach something, and all that were drawn, for the figures."""

    kept: list[Group] = field(default_factory=list)
    drawn: list[Group] = field(default_factory=list)
    parts: dict[str, list[float]] = field(default_factory=dict)
    sampled_tokens: int = 0
    generate_seconds: float = 0.0
    score_seconds: float = 0.0


def prompt_ids(tokenizer: Tokenizer, problem: Problem, thinking: str) -> list[int]:
    """The conversation up to where the assistant begins."""
    return tokenizer.encode_messages(
        [{"role": "user", "content": problem.prompt}],
        add_generation_prompt=True,
        thinking=True if thinking == "forced" else None,
    )


def completion_text(tokenizer: Tokenizer, completion: Completion, thinking: str) -> str:
    """The assistant's text, with the marker that a forced prompt had already opened."""
    ids = completion.ids[:-1] if completion.ended else completion.ids
    text = tokenizer.decode(ids)
    return f"{THINK_BEGIN}\n{text}" if thinking == "forced" else text


class Collector:
    """Draws a step's rollouts."""

    def __init__(
        self,
        config: RLConfig,
        tokenizer: Tokenizer,
        curriculum: Curriculum,
        rewards: Rewards,
        sampler: Sampler,
    ):
        self.config, self.tokenizer, self.sampler = config, tokenizer, sampler
        self.curriculum, self.rewards = curriculum, rewards

    def collect(self, model: Transformer, step: int, dtype: torch.dtype) -> Rollouts:
        """Draw until prompts_per_step groups teach something or the refills are used up."""
        rollouts = Rollouts()
        for attempt in range(1 + self.config.max_refills):
            missing = self.config.prompts_per_step - len(rollouts.kept)
            if missing == 0:
                break
            drawn = [self.curriculum.draw(step, attempt, index) for index in range(missing)]
            groups = self._roll(model, drawn, step, attempt, dtype, rollouts)
            rollouts.drawn += groups
            signal = has_signal(torch.stack([group.rewards for group in groups]))
            rollouts.kept += [
                g for g, useful in zip(groups, signal.tolist(), strict=True) if useful
            ]
            for group in groups:
                self.curriculum.record(group.share_idx, group.pass_rate)
        return rollouts

    def _roll(
        self,
        model: Transformer,
        drawn: list[Drawn],
        step: int,
        attempt: int,
        dtype: torch.dtype,
        rollouts: Rollouts,
    ) -> list[Group]:
        config, size = self.config, self.config.num_generations
        prompts = [prompt_ids(self.tokenizer, d.problem, config.thinking) for d in drawn]
        seeds = [
            derive_seed("rollout", config.seed, step, attempt, index, generation)
            for index in range(len(drawn))
            for generation in range(size)
        ]
        started = time.perf_counter()
        completions = self.sampler(
            model,
            [prompt for prompt in prompts for _ in range(size)],
            seeds=seeds,
            max_new_tokens=config.max_completion_length,
            dtype=dtype,
            record_routes=True,
        )
        generated = time.perf_counter()
        rollouts.sampled_tokens += sampled_tokens(prompts, [c.ids for c in completions])
        written = [
            Written(
                drawn[row // size].problem,
                completion_text(self.tokenizer, completion, config.thinking),
                completion.ids,
                completion.ended,
                seeds[row],
            )
            for row, completion in enumerate(completions)
        ]
        judged = self.rewards.judge(written, step)
        rollouts.generate_seconds += generated - started
        rollouts.score_seconds += time.perf_counter() - generated
        for name, values in judged.parts.items():
            rollouts.parts.setdefault(name, []).extend(v for v in values if v is not None)
        return self._groups(drawn, prompts, completions, written, judged)

    def _groups(
        self,
        drawn: list[Drawn],
        prompts: list[list[int]],
        completions: list[Completion],
        written: list[Written],
        judged: Judged,
    ) -> list[Group]:
        config, size = self.config, self.config.num_generations
        lengths = torch.tensor([len(completion.ids) for completion in completions])
        limit, buffer = config.max_completion_length, config.overlong_buffer_tokens
        total = judged.total + soft_overlong_penalty(lengths, limit, buffer)
        groups: list[Group] = []
        for index, one in enumerate(drawn):
            rows = slice(index * size, (index + 1) * size)
            groups.append(
                Group(
                    one.problem,
                    one.share_idx,
                    prompts[index],
                    completions[rows],
                    [item.text for item in written[rows]],
                    judged.scores[rows],
                    total[rows],
                )
            )
        return groups
