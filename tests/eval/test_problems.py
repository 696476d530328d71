"""Held-out sets: reproducible, balanced, distinct, disjoint from training."""

import random
from collections import Counter
from pathlib import Path

import pytest

from rorqual.config.tasks import TaskShare
from rorqual.errors import ConfigError, DataError
from rorqual.eval import check_disjoint, held_out_problems, open_tasks
from rorqual.tasks import load_task, make_in_split

SHARES = (
    TaskShare(name="running_state", levels=(1, 3)),
    TaskShare(name="running_state", levels=(2,), languages=("zh",)),
)

FEW = """
from rorqual.tasks import Problem, Solution, Task

class Few(Task):
    name = "few"
    num_levels = 1
    def make(self, rng, level, language=None):
        number = rng.randrange(40)
        return Problem(self.name, level, language or "en", f"{number}?", str(number), str(number))
    def solve(self, problem, rng):
        return Solution("", problem.answer)

class Twin(Few):
    levels = 1
"""


def test_problems_are_held_out_distinct_and_the_same_each_time() -> None:
    problems = held_out_problems(SHARES, 60, seed=3)
    assert problems == held_out_problems(SHARES, 60, seed=3)
    assert problems != held_out_problems(SHARES, 60, seed=4)
    assert problems[:20] == held_out_problems(SHARES, 20, seed=3)
    assert len({problem.problem_id for problem in problems}) == 60
    assert all(problem.held_out for problem in problems)


def test_problems_are_balanced_over_shares_levels_and_languages() -> None:
    problems = held_out_problems(SHARES, 64, seed=0)
    cells = Counter((problem.level, problem.language) for problem in problems)
    assert cells == {(1, "en"): 8, (1, "zh"): 8, (3, "en"): 8, (3, "zh"): 8, (2, "zh"): 32}


def test_training_on_a_held_out_problem_is_refused_and_named() -> None:
    held_out = held_out_problems(SHARES, 20, seed=0)
    task, rng = load_task("running_state"), random.Random(0)
    training = [make_in_split(task, rng, 1, held_out=False).problem_id for _ in range(200)]
    check_disjoint(training, held_out)
    with pytest.raises(DataError, match=held_out[7].problem_id):
        check_disjoint([*training, held_out[7].problem_id], held_out)


def test_a_task_with_too_few_problems_says_how_many_there_are(tmp_path: Path) -> None:
    file = tmp_path / "few.py"
    file.write_text(FEW, encoding="utf-8")
    share = TaskShare(name=f"{file}:Few", languages=("en",))
    existing = {str(n) for n in range(40)}
    task = load_task(share.name)
    made = (task.make(random.Random(i), 1) for i in range(2000))
    held_out = {problem.key for problem in made if problem.held_out}
    assert 0 < len(held_out) < len(existing)
    assert len(held_out_problems([share], len(held_out), seed=0)) == len(held_out)
    with pytest.raises(DataError, match=f"found {len(held_out)} different"):
        held_out_problems([share], len(held_out) + 1, seed=0)


def test_two_tasks_of_one_name_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "few.py"
    file.write_text(FEW, encoding="utf-8")
    shares = [TaskShare(name=f"{file}:{kind}") for kind in ("Few", "Twin")]
    with pytest.raises(ConfigError, match="few"), open_tasks(shares):
        pass


def test_tasks_are_known_by_their_problems_name_and_closed(tmp_path: Path) -> None:
    file = tmp_path / "few.py"
    closing = "    def close(self):\n        self.closed = True\n"
    file.write_text(FEW + closing, encoding="utf-8")
    share = TaskShare(name=f"{file}:Twin")
    with open_tasks([share, share]) as tasks:
        assert set(tasks) == {"few"} and not hasattr(tasks["few"], "closed")
    assert tasks["few"].closed  # type: ignore[attr-defined]
