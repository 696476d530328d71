"""The native arithmetic families: right by construction, honest in every step, hard to game."""

import dataclasses
import random
import re
import sys
from collections import Counter
from fractions import Fraction
from types import FrameType
from typing import Any

import pytest

from rorqual.tasks.answers import evaluate_expression, final_answer
from rorqual.tasks.arithmetic import Arithmetic
from rorqual.tasks.base import (
    HELD_OUT_ONE_IN,
    LANGUAGES,
    Language,
    Problem,
    Score,
    Task,
    make_in_split,
)
from rorqual.tasks.base_conversion import BaseConversion
from rorqual.tasks.chain_sum import ChainSum
from rorqual.tasks.countdown import Countdown
from rorqual.tasks.equations import Equations
from rorqual.tasks.gcd_lcm import GcdLcm
from rorqual.tasks.letter_counting import LetterCounting
from rorqual.tasks.registry import list_tasks, load_task
from rorqual.tasks.sorting import Sorting

TASKS: tuple[Task, ...] = (
    Arithmetic(),
    ChainSum(),
    Countdown(),
    GcdLcm(),
    BaseConversion(),
    Sorting(),
    LetterCounting(),
    Equations(),
)
CASES = [
    pytest.param(task, level, language, id=f"{task.name}-{level}-{language}")
    for task in TASKS
    for level in range(1, task.num_levels + 1)
    for language in LANGUAGES
]
each_task = pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
each_case = pytest.mark.parametrize(("task", "level", "language"), CASES)
CORRECTIONS = (", wait, ", ", no, ", "，等一下，", "，不对，")
HOSTILE = (
    "9**9**9",
    "__import__('os')",
    "__import__('os').system('true')",
    "7" * 10**6,
    "(" * 10**5,
    "[" * 10**5,
    "{" * 10**5,
    "(" * 10**5 + "1" + ")" * 10**5,
    "{" * 10**5 + "1" + "}" * 10**5,
    "-" * 10**5 + "1",
    "1+" * 10**5 + "1",
    "1/0",
    "\x00",
    "",
)


def problems(task: Task, level: int, language: Language | None, count: int) -> list[Problem]:
    rng = random.Random(f"{task.name} {level}")
    return [task.make(rng, level, language) for _ in range(count)]


def near_misses(problem: Problem) -> list[str]:
    """Answers that look right and are not."""
    if problem.task == "countdown":
        first, second, *_ = problem.data["numbers"]
        return [str(problem.data["target"]), f"{problem.answer}+{first}", f"{first}+{second}*0"]
    if problem.task == "sorting":
        first, second, *rest = problem.answer.split(", ")
        swapped = ", ".join([second, first, *rest])
        return [swapped, ", ".join(problem.answer.split(", ")[:-1]), problem.answer + ", 1"]
    if problem.task == "base_conversion" and not problem.answer.isdigit():
        return [problem.answer[:-1], problem.answer + "0", "0x" + problem.answer]
    value = Fraction(problem.answer)
    return [str(value + 1), str(value - 1), str(-value) if value else "10", f"{problem.answer}0"]


@each_case
def test_worked_and_direct_solutions_are_right(task: Task, level: int, language: Language) -> None:
    rng = random.Random(7)
    for problem in problems(task, level, language, 300):
        solution = task.solve(problem, rng)
        assert problem.language == language and problem.level == level
        if problem.task != "countdown":  # several expressions reach a target
            assert solution.content == f"\\boxed{{{problem.answer}}}"
        assert "\\boxed" not in solution.thinking and "<" + "/" not in solution.thinking
        for thinking in (True, False):
            score = task.score(problem, solution.completion(thinking=thinking))
            assert (score.reward, score.correct, score.reason) == (1.0, True, "correct")


