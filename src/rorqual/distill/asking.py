"""Training problems and a model's answers to them, both seeded by their place in the run."""

import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from rorqual.config.distill import DistillRunConfig
from rorqual.distill.source import Figures
from rorqual.eval.items import judge_all
from rorqual.model import Completion, Transformer
from rorqual.rl.costs import sampled_tokens
from rorqual.rl.curriculum import derive_seed
from rorqual.rl.rollout import Sampler, completion_text, prompt_ids
from rorqual.tasks import Problem, Task, make_in_split
from rorqual.tasks.answers import THINK_BEGIN
from rorqual.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class Answers:
    """What a model wrote: one entry per sample, those of one problem together."""

    problems: list[Problem]
    prompts: list[list[int]]
    completions: list[Completion]
    texts: list[str]
    seconds: float

    @property
    def ids(self) -> list[list[int]]:
        """The completions' ids."""
        return [completion.ids for completion in self.completions]

    @property
    def ended(self) -> list[bool]:
        """Whether each came to its end token."""
        return [completion.ended for completion in self.completions]

    @property
    def num_forward_tokens(self) -> int:
        """Tokens that sampling fed through the model."""
        return sampled_tokens(self.prompts, self.ids)


class Asking:
    """Draws problems, samples a model on them, and judges what it wrote."""

    def __init__(
        self,
        config: DistillRunConfig,
        tasks: Mapping[str, Task],
        tokenizer: Tokenizer,
        sampler: Sampler,
    ):
        """tasks: by the name that [[tasks]] gives them."""
        self.config, self.shares = config.distill, config.tasks
        self.share_tasks = [tasks[share.name] for share in config.tasks]
        self.tasks = {task.name: task for task in tasks.values()}
        self.tokenizer, self.sampler = tokenizer, sampler

    def problem(self, *place: int | str) -> Problem:
        """The problem of a place: families by weight, levels and languages evenly."""
        rng = random.Random(derive_seed("distill problem", self.config.seed, *place))
        weights = [share.weight for share in self.shares]
        index = rng.choices(range(len(self.shares)), weights)[0]
        share = self.shares[index]
        level, language = rng.choice(share.levels), rng.choice(share.languages)
        return make_in_split(self.share_tasks[index], rng, level, language, held_out=False)

    def ask(
        self, model: Transformer, step: int, *, temperature: float, dtype: torch.dtype
    ) -> Answers:
        """A model's answers to the problems of a step."""
        problems = [self.problem(step, index) for index in range(self.config.prompts_per_step)]
        return self.sample(model, problems, step, temperature=temperature, dtype=dtype)

    def sample(
        self,
        model: Transformer,
        problems: Sequence[Problem],
        *place: int | str,
        temperature: float,
        dtype: torch.dtype,
    ) -> Answers:
        """samples_per_prompt answers to each problem; `place` seeds them."""
        started = time.perf_counter()
        config, size = self.config, self.config.samples_per_prompt
        different = [prompt_ids(self.tokenizer, p, config.thinking) for p in problems]
        prompts = [prompt for prompt in different for _ in range(size)]
        rows = range(len(prompts))
        completions = self.sampler(
            model,
            prompts,
            seeds=[derive_seed("distill sample", config.seed, *place, row) for row in rows],
            max_new_tokens=config.max_completion_length,
            temperature=temperature,
            dtype=dtype,
        )
        texts = [completion_text(self.tokenizer, c, config.thinking) for c in completions]
        asked = [problem for problem in problems for _ in range(size)]
        return Answers(asked, prompts, completions, texts, time.perf_counter() - started)

    def judge(
        self, problems: Sequence[Problem], texts: Sequence[str], ended: Sequence[bool]
    ) -> list[bool]:
        """Whether each text is a right answer to its problem; a truncated one never is."""
        found = judge_all(self.tasks, list(zip(problems, texts, strict=True)))
        return [judged.correct and whole for judged, whole in zip(found, ended, strict=True)]

    def figures(self, answers: Answers) -> Figures:
        """Figures of a step's answers, named as in reinforcement learning."""
        started = time.perf_counter()
        right = self.judge(answers.problems, answers.texts, answers.ended)
        thinks = [text.lstrip().startswith(THINK_BEGIN) for text in answers.texts]
        lengths = [len(ids) for ids in answers.ids]
        count, total = len(lengths), sum(lengths)
        return {
            "accuracy": sum(right) / count,
            "num_tokens": float(total),
            "entropy": sum(c.entropy * len(c.ids) for c in answers.completions) / total,
            "completions/mean_length": total / count,
            "completions/clipped_ratio": 1.0 - sum(answers.ended) / count,
            "completions/thinking_share": sum(thinks) / count,
            "time/gen": answers.seconds,
            "time/score": time.perf_counter() - started,
        }
