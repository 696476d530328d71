"""Whether an answer to a homework problem is right: verified, wrong, or not for us to say."""

import itertools
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Final, Literal

from rorqual.server.solver.equations import factorise, solve_equation, solve_system
from rorqual.server.solver.polynomial import NotRead, Polynomial, plain, read_expression
from rorqual.server.solver.reading import Question, read_question

VerdictWord = Literal["verified", "wrong", "unverified"]
_BOXED: Final = re.compile(r"\\boxed\{((?:[^{}]|\{[^{}]*\})*)\}")
_OR: Final = re.compile(r"\bor\b|\band\b|[,;，；、或和]")
_NAMED: Final = re.compile(r"\s*([a-z])(?:_?\d)?\s*=\s*(.+)", re.DOTALL)
_YES: Final = frozenset({"yes", "true", "是", "对", "prime", "质数", "素数", "它是质数", "是质数"})
_NO: Final = frozenset({"no", "false", "不是", "否", "错", "not prime", "合数", "不是质数"})
_LABEL: Final = re.compile(r"^[^\d:=]*:")  # check:
_MAX_STEPS: Final = 40
_WORST_FIRST: Final[tuple[VerdictWord, ...]] = ("wrong", "unverified", "verified")


@dataclass(frozen=True, slots=True)
class Step:
    """One line of the working."""

    text: str
    verdict: VerdictWord


@dataclass(frozen=True, slots=True)
class Verdict:
    """kind: what the problem was read as. expected: the right answer, None if not understood."""

    verdict: VerdictWord
    kind: str
    expected: str | None
    steps: tuple[Step, ...] = ()


def verify(text: str, answer: str) -> Verdict:
    """Checks an answer, and each line of working before it. Never guesses what a story means."""
    try:
        question = read_question(text)
        expected = _expected(question)
    except (NotRead, ValueError):
        return Verdict("unverified", "unknown", None)
    lines = [line.strip() for line in answer.strip().splitlines() if line.strip()]
    if not lines:
        return Verdict("wrong", question.kind, expected)
    boxed = _BOXED.findall(answer)
    last = boxed[-1] if boxed else lines[-1]
    steps = tuple(Step(line[:400], _judge_line(question, line)) for line in lines[:-1][:_MAX_STEPS])
    try:
        right = _is_right(question, plain(last).lower().strip().rstrip(".。"))
    except (NotRead, ValueError):
        return Verdict("unverified", question.kind, expected, steps)
    return Verdict("verified" if right else "wrong", question.kind, expected, steps)


def show(value: Fraction) -> str:
    """A number as one writes it."""
    return str(value.numerator) if value.denominator == 1 else f"{value}"


def _expected(question: Question) -> str:
    """The right answer in words."""
    numbers = question.numbers
    if question.kind == "arithmetic":
        assert question.expression is not None
        return show(question.expression.value)
    if question.kind == "equation":
        (name,) = question.equations[0].variables
        roots = solve_equation(question.equations[0])
        return " or ".join(f"{name} = {show(root)}" for root in roots)
    if question.kind == "system":
        found = solve_system(question.equations)
        return ", ".join(f"{name} = {show(value)}" for name, value in found.items())
    if question.kind == "factors":
        pairs = factorise(numbers[0])
        return " * ".join(f"{p}^{power}" if power > 1 else str(p) for p, power in pairs) or "1"
    if question.kind == "prime":
        return "yes" if _is_prime(numbers[0]) else "no"
    return str(_whole_answer(question))


def _whole_answer(question: Question) -> int:
    numbers = question.numbers
    if question.kind == "gcd":
        return math.gcd(*numbers)
    if question.kind == "lcm":
        return math.lcm(*numbers)
    return numbers[0] % numbers[1]


