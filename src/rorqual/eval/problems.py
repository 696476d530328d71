"""Held-out problem sets: the same on every machine, balanced, and never trained on."""

import random
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from rorqual.config.tasks import TaskShare
from rorqual.errors import ConfigError, DataError
from rorqual.tasks import Language, Problem, Task, load_task, make_in_split

_DRAWS_WITHOUT_NEWS = 1000


@contextmanager
def open_tasks(shares: Iterable[TaskShare]) -> Iterator[dict[str, Task]]:
    """The tasks that shares name, by the name their problems carry; closed at the end."""
    tasks = _load_tasks(shares)
    try:
        yield tasks
    finally:
        for task in tasks.values():
            task.close()


def _load_tasks(shares: Iterable[TaskShare]) -> dict[str, Task]:
    loaded: dict[str, Task] = {}
    for name in dict.fromkeys(share.name for share in shares):
        task = load_task(name)
        if task.name in loaded:
            raise ConfigError(
                f"task {name!r} calls itself {task.name!r} as another one does; rename one"
            )
        loaded[task.name] = task
    return loaded


def held_out_problems(shares: Sequence[TaskShare], num_problems: int, seed: int) -> list[Problem]:
    """num_problems of the held-out split, no two with one problem_id.

    They go round the shares, and within a share round its levels and languages, so counts differ by
    one at most and a shorter set is the beginning of a longer one.
    """
    cells = [_cells(share, seed) for share in shares]
    seen: set[str] = set()
    problems: list[Problem] = []
    for index in range(num_problems):
        turn, which = divmod(index, len(shares))
        problem = cells[which][turn % len(cells[which])].draw(seen)
        seen.add(problem.problem_id)
        problems.append(problem)
    return problems


def check_disjoint(training_ids: Iterable[str], held_out: Iterable[Problem]) -> None:
    """DataError naming a problem that was, or would be, trained on."""
    evaluated = {problem.problem_id: problem for problem in held_out}
    for problem_id in training_ids:
        if problem_id in evaluated:
            problem = evaluated[problem_id]
            raise DataError(
                f"problem {problem_id} ({problem.prompt[:60]!r}) is in the training data and in "
                "the evaluation, expected disjoint sets; remove it from one of them"
            )


class _Cell:
    """One task, level and language, with its own stream of random numbers."""

    def __init__(self, task: Task, level: int, language: Language, seed: int):
        self.task, self.level = task, level
        self.language: Language = language
        self._rng = random.Random(f"held-out {seed} {task.name} {level} {language}")
        self._num_found = 0

    def draw(self, seen: set[str]) -> Problem:
        """A problem that is not in `seen`."""
        for _ in range(_DRAWS_WITHOUT_NEWS):
            problem = make_in_split(self.task, self._rng, self.level, self.language, held_out=True)
            if problem.problem_id not in seen:
                self._num_found += 1
                return problem
        raise DataError(
            f"task {self.task.name} level {self.level} {self.language}: found {self._num_found} "
            f"different held-out problems and no other in {_DRAWS_WITHOUT_NEWS} draws; lower "
            "num_problems or add levels"
        )


def _cells(share: TaskShare, seed: int) -> list[_Cell]:
    task = load_task(share.name)
    return [
        _Cell(task, level, language, seed) for level in share.levels for language in share.languages
    ]
