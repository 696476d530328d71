"""Every family's worked function passes; wrong, hostile and absent ones earn nothing."""

import random
from collections.abc import Iterator

import pytest

from rorqual.sandbox import Sandbox
from rorqual.tasks import Problem, make_in_split
from rorqual.tasks.code_blocks import fenced
from rorqual.tasks.function_families import FAMILIES
from rorqual.tasks.python_function import PythonFunction, is_same_value


@pytest.fixture(scope="module")
def task() -> Iterator[PythonFunction]:
    with Sandbox(num_workers=1) as sandbox:
        yield PythonFunction(sandbox)


def one_of_each(task: PythonFunction, seed: int) -> dict[int, Problem]:
    """A problem of every family, in either language."""
    found: dict[int, Problem] = {}
    rng = random.Random(seed)
    while len(found) < len(FAMILIES):
        problem = task.make(rng, rng.randint(1, task.num_levels))
        found[problem.data["family"]] = problem
    return found


def find(task: PythonFunction, name: str) -> Problem:
    rng = random.Random(1)
    while True:
        problem = task.make(rng, rng.randint(1, task.num_levels))
        if name in FAMILIES[problem.data["family"]].names:
            return problem


def test_every_family_passes_with_its_worked_function(task: PythonFunction) -> None:
    for problem in one_of_each(task, 0).values():
        solution = task.solve(problem, random.Random(0))
        score = task.score(problem, solution.completion(thinking=True))
        assert score.correct, (score.reason, problem.prompt, solution.content)
        assert problem.data["function"] in problem.prompt
        assert all(name in problem.prompt for name in problem.data["arguments"])


@pytest.mark.soak
@pytest.mark.parametrize("level", range(1, PythonFunction.num_levels + 1))
@pytest.mark.parametrize("language", ["en", "zh"])
def test_worked_functions_pass(task: PythonFunction, level: int, language: str) -> None:
    for seed in range(200):
        rng = random.Random(seed)
        problem = task.make(rng, level, language)  # type: ignore[arg-type]
        text = task.solve(problem, rng).completion(thinking=seed % 2 == 0)
        assert task.score(problem, text).correct, problem


def test_other_families_functions_fail(task: PythonFunction) -> None:
    problems = list(one_of_each(task, 3).values())
    for index, problem in enumerate(problems[:12]):
        other = problems[(index + 1) % len(problems)]
        content = task.solve(other, random.Random(0)).content
        renamed = content.replace(other.data["function"], problem.data["function"])
        assert not task.score(problem, renamed).correct, (problem.prompt, renamed)


@pytest.mark.parametrize("constant", ["0", "1", "True", "''", "[]", "None"])
def test_constants_fail(task: PythonFunction, constant: str) -> None:
    for problem in list(one_of_each(task, 4).values())[::3]:
        call = f"{problem.data['function']}({', '.join(problem.data['arguments'])})"
        text = fenced("python", f"def {call}:\n    return {constant}")
        assert task.score(problem, text).reason == "wrong result"


HOSTILE = {
    "exits": ("import os\nos._exit(0)", "program fails"),
    "equal to all": (
        "class A(int):\n    def __eq__(self, o): return True\n"
        "    def __hash__(self): return 1\ndef NAME(*a): return A(7)",
        "program fails",
    ),
    "true for one": ("def NAME(*a): return 1", "wrong result"),
    "raises": ("def NAME(*a): raise ValueError", "program fails"),
    "other name": ("def another(*a): return True", "program fails"),
    "syntax": ("def NAME(*a) return True", "program fails"),
    "prints": ("def NAME(*a): print(True)", "wrong result"),
    "loops": ("def NAME(*a):\n    while True: pass", "out of time"),
    "eats memory": ("def NAME(*a): return len([0] * 10**10)", "out of memory"),
}


@pytest.mark.parametrize("attack", HOSTILE)
def test_hostile_functions_earn_nothing(task: PythonFunction, attack: str) -> None:
    problem = find(task, "is_palindrome")
    code, reason = HOSTILE[attack]
    text = fenced("python", code.replace("NAME", problem.data["function"]))
    score = task.score(problem, text)
    assert (score.reward, score.correct, score.reason) == (0.0, False, reason)


def test_replies_without_a_python_program_are_told_apart(task: PythonFunction) -> None:
    problem = find(task, "factorial")
    code = task.solve(problem, random.Random(0)).content
    assert task.score(problem, "I would use a loop.").reason == "no program"
    assert task.score(problem, f"<think>\n{code}").reason == "thinking never ends"
    assert task.score(problem, code.replace("python", "js")).reason == "wrong programming language"


@pytest.mark.parametrize(
    ("got", "wanted", "same"),
    [
        (1, True, False),
        (True, 1, False),
        (True, True, True),
        (6.0, 6, True),
        (6.5, 6, False),
        ("6", 6, False),
        (6, "6", False),
        ([1, [2]], [1, [2]], True),
        ([1], [1, 2], False),
        ([True], [1], False),
        (None, 0, False),
        ("ab", "ab", True),
        ({"a": 1}, 0, False),
    ],
)
def test_values_are_compared_by_kind(got: object, wanted: object, same: bool) -> None:
    assert is_same_value(got, wanted) is same


def test_problems_are_the_same_for_a_seed_and_differ_between_splits(task: PythonFunction) -> None:
    for level in range(1, task.num_levels + 1):
        assert task.make(random.Random(5), level) == task.make(random.Random(5), level)
        rng = random.Random(level)
        keys = [{make_in_split(task, rng, level, held_out=held).key for _ in range(40)}
                for held in (True, False)]  # fmt: skip
        assert not keys[0] & keys[1]
        assert min(map(len, keys)) > 10