@each_case
def test_near_misses_and_unanswered_completions_earn_nothing(
    task: Task, level: int, language: Language
) -> None:
    rng = random.Random(8)
    for problem in problems(task, level, language, 20):
        solution = task.solve(problem, rng)
        thinking = solution.thinking
        for wrong in near_misses(problem):
            if problem.answer == "0" and wrong == "00":
                continue
            assert task.score(problem, f"\\boxed{{{wrong}}}").reward == 0, (problem, wrong)
            assert task.score(problem, f"{solution.content} \\boxed{{{wrong}}}").reward == 0
        for text in (
            "",
            problem.answer,
            f"<think>\n{thinking}\n{solution.content}",
            f"<think>\n{thinking}\n{solution.content}\n</think>\n\n",
            f"<think>\n{thinking}\n</think>\n\n\\boxed{{",
        ):
            score = task.score(problem, text)
            assert score.reward == 0 and not score.correct


def expressions_of(line: str) -> list[tuple[str, str]]:
    """Each chain of equalities over numbers in a line, and the text that follows it."""
    return [
        (match[0], line[match.end() :])
        for match in re.finditer(r"[-+×÷/()0-9=]+", line)
        if "=" in match[0]
    ]


def is_true(chain: str, after: str) -> bool:
    remainder = re.match(r"(?: r |余)(\d+)", after)
    if remainder:
        over, under, whole = map(int, re.split("[÷=]", chain))
        rest = int(remainder[1])
        return over == under * whole + rest and rest < under
    sides = [evaluate_expression(side) for side in chain.split("=") if side]
    assert None not in sides, chain
    return len({side[0] for side in sides if side is not None}) == 1


@each_case
def test_every_equality_told_is_true_or_taken_back_at_once(
    task: Task, level: int, language: Language
) -> None:
    rng = random.Random(9)
    num_told = num_false = 0
    for problem in problems(task, level, language, 100):
        lines = task.solve(problem, rng).thinking.split("\n")
        for line, next_line in zip(lines, [*lines[1:], ""], strict=True):
            for chain, after in expressions_of(line):
                num_told += 1
                if is_true(chain, after):
                    continue
                num_false += 1
                after = re.sub(r"^(?: r |余)\d+", "", after)
                # An equation's slip is caught by its check, on the next line.
                caught = "Again" in next_line or "重算" in next_line
                assert after.startswith(CORRECTIONS) or caught, (problem.prompt, lines)
    if task.name not in ("sorting", "letter_counting"):
        assert num_told > 100
        assert num_false < 30
        # At level 4 an equation's slip is a wrong fraction, not a wrong equality.
        assert num_false > 0 or (task.name, level) == ("equations", 4)


@each_case
def test_some_solutions_slip_and_put_it_right_and_most_run_straight(
    task: Task, level: int, language: Language
) -> None:
    rng = random.Random(10)
    thoughts = [task.solve(p, rng).thinking for p in problems(task, level, language, 150)]
    words = (*CORRECTIONS, "Again", "重算")
    slips = sum(any(word in thought for word in words) for thought in thoughts)
    checks = sum("Check: " in thought or "检查：" in thought for thought in thoughts)
    assert 3 <= slips <= 30
    assert checks == 150 if task.name == "equations" else 3 <= checks <= 30


@each_case
def test_one_seed_makes_one_problem_and_one_solution(
    task: Task, level: int, language: Language
) -> None:
    made = []
    for _ in range(2):
        rng = random.Random(3)
        problem = task.make(rng, level, language)
        made.append((problem, task.solve(problem, rng)))
    assert made[0] == made[1]


@each_task
def test_language_changes_the_words_and_not_what_is_asked(task: Task) -> None:
    for level in range(1, task.num_levels + 1):
        for seed in range(60):
            english = task.make(random.Random(seed), level, "en")
            chinese = task.make(random.Random(seed), level, "zh")
            assert english.prompt != chinese.prompt or "=" in english.prompt
            assert not re.search("[\u4e00-\u9fff]", english.prompt)
            if task.name == "letter_counting" and not chinese.data["text"].isascii():
                continue  # a Chinese string is asked about in Chinese only
            assert english.data == chinese.data
            assert english.problem_id == chinese.problem_id
            assert english.held_out == chinese.held_out


