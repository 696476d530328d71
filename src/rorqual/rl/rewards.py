"""Reward functions, with TRL's signature: f(prompts, completions, completion_ids, **columns).

`accuracy` asks the problem's task; the others are R1's (format, language consistency) and a
control. A user's own function comes from a file and runs in a process of its own, so one that
raises, hangs or crashes is reported and the run goes on.
"""

import math
import random
import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rorqual.config.rl import RLConfig
from rorqual.errors import ConfigError
from rorqual.tasks import Language, Problem, Score, Solution, Task, wrong
from rorqual.tasks.answers import final_answer, split_reasoning
from rorqual.tasks.reward_worker import RewardWorker

Reward = float | None
RewardFunction = Callable[..., list[Reward]]

FORMAT_REWARD = 0.1
_SCORING_THREADS = 4
_CJK = re.compile("[一-鿿]")
_LATIN = re.compile("[A-Za-z]")


@dataclass(frozen=True, slots=True)
class Written:
    """A completion to be judged. seed is what it was sampled with; ended: the end token came."""

    problem: Problem
    text: str
    ids: Sequence[int]
    ended: bool
    seed: int


@dataclass(frozen=True, slots=True)
class Judged:
    """Rewards of a batch: total [M] fp32, each function's own, and the tasks' scores."""

    total: Tensor
    parts: Mapping[str, list[Reward]]
    scores: list[Score]


def format_reward(written: Written) -> float:
    """A tenth for a well-formed reply that gives an answer; never worth more than being right."""
    thinking, content = split_reasoning(written.text)
    if not written.ended or not content or final_answer(content) is None:
        return 0.0
    return FORMAT_REWARD if thinking is None or thinking.strip() else 0.0


def language_reward(written: Written) -> Reward:
    """Share of the thinking's letters in the problem's language (R1, section 2.3.2).

    None if it has no letters: figures are of no language.
    """
    thinking, _ = split_reasoning(written.text)
    chinese = len(_CJK.findall(thinking or ""))
    latin = len(_LATIN.findall(thinking or ""))
    if chinese + latin == 0:
        return None
    own = chinese if written.problem.language == "zh" else latin
    return own / (chinese + latin)


def random_reward(written: Written) -> float:
    """A coin toss, as a control: a gain under it does not come from the reward."""
    return float(random.Random(written.seed).random() < 0.5)


_OF_ONE: dict[str, Callable[[Written], Reward]] = {
    "format": format_reward,
    "language": language_reward,
    "random": random_reward,
}


class _GuardedTask(Task):
    """A user's own task whose scoring runs in the worker, so that it cannot end the run."""

    def __init__(self, task: Task, worker: RewardWorker, problems: list[str]):
        self._task, self._worker, self._problems = task, worker, problems
        self.source = task.source

    def make(self, rng: random.Random, level: int, language: Language | None = None) -> Problem:
        return self._task.make(rng, level, language)

    def solve(self, problem: Problem, rng: random.Random) -> Solution:
        return self._task.solve(problem, rng)

    def close(self) -> None:
        self._task.close()

    def score(self, problem: Problem, completion: str) -> Score:
        outcome = self._worker.score(self.source, [(problem, completion)])
        if outcome.problem is None:
            return outcome.values[0]
        self._problems.append(f"task {self._task.name}: {outcome.problem}")
        return wrong("scoring failed")


class Rewards:
    """The configured reward functions and the tasks they ask."""

    def __init__(self, config: RLConfig, tasks: Mapping[str, Task]):
        self.names = config.rewards
        weights = config.reward_weights or (1.0,) * len(config.rewards)
        self.weights = dict(zip(config.rewards, weights, strict=True))
        self._worker = RewardWorker(config.reward_timeout_seconds)
        self.problems: list[str] = []  # what went wrong in users' code since last asked
        self.tasks: dict[str, Task] = {
            name: _GuardedTask(task, self._worker, self.problems) if task.source else task
            for name, task in tasks.items()
        }
        for name in self.names:
            if name != "accuracy" and name not in _OF_ONE and ".py:" not in name:
                known = ", ".join(("accuracy", *_OF_ONE))
                raise ConfigError(
                    f"reward {name!r} is not known; expected {known} or file.py:function"
                )

    def close(self) -> None:
        """Stop the processes that users' functions and the tasks' sandboxes run in."""
        self._worker.close()
        for task in self.tasks.values():
            task.close()

    def take_problems(self) -> list[str]:
        """What went wrong in users' code since the last call, each message once."""
        found = list(dict.fromkeys(self.problems))
        self.problems.clear()
        return found

    def judge(self, batch: Sequence[Written], step: int) -> Judged:
        """Rewards of a batch; a truncated completion is never accurate."""
        scores = self._score(batch)
        parts: dict[str, list[Reward]] = {}
        for name in self.names:
            if name == "accuracy":
                parts[name] = [score.reward for score in scores]
            elif name in _OF_ONE:
                parts[name] = [_OF_ONE[name](written) for written in batch]
            else:
                parts[name] = self._ask_user(name, batch, step)
        total = torch.zeros(len(batch))
        for name, values in parts.items():
            total += self.weights[name] * torch.tensor([value or 0.0 for value in values])
        return Judged(total, parts, scores)

    def _score(self, batch: Sequence[Written]) -> list[Score]:
        """Each completion's score by its own task."""
        scores = [wrong("truncated")] * len(batch)
        by_task: dict[str, list[int]] = {}
        for index, written in enumerate(batch):
            if written.ended:
                by_task.setdefault(written.problem.task, []).append(index)
        for name, indices in by_task.items():
            found = self._score_one_task(name, [batch[index] for index in indices])
            for index, score in zip(indices, found, strict=True):
                scores[index] = score
        return scores

    def _score_one_task(self, name: str, batch: list[Written]) -> list[Score]:
        task = self.tasks[name]
        if not task.uses_sandbox:
            return [task.score(written.problem, written.text) for written in batch]
        with ThreadPoolExecutor(_SCORING_THREADS) as pool:
            return list(pool.map(lambda written: task.score(written.problem, written.text), batch))

    def _ask_user(self, name: str, batch: Sequence[Written], step: int) -> list[Reward]:
        columns: dict[str, Any] = {
            "prompts": [written.problem.prompt for written in batch],
            "completions": [written.text for written in batch],
            "completion_ids": [list(written.ids) for written in batch],
            "solution": [written.problem.answer for written in batch],
            "answer": [written.problem.answer for written in batch],
            "task": [written.problem.task for written in batch],
            "level": [written.problem.level for written in batch],
            "language": [written.problem.language for written in batch],
            "data": [dict(written.problem.data) for written in batch],
            "trainer_state": {"global_step": step},
        }
        outcome = self._worker.call(name, columns, len(batch))
        if outcome.problem is not None:
            self.problems.append(f"reward {name}: {outcome.problem}")
            return [None] * len(batch)
        finite = [v if v is None or math.isfinite(v) else None for v in outcome.values]
        if finite != outcome.values:
            self.problems.append(f"reward {name}: returned nan or inf; return numbers or None")
        return finite
