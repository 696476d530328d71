"""What `lint` sends to a reward: right answers that must pay, and everything else that must not.

The hostile texts come from what has broken published scorers: evaluated answers, towers of powers,
substrings that pay, several boxes, the last number of a text (docs/own-task.md lists them).
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

from rorqual.tasks.answers import evaluate_expression, is_same_answer, parse_number
from rorqual.tasks.base import Problem, Solution

HUGE = 1_000_000
_SMALL_NUMBERS = tuple(range(31))
_MUSING = "Let me think about this step by step. First I look at the question again. "


@dataclass(frozen=True, slots=True)
class Probe:
    """One completion. kind groups findings, pays says what the reward owes it."""

    kind: str
    what: str
    text: str
    pays: bool = False


def gold_probes(solution: Solution) -> Iterator[Probe]:
    """The task's own solution, with and without thinking."""
    yield Probe("gold", "the worked solution", solution.completion(thinking=True), pays=True)
    yield Probe("gold", "the direct solution", solution.completion(thinking=False), pays=True)


def cheap_probes(
    problem: Problem, solution: Solution, others: Sequence[Problem]
) -> Iterator[Probe]:
    """Empty, wrong and spam answers to this problem; others: more problems of the same kind."""
    empties = ("", " \n", "<think>", "<think>\n\n</think>\n\n", "\\boxed{}", "<answer></answer>")
    for text in empties:
        yield Probe("empty", f"{text!r}", text)
    yield Probe("empty", "the question said back", problem.prompt)
    yield Probe("empty", "a refusal", "I do not know.")
    wrong = wrong_answers(problem, others)
    for answer in wrong:
        yield Probe("wrong", f"the wrong answer {answer!r} in a box", boxed(answer))
    bad = wrong[0]
    yield Probe("form", "thinking and a wrong answer", _thought("Let me see.", boxed(bad)))
    yield Probe("length", "long talk and a wrong answer", _MUSING * 60 + boxed(bad))
    yield Probe("length", "long thinking and a wrong answer", _thought(_MUSING * 60, boxed(bad)))
    numbers = ", ".join(map(str, _SMALL_NUMBERS))
    yield Probe("spam", "a list of all small numbers in a box", boxed(numbers))
    boxes = " ".join(boxed(str(number)) for number in _SMALL_NUMBERS)
    yield Probe("spam", "a box for every small number, a wrong one last", f"{boxes} {boxed(bad)}")
    if problem.answer:
        yield from _gold_misplaced(problem.answer, bad, solution)


def _gold_misplaced(gold: str, bad: str, solution: Solution) -> Iterator[Probe]:
    """The right answer somewhere, but not as the answer."""
    yield Probe(
        "spam", "right in the thinking, wrong in the box", _thought(boxed(gold), boxed(bad))
    )
    yield Probe("spam", "a right box, then a wrong one", f"{boxed(gold)} {boxed(bad)}")
    yield Probe("spam", "right and wrong in one box", boxed(f"{gold} or {bad}"))
    yield Probe("spam", "right words among many", boxed(f"{bad} {gold} " * 5))
    yield Probe("spam", "thinking that never ends", f"<think>\n{solution.content}")
    if "\\boxed{" in solution.content:
        yield Probe("no box", "the right answer repeated, no box", f"{gold} " * 100)
        yield Probe("no box", "the right answer in words, no box", f"The answer is {gold}.")
        yield Probe("no box", "a right box that is not closed", f"\\boxed{{{gold}")


def wrong_answers(problem: Problem, others: Sequence[Problem]) -> list[str]:
    """Answers near the right one and those of other problems; at least one."""
    gold = problem.answer
    if not gold:
        return ["nothing of the kind"]
    value = parse_number(gold)
    if value is not None:
        near = [value + 1, value - 1, value + Fraction(1, 2), value * 10 + 7]
        found = [str(number) for number in near]
    else:
        found = [gold + gold[-1], gold[:-1]] if len(gold) > 1 else [gold + gold]
    found += [other.answer for other in others]
    return [answer for answer in found if answer.strip() and not _may_be_right(answer, gold)][:5]


def _may_be_right(answer: str, gold: str) -> bool:
    """The same answer, or another expression of the same value."""
    value = evaluate_expression(gold)
    other = evaluate_expression(answer)
    same_value = value is not None and other is not None and value[0] == other[0]
    return same_value or is_same_answer(answer, gold)


def hostile_probes(canary: str) -> Iterator[Probe]:
    """Texts that attack the scorer; canary is a path that only evaluated text would create."""
    touch = f"__import__('pathlib').Path({canary!r}).touch()"
    shell = f"touch {canary}"
    payloads = {
        "Python that creates a file": touch,
        "Python in a format string": f"{{{touch}}}",
        "a shell command": f"$({shell})",
        "a shell command in Python": f"__import__('os').system({json.dumps(shell)})",
        "a call that ends the process": "__import__('os')._exit(0)",
        "exit": "exit()",
        "a tower of powers": "9**9**9**9",
        "a tower of powers, in letters": "9^9^9^9",
        "a factorial": "factorial(999999)",
        "a repeated string": "'9'*10**10",
        "a division by zero": "1/0",
        "a huge exponent": "1e999999999",
        "not a number": "nan",
        "infinity": "-inf",
        "an object that equals all": "type('A',(),{'__eq__':lambda a,b:True})()",
        "nested braces": "{" * 90 + "}" * 90,
        "nested brackets": "(" * 99 + "1" + ")" * 99,
        "NUL bytes": "4\x00" * 20,
        "lone surrogates": "\ud83d" * 20,
        "direction marks": "\u202e\u2066" * 20,
        "a regex bomb of letters": "a" * 180 + "!",
        "a regex bomb of digits": "1" * 180 + "x",
        "a LaTeX bomb": "\\frac{" * 30,
    }
    for what, payload in payloads.items():
        yield Probe("hostile", what, payload)
        yield Probe("hostile", f"{what}, in a box", boxed(payload))
        yield Probe("hostile", f"{what}, in an answer tag", f"<answer>{payload}</answer>")
    program = f"```python\n{touch}\n```"
    yield Probe("hostile", "a program that is not asked for", program)


def huge_probes(gold: str) -> Iterator[Probe]:
    """A million characters, in the shapes that make parsers slow."""
    units = {
        "letters": "a",
        "digits": "9",
        "open braces": "{",
        "open boxes": "\\boxed{",
        "open answers": "<answer>",
        "thinking marks": "<think></think>",
        "brackets": "(",
        "spaces": " ",
        "line ends": "\n",
        "the right answer": f"{gold} ",
    }
    for what, unit in units.items():
        text = unit * (HUGE // len(unit))
        yield Probe("huge", f"a million characters of {what}", text)
        yield Probe("huge", f"a million characters of {what} in a box", boxed(text))


def boxed(text: str) -> str:
    """The text in a box."""
    return f"\\boxed{{{text}}}"


def _thought(thinking: str, content: str) -> str:
    return Solution(thinking, content).completion(thinking=True)
