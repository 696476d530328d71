"""One sampled answer and its score, as `items.jsonl` keeps it.

A line holds all that scoring needs (the whole problem and the text as it was scored), so anyone can
score it again without the model. What follows from text and problem is computed by `judge` alone,
in the first scoring as in every later one.
"""

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

from rorqual.config.eval import EvalSampling
from rorqual.errors import DataError, RorqualError
from rorqual.tasks import Problem, Score, Task
from rorqual.tasks.answers import final_answer, normal_text, parse_number, split_reasoning

Key = tuple[str, str, int]


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a task and our readers make of a text.

    answer is None without one: no box where the task wants one, nothing after the thinking.
    """

    reward: float
    correct: bool
    reason: str
    thinks: bool
    answer: str | None


@dataclass(frozen=True, slots=True)
class Item:
    """A sample. num_tokens counts the end token; thinking_tokens what stands between the markers;
    seconds is its share of the batch it was sampled in, scoring included."""

    problem: Problem
    sample_idx: int
    seed: int
    sampling: EvalSampling
    text: str
    num_tokens: int
    thinking_tokens: int
    ended: bool
    seconds: float
    judgement: Judgement

    @property
    def key(self) -> Key:
        """Tells the samples of an evaluation apart, and sorts them."""
        return (self.problem.problem_id, self.problem.language, self.sample_idx)

    def to_json(self) -> dict[str, Any]:
        """One line of items.jsonl."""
        return {
            "problem_id": self.problem.problem_id,
            "problem": problem_to_json(self.problem),
            "sample_idx": self.sample_idx,
            "seed": self.seed,
            "sampling": self.sampling.model_dump(),
            "text": self.text,
            "num_tokens": self.num_tokens,
            "thinking_tokens": self.thinking_tokens,
            "ended": self.ended,
            "seconds": self.seconds,
            **asdict(self.judgement),
        }

    @classmethod
    def from_json(cls, line: Mapping[str, Any]) -> "Item":
        """The inverse; DataError if the line is no item or its problem was changed."""
        try:
            item = cls(
                problem=Problem(**line["problem"]),
                sampling=EvalSampling(**line["sampling"]),
                judgement=Judgement(**{name: line[name] for name in Judgement.__slots__}),
                **{name: line[name] for name in _PLAIN_FIELDS},
            )
            recorded = line["problem_id"]
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"item {str(line)[:80]}: not a line of items.jsonl ({error!r}); evaluate again"
            ) from error
        if recorded != item.problem.problem_id:
            raise DataError(
                f"item {recorded}: its problem hashes to {item.problem.problem_id}; the line was "
                "changed, evaluate again"
            )
        return item


_PLAIN_FIELDS = (
    "sample_idx",
    "seed",
    "text",
    "num_tokens",
    "thinking_tokens",
    "ended",
    "seconds",
)


def problem_to_json(problem: Problem) -> dict[str, Any]:
    """The fields of a problem."""
    return {name: getattr(problem, name) for name in Problem.__slots__}


def judge(task: Task, problem: Problem, text: str) -> Judgement:
    """Score a completion; DataError if the task fails at it."""
    try:
        score: Score = task.score(problem, text)
    except RorqualError:  # no sandbox here, say
        raise
    except Exception as error:  # any fault of a user's own task
        raise DataError(
            f"task {task.name} cannot score problem {problem.problem_id}: {error!r}; expected a "
            "Score, correct its score()"
        ) from error
    thinking, reply = split_reasoning(text)
    return Judgement(
        reward=float(score.reward),
        correct=bool(score.correct),
        reason=score.reason,
        thinks=bool(thinking and thinking.strip()),
        answer=_answer(problem, reply),
    )


def judge_all(tasks: Mapping[str, Task], pairs: Sequence[tuple[Problem, str]]) -> list[Judgement]:
    """`judge` of each problem and text; those that run programs by several threads."""

    def one(pair: tuple[Problem, str]) -> Judgement:
        return judge(tasks[pair[0].task], *pair)

    if not any(tasks[problem.task].uses_sandbox for problem, _ in pairs):
        return [one(pair) for pair in pairs]
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        return list(pool.map(one, pairs))


def _answer(problem: Problem, reply: str | None) -> str | None:
    if reply is None or problem.answer:
        return None if reply is None else final_answer(reply)
    return reply or None  # the reply is the answer: a program


def vote(item: Item) -> str | None:
    """The answer in the form in which equal answers are equal strings."""
    answer = item.judgement.answer
    if answer is None:
        return None
    number = parse_number(answer)
    return normal_text(answer) if number is None else str(number)