@each_task
def test_level_one_has_enough_problems_for_a_held_out_eighth(task: Task) -> None:
    keys = {problem.key: problem for problem in problems(task, 1, "en", 1500)}
    assert len(keys) >= 300
    share = sum(problem.held_out for problem in keys.values()) / len(keys)
    assert 0.6 / HELD_OUT_ONE_IN < share < 1.5 / HELD_OUT_ONE_IN
    rng = random.Random(5)
    for held_out in (True, False):
        problem = make_in_split(task, rng, 1, held_out=held_out)
        assert problem.held_out is held_out


def test_the_split_of_a_key_never_moves() -> None:
    # Models were trained on one side of this split: changing it would leak held-out problems.
    problem = Problem("arithmetic", 1, "en", "What is 38+47?", "85", "38+47")
    assert problem.problem_id == "arithmetic-0a2439b630847b7a"
    held_out = [n for n in range(40, 90) if dataclasses.replace(problem, key=f"38+{n}").held_out]
    assert held_out == [61, 69, 79, 84, 85]
    elsewhere = dataclasses.replace(problem, level=3, language="zh", prompt="38+47等于多少？")
    assert elsewhere.problem_id == problem.problem_id


@each_case
def test_what_level_one_says_is_short(task: Task, level: int, language: Language) -> None:
    rng = random.Random(11)
    for problem in problems(task, level, language, 80):
        thinking = task.solve(problem, rng).thinking
        assert len(problem.prompt) <= (90 if level == 1 else 110)
        if level == 1:
            assert all(len(line) <= 90 for line in thinking.split("\n"))
            assert len(thinking) <= 180
        assert len(thinking) <= 600


def test_the_order_of_the_numbers_does_not_make_it_another_problem() -> None:
    for task in (Arithmetic(), GcdLcm(), Countdown(), Sorting()):
        ordered: list[bool] = []
        for problem in problems(task, 1, "en", 60):
            count = 3 if task.name in ("countdown", "sorting") else 2
            in_key = re.findall(r"\d+", problem.key)[:count]
            in_prompt = [n for n in re.findall(r"\d+", problem.prompt) if n in in_key]
            assert in_key == sorted(in_key, key=int), problem
            assert set(in_key) == set(in_prompt), problem
            ordered.append(in_key == in_prompt)
        assert len(set(ordered)) == 2, task.name


# Single families


def test_digits_with_letters_are_converted_both_ways() -> None:
    task = BaseConversion()
    data = {"digits": "2BF", "source": 16, "target": 10}
    problem = Problem("base_conversion", 3, "en", "", "703", "2BF 16 10", data)
    plain = [task.solve(problem, random.Random(seed)).thinking for seed in range(20)]
    assert "2, B=11, 2×16+11=43, F=15, 43×16+15=703" in plain
    back = dataclasses.replace(
        problem, answer="2BF", data={"digits": "703", "source": 10, "target": 16}
    )
    solution = task.solve(back, random.Random(1))
    assert "703÷16=43 r 15 (F), so far F" in solution.thinking
    assert task.score(back, "\\boxed{2bf}").correct


def test_sorted_lists_are_read_in_either_languages_punctuation() -> None:
    task = Sorting()
    problem = next(p for p in problems(task, 1, "zh", 50) if not p.data["falling"])
    numbers = sorted(problem.data["numbers"])
    for separator in (", ", ",", "，", "、"):
        assert task.score(problem, f"\\boxed{{{separator.join(map(str, numbers))}}}").correct
    for separator in (" ", "", "; "):
        assert not task.score(problem, f"\\boxed{{{separator.join(map(str, numbers))}}}").correct


def test_letters_are_counted_in_chinese_strings_too() -> None:
    texts = [problem.data["text"] for problem in problems(LetterCounting(), 1, "zh", 300)]
    assert 60 < sum(not text.isascii() for text in texts) < 180
    assert {p.answer for p in problems(LetterCounting(), 1, "zh", 300)} >= {"0", "1", "2", "3"}


