"""What a task is: it makes problems, works them out, and scores what a model wrote about them.

A task never trusts a completion: `score` parses it with small parsers of our own or hands it to
the sandbox, and never evaluates it in the caller's process. Problems are split into training and
held-out by a hash of what is asked, so the same numbers in the other language stay on their side.
"""

import hashlib
import random
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, get_args

from rorqual.errors import ConfigError, DataError
from rorqual.tasks.answers import final_answer, is_same_answer, split_reasoning

Language = Literal["en", "zh"]
LANGUAGES: tuple[Language, ...] = get_args(Language)
HELD_OUT_ONE_IN = 8
_MOST_DRAWS = 2000


@dataclass(frozen=True, slots=True)
class Problem:
    """One question.

    key says what is asked, independent of language and wording: the split and every check for
    overlap go by it. answer is what belongs into the box ("" where only running a program can
    tell). data is JSON-able and holds what solving and scoring need beyond that.
    """

    task: str
    level: int
    language: Language
    prompt: str
    answer: str
    key: str
    data: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @property
    def problem_id(self) -> str:
        """The same on every machine and in both languages."""
        digest = hashlib.blake2b(f"{self.task}\n{self.key}".encode(), digest_size=8).hexdigest()
        return f"{self.task}-{digest}"

    @property
    def held_out(self) -> bool:
        """One problem in HELD_OUT_ONE_IN is for evaluation only."""
        return int(self.problem_id[-8:], 16) % HELD_OUT_ONE_IN == 0


@dataclass(frozen=True, slots=True)
class Solution:
    """A worked answer: the thinking, and the reply that carries the final answer."""

    thinking: str
    content: str

    def messages(self, problem: Problem, *, thinking: bool) -> list[dict[str, str]]:
        """The conversation, with the thinking or answering at once."""
        reply = {"role": "assistant", "content": self.content}
        if thinking:
            reply["reasoning_content"] = self.thinking
        return [{"role": "user", "content": problem.prompt}, reply]

    def completion(self, *, thinking: bool) -> str:
        """The assistant's text as a model would write it."""
        return f"<think>\n{self.thinking}\n</think>\n\n{self.content}" if thinking else self.content


@dataclass(frozen=True, slots=True)
class Score:
    """What a completion earned. reason is a short stable phrase, for logs and people."""

    reward: float
    correct: bool
    reason: str


RIGHT = Score(1.0, True, "correct")


def wrong(reason: str) -> Score:
    """No reward, and why."""
    return Score(0.0, False, reason)


class Task(ABC):
    """One family of problems at levels 1 (easiest) to num_levels."""

    name: ClassVar[str]
    num_levels: ClassVar[int]
    uses_sandbox: ClassVar[bool] = False
    source: str = ""  # file.py:ClassName of a user's own task, "" for those that ship

    @abstractmethod
    def make(self, rng: random.Random, level: int, language: Language | None = None) -> Problem:
        """A problem; everything about it comes from rng. language None: drawn."""

    @abstractmethod
    def solve(self, problem: Problem, rng: random.Random) -> Solution:
        """A worked solution whose thinking a reader can follow step by step."""

    def score(self, problem: Problem, completion: str) -> Score:
        """Judge the assistant's text, reasoning markers included, end-of-turn token not."""
        return score_answer(problem, completion)

    def close(self) -> None:
        """Let go of what scoring may hold (a sandbox's processes)."""
        return


def score_answer(problem: Problem, completion: str) -> Score:
    """Full reward if the last boxed (or <answer>) text after the thinking is the answer."""
    _, content = split_reasoning(completion)
    if content is None:
        return wrong("thinking never ends")
    got = final_answer(content)
    if got is None:
        return wrong("no answer")
    return RIGHT if is_same_answer(got, problem.answer) else wrong("wrong answer")


def draw_language(rng: random.Random, language: Language | None) -> Language:
    """The language asked for, or one by the toss of a coin."""
    return rng.choice(LANGUAGES) if language is None else language


def check_level(task: Task, level: int) -> None:
    """ConfigError if the task has no such level."""
    if not 1 <= level <= task.num_levels:
        raise ConfigError(
            f"level={level} of task {task.name}; it has levels 1 to {task.num_levels}, choose one"
        )


def make_in_split(
    task: Task,
    rng: random.Random,
    level: int,
    language: Language | None = None,
    *,
    held_out: bool,
) -> Problem:
    """A problem of the training or the held-out split."""
    check_level(task, level)
    for _ in range(_MOST_DRAWS):
        problem = task.make(rng, level, language)
        if problem.held_out == held_out:
            return problem
    raise DataError(
        f"task {task.name} level {level}: no {'held-out' if held_out else 'training'} problem in "
        f"{_MOST_DRAWS} draws; it makes too few different problems at this level"
    )
