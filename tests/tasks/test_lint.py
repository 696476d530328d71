"""Lint passes what ships, and refuses rewards that pay for anything but the right answer."""

from pathlib import Path

import pytest

from rorqual.errors import ConfigError
from rorqual.tasks import list_tasks, load_task
from rorqual.tasks.lint import Finding, is_refused, lint_task

HEAD = '''
import random, re, time
from typing import ClassVar
from rorqual.tasks import Language, Problem, Score, Solution, Task, draw_language, wrong
from rorqual.tasks import score_answer

class Sum(Task):
    """Two numbers added."""
    name: ClassVar[str] = "sum"
    num_levels: ClassVar[int] = 1
    def make(self, rng, level, language=None):
        a, b = rng.randrange(100), rng.randrange(100)
        spoken = draw_language(rng, language)
        return Problem(self.name, level, spoken, f"{a}+{b}=?", str(a + b), f"{a} {b}")
    def solve(self, problem, rng):
        return Solution(problem.prompt, f"\\\\boxed{{{problem.answer}}}")
'''
# How a reward is written wrong -> a finding's kind and words of its message.
GAMEABLE = {
    "substring": (
        "right = problem.answer in completion\nreturn Score(float(right), right, '')",
        ("no box", "pays 1 for the right answer in words, no box"),
    ),
    "length": (
        "bonus = min(len(completion), 2000) / 10000\n"
        "score = score_answer(problem, completion)\n"
        "return Score(score.reward + bonus, score.correct, '')",
        ("length", "for long thinking and a wrong answer"),
    ),
    "form": (
        "score = score_answer(problem, completion)\n"
        "form = 0.1 * completion.startswith('<think>')\n"
        "return Score(score.reward + form, score.correct, '')",
        ("form", "pays 0.1 for thinking and a wrong answer"),
    ),
    "any box": (
        "boxes = re.findall(r'boxed{([^{}]*)}', completion)\n"
        "right = problem.answer in boxes\nreturn Score(float(right), right, '')",
        ("spam", "pays 1 for right in the thinking, wrong in the box"),
    ),
    "close enough": (
        "numbers = re.findall(r'boxed{(\\d{1,9})}', completion)\n"
        "right = bool(numbers) and abs(int(numbers[-1]) - int(problem.answer)) <= 1\n"
        "return Score(float(right), right, '')",
        ("wrong", "pays 1 for a wrong answer"),
    ),
    "says nothing": (
        "return Score(0.0 if '\\\\boxed' in completion else 0.2, False, '')",
        ("empty", "pays 0.2 for an empty answer"),
    ),
    "raises": (
        "return Score(float(int(completion.split('{')[1][:-1]) == int(problem.answer)), True, '')",
        ("raises", "score raises"),
    ),
    "not a score": ("return float('nan')", ("raises", "gives nan and not a Score")),
    "own solution unpaid": (
        "return wrong('never')",
        ("gold", "the task's own solution is not paid (never)"),
    ),
    "slow": (
        "time.sleep(0.06 * ('\\x00' in completion))\nreturn score_answer(problem, completion)",
        ("slow", "takes more than 50 ms on NUL bytes"),
    ),
    "hangs": (
        "while completion == '9**9**9**9' and problem.language == 'en': pass\n"
        "return score_answer(problem, completion)",
        ("stopped", "scoring takes longer than 3 s"),
    ),
    "evaluates": (
        "inner = completion.rpartition('boxed{')[2][:-1]\n"
        "try:\n    right = eval(inner[:99]) == int(problem.answer)\n"
        "except Exception:\n    right = False\n"
        "return Score(float(right), right, '')",
        ("executed", "the answer's text is run as code"),
    ),
    "dies": (
        "import os\nif 'exit' in completion: os._exit(0)\nreturn score_answer(problem, completion)",
        ("stopped", "scoring ends the process"),
    ),
}


def write_task(path: Path, score: str, head: str = HEAD) -> str:
    body = "".join(f"        {line}\n" for line in score.splitlines())
    path.write_text(f"{head}    def score(self, problem, completion):\n{body}", encoding="utf-8")
    return f"{path}:Sum"


def told(findings: list[Finding]) -> str:
    return "\n".join(f"{found.severity} {found.kind}: {found.message}" for found in findings)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.soak] if load_task(name).uses_sandbox else [])
        for name in list_tasks()
    ],
)
def test_what_ships_passes(name: str) -> None:
    findings = lint_task(name)
    assert findings == [], told(findings)


@pytest.mark.parametrize("fault", GAMEABLE)
def test_a_gameable_reward_is_refused(fault: str, tmp_path: Path) -> None:
    score, (kind, message) = GAMEABLE[fault]
    findings = lint_task(write_task(tmp_path / "task.py", score))
    assert is_refused(findings)
    assert any(found.kind == kind and message in found.message for found in findings), told(
        findings
    )


def test_the_default_score_passes_and_punishments_are_allowed(tmp_path: Path) -> None:
    score = (
        "score = score_answer(problem, completion)\n"
        "return score if score.correct else Score(-0.5, False, 'punished')"
    )
    assert lint_task(write_task(tmp_path / "task.py", score)) == []


def test_alike_findings_are_one_with_a_count(tmp_path: Path) -> None:
    findings = lint_task(write_task(tmp_path / "task.py", GAMEABLE["substring"][0]))
    in_words = [found for found in findings if "in words" in found.message]
    assert [found.count for found in in_words] == [6]  # 3 problems in each language
    assert in_words[0].example == "level 1 en: the right answer in words, no box"


def test_problems_that_ignore_the_seed_are_refused(tmp_path: Path) -> None:
    head = HEAD.replace("rng.randrange(100), rng", "random.randrange(100), rng")
    findings = lint_task(write_task(tmp_path / "task.py", "return wrong('')", head))
    assert any(found.kind == "seed" and found.severity == "refused" for found in findings)


def test_few_problems_and_a_constant_answer_are_warnings(tmp_path: Path) -> None:
    head = HEAD.replace("a, b = rng.randrange(100), rng.randrange(100)", "a, b = 1, 1")
    name = write_task(tmp_path / "task.py", "return score_answer(problem, completion)", head)
    findings = lint_task(name)
    assert {(found.kind, found.severity) for found in findings} == {
        ("few", "warning"),
        ("constant", "warning"),
    }
    assert not is_refused(findings)


def test_a_task_that_cannot_be_loaded_is_an_error() -> None:
    with pytest.raises(ConfigError, match="not known"):
        lint_task("nonsense")