def test_equations_get_fractions_at_the_top_level_only() -> None:
    for level in range(1, 5):
        answers = [problem.answer for problem in problems(Equations(), level, "en", 200)]
        assert all(("/" in answer) == (level == 4) for answer in answers)


# Countdown: many right answers, and text that wants to be evaluated

COUNTDOWN = Problem("countdown", 2, "en", "", "(2+5)×7", "", {"numbers": [7, 2, 5], "target": 49})


@pytest.mark.parametrize(
    "text",
    ["(2+5)×7", "7*(2+5)", "7 * (5 + 2)", "7\\times(2+5)", "-(-5-2)*7"],
)
def test_countdown_takes_any_expression_that_hits_the_target(text: str) -> None:
    assert Countdown().score(COUNTDOWN, f"\\boxed{{{text}}}").correct


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("7×7", "numbers not given"),
        ("7×2+7×5", "numbers not given"),
        ("49", "numbers not given"),
        ("40+9", "numbers not given"),
        ("(2+5)×7+0", "numbers not given"),
        ("(2+5)×7×1", "numbers not given"),
        ("7×5+2", "misses the target"),
        ("2+5", "misses the target"),
        ("(2+5)×7=49", "not an expression"),
        ("7^2", "not an expression"),
        ("7**2", "not an expression"),
        ("25+7×(5-2)", "numbers not given"),
    ],
)
def test_countdown_refuses(text: str, reason: str) -> None:
    score = Countdown().score(COUNTDOWN, f"\\boxed{{{text}}}")
    assert (score.reward, score.reason) == (0.0, reason)


def test_countdown_uses_a_number_given_twice_at_most_twice() -> None:
    problem = dataclasses.replace(COUNTDOWN, data={"numbers": [7, 7, 5], "target": 14})
    assert Countdown().score(problem, "\\boxed{7+7}").correct
    problem = dataclasses.replace(problem, data={"numbers": [7, 7, 5], "target": 21})
    assert Countdown().score(problem, "\\boxed{7+7+7}").reason == "numbers not given"


@pytest.mark.parametrize("level", range(1, 5))
def test_countdown_search_tells_true_moves_and_ends_on_a_hit(level: int) -> None:
    task, rng = Countdown(), random.Random(12)
    num_tries: Counter[int] = Counter()
    for problem in problems(task, level, "en", 120):
        solution = task.solve(problem, rng)
        lines = [line for line in solution.thinking.split("\n") if not line.startswith("Check")]
        assert [line.endswith(", yes") for line in lines] == [False] * (len(lines) - 1) + [True]
        num_tries[sum(f"not {problem.data['target']}" in line for line in lines)] += 1
        # Giving up returns to a table that was there before: the numbers given or a "left".
        tables = {", ".join(map(str, problem.data["numbers"]))}
        for line in lines:
            if line.startswith("back to "):
                assert line.removeprefix("back to ") in tables
            elif "left " in line:
                tables.add(line.partition("left ")[2])
        boxed = final_answer(solution.content)
        assert boxed is not None and not set(boxed) - set("0123456789+-×÷()")
    assert len(num_tries) >= 4 and max(num_tries) <= 10


@each_task
@pytest.mark.parametrize("frame", ["{}", "\\boxed{{{}}}", "<answer>{}</answer>", "<think>{}"])
def test_hostile_text_earns_nothing_for_little_work(task: Task, frame: str) -> None:
    problem = task.make(random.Random(13), task.num_levels, "en")
    for text in HOSTILE:
        num_lines, score = count_lines_run(task, problem, frame.format(text))
        assert score.reward == 0, text[:20]
        assert num_lines < 3000, text[:20]


def count_lines_run(task: Task, problem: Problem, completion: str) -> tuple[int, Score]:
    """Lines of Python that scoring runs (no busy machine can change them), and the score."""
    count = 0

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal count
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        score = task.score(problem, completion)
    finally:
        sys.settrace(before)
    return count, score


def test_the_families_are_registered() -> None:
    for task in TASKS:
        assert task.name in list_tasks()
        assert type(load_task(task.name)) is type(task)
