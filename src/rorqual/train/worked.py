"""Worked examples of tasks as conversations: what a base model pretrains on, and SFT learns from.

Only problems of the training split are drawn. An example depends on the seed and its own number
alone, so a longer list begins with the shorter one. A follow-up stands behind other questions and
their answers, as in a conversation; the chat template leaves out what was thought for those.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rorqual.config.tasks import TaskShare
from rorqual.data import add_chats
from rorqual.data.documents import Language
from rorqual.data.manifest import Entry
from rorqual.tasks import Problem, Task, check_level, load_task, make_in_split
from rorqual.tokenizer import Message

_LICENCE = "generated"


@dataclass(frozen=True, slots=True)
class WorkedExample:
    """A problem and its solution as a conversation; thinking: it reasons before it answers."""

    example_id: str
    problem: Problem
    thinking: bool
    messages: list[dict[str, Any]]


def worked_examples(
    shares: Sequence[TaskShare], num_examples: int, seed: int
) -> Iterator[WorkedExample]:
    """Examples of the mixture, of the training split only."""
    tasks = [load_task(share.name) for share in shares]
    for task, share in zip(tasks, shares, strict=True):
        for level in share.levels:
            check_level(task, level)
    weights = [share.weight for share in shares]
    earlier = [index for index, share in enumerate(shares) if share.follow_up]
    for number in range(num_examples):
        rng = random.Random(f"worked example {seed} {number}")
        (index,) = rng.choices(range(len(shares)), weights)
        share = shares[index]
        problem, thinking, messages = _draw(rng, share, tasks[index])
        if share.follow_up and rng.random() < share.follow_up:
            for other in rng.choices(earlier, k=rng.choice((1, 1, 2))):
                messages = _draw(rng, shares[other], tasks[other])[2] + messages
        yield WorkedExample(f"{problem.task}-{number}", problem, thinking, messages)


def _draw(
    rng: random.Random, share: TaskShare, task: Task
) -> tuple[Problem, bool, list[dict[str, Any]]]:
    level, language = rng.choice(share.levels), rng.choice(share.languages)
    problem = make_in_split(task, rng, level, language, held_out=False)
    thinking = rng.random() < share.thinking
    return problem, thinking, list(task.solve(problem, rng).messages(problem, thinking=thinking))


def write_task_corpus(
    root: Path,
    shares: Sequence[TaskShare],
    num_examples: int,
    seed: int,
    name: str = "tasks",
) -> Entry:
    """Adds worked examples to the corpus at `root`; a source of that name is replaced."""
    conversations: Iterator[tuple[str, Sequence[Message], Language]] = (
        (example.example_id, example.messages, example.problem.language)
        for example in worked_examples(shares, num_examples, seed)
    )
    return add_chats(root, name, conversations, _LICENCE)