def _is_right(question: Question, answer: str) -> bool:
    if question.kind == "prime":
        said = answer.strip(" .。!")
        if said not in _YES | _NO:
            raise NotRead
        return (said in _YES) == _is_prime(question.numbers[0])
    if question.kind == "factors":
        return _is_factorisation(answer, question.numbers[0])
    if question.kind == "system":
        return _is_assignment(answer, solve_system(question.equations))
    if question.kind == "equation":
        (name,) = question.equations[0].variables
        values = [_number(part, name) for part in _OR.split(answer) if part.strip()]
        return sorted(set(values)) == solve_equation(question.equations[0])
    # 38+47 = 85: every part must hold, or 86 = 85 would pass.
    said = {_number(part, None) for part in answer.split("=") if part.strip()}
    if question.kind == "arithmetic":
        assert question.expression is not None
        return said == {question.expression.value}
    return said == {_whole_answer(question)}


def _names(equations: Sequence[Polynomial]) -> frozenset[str]:
    return frozenset[str]().union(*(equation.variables for equation in equations))


def _number(text: str, name: str | None) -> Fraction:
    """A number, perhaps behind `x =`."""
    match = _NAMED.fullmatch(text)
    if match is not None and name is not None:
        if match.group(1) != name:
            raise NotRead
        text = match.group(2)
    return read_expression(text).value


def _is_assignment(answer: str, right: Mapping[str, Fraction]) -> bool:
    """Whether all unknowns are right; NotRead if those that are given are, but some are not."""
    found = _read_assignment(answer, sorted(right))
    if found.keys() < right.keys() and all(right[name] == found[name] for name in found):
        raise NotRead  # perhaps only these were asked for
    return found == right


def _read_assignment(answer: str, names: list[str]) -> dict[str, Fraction]:
    """x = 1, y = 2; or (1, 2) in the order of the alphabet."""
    parts = [part for part in _OR.split(answer.strip().strip("()")) if part.strip()]
    found: dict[str, Fraction] = {}
    for place, part in enumerate(parts):
        match = _NAMED.fullmatch(part)
        if match is not None:
            name, value = match.group(1), read_expression(match.group(2)).value
            if found.setdefault(name, value) != value:  # x = 5, x = 3
                raise NotRead
        elif len(parts) == len(names):
            found[names[place]] = read_expression(part).value
        else:
            raise NotRead
    return found


def _is_prime(number: int) -> bool:
    return number > 1 and factorise(number) == [(number, 1)]


def _is_factorisation(answer: str, number: int) -> bool:
    """A product of primes that is the number."""
    product = 1
    for part in answer.rpartition("=")[2].split("*"):
        base, _, power = part.strip().strip("()").partition("^")
        if not base.strip().isdecimal() or (power and not power.strip().isdecimal()):
            raise NotRead
        if len(base) > 13 or len(power) > 3:
            return False
        if not _is_prime(int(base)) and int(base) != 1:
            return False
        product *= int(base) ** int(power or 1)
        if product > number:
            return False
    return product == number


def _judge_line(question: Question, line: str) -> VerdictWord:
    """One line of working: an equality that holds, or an equation with the same solutions."""
    text = _LABEL.sub("", plain(line).lower())
    if "=" not in text:
        return "unverified"
    try:
        parts = text.split("=")  # 2x = 11-3 = 8: each neighbour to its left
        said = {_judge_equality(question, *pair) for pair in itertools.pairwise(parts)}
    except (NotRead, ValueError):
        return "unverified"
    return next(word for word in _WORST_FIRST if word in said)


def _judge_equality(question: Question, left: str, right: str) -> VerdictWord:
    """left = right: a fact, or an equation with the solutions of the problem."""
    found = read_expression(left).plus(read_expression(right), -1)
    if not found.variables:
        return "verified" if not found.value else "wrong"
    if question.kind == "equation" and found.variables == _names(question.equations):
        same = solve_equation(found) == solve_equation(question.equations[0])
        return "verified" if same else "wrong"
    if question.kind == "system" and found.variables <= _names(question.equations):
        return "verified" if not found.at(solve_system(question.equations)) else "wrong"
    return "unverified"
