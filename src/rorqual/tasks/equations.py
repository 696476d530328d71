"""Linear equations with one unknown: ax+b=c, then ax+b=cx+d, solved in steps and checked.

The check by substitution is always told: it is the part of the trace that catches a slip, and a
slip here is only noticed because the check fails.
"""

import random
from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar

from rorqual.tasks.base import Language, Problem, Solution, Task, check_level, draw_language
from rorqual.tasks.slips import CHECK, draw_manner, near_value

_NUM_LEVELS = 4
_LARGEST_DENOMINATOR = 12
_QUESTIONS = {
    "en": (
        "Solve {equation}.",
        "Solve {equation} for {letter}.",
        "If {equation}, what is {letter}?",
    ),
    "zh": ("解方程{equation}。", "已知{equation}，求{letter}。", "{equation}，{letter}等于多少？"),
}
_LETTERS = ("x", "x", "y", "n")
_COMMA = {"en": ", ", "zh": "，"}
_FAILS = {"en": ", not {}. Again:", "zh": "，不是{}，重算："}
_DIFFERS = {"en": ", not equal. Again:", "zh": "，不相等，重算："}


@dataclass(frozen=True, slots=True)
class _Equation:
    """a·x + b = c·x + d with a solution."""

    a: int
    b: int
    c: int
    d: int

    @property
    def solution(self) -> Fraction:
        return Fraction(self.d - self.b, self.a - self.c)

    def written(self, letter: str) -> str:
        return f"{_linear(self.a, self.b, letter)}={_linear(self.c, self.d, letter)}"


class Equations(Task):
    """Levels: small ax+b=c; with signs; ax+b=cx+d; fractions as solutions."""

    name: ClassVar[str] = "equations"
    num_levels: ClassVar[int] = _NUM_LEVELS

    def make(self, rng: random.Random, level: int, language: Language | None = None) -> Problem:
        check_level(self, level)
        equation = _draw_equation(level, rng)
        letter = rng.choice(_LETTERS)
        spoken = draw_language(rng, language)
        prompt = rng.choice(_QUESTIONS[spoken]).format(
            equation=equation.written(letter), letter=letter
        )
        coefficients = [equation.a, equation.b, equation.c, equation.d]
        return Problem(
            task=self.name,
            level=level,
            language=spoken,
            prompt=prompt,
            answer=str(equation.solution),
            key=" ".join(map(str, coefficients)),
            data={"coefficients": coefficients, "letter": letter},
        )

    def solve(self, problem: Problem, rng: random.Random) -> Solution:
        language, letter = problem.language, problem.data["letter"]
        equation = _Equation(*problem.data["coefficients"])
        solution = equation.solution
        factor, rest = equation.a - equation.c, equation.d - equation.b
        moved = f"{equation.d}{-equation.b:+d}"
        if equation.c:
            gathered = f"{_linear(equation.a, 0, letter)}{_linear(-equation.c, 0, letter, True)}"
            lines = [f"{gathered}={moved}{_COMMA[language]}{_linear(factor, 0, letter)}={rest}"]
        else:
            lines = [f"{_linear(factor, 0, letter)}={moved}={rest}"]
        if draw_manner(rng) == "slip":
            told, bad = _slipped(rest, factor, letter, rng)
            lines += [told, CHECK[language] + _substituted(equation, bad, language)]
        lines.append(_divided(rest, factor, letter, solution))
        lines.append(CHECK[language] + _substituted(equation, solution, language))
        return Solution("\n".join(lines), f"\\boxed{{{solution}}}")


def _draw_equation(level: int, rng: random.Random) -> _Equation:
    if level == 1:
        a, b, x = rng.randrange(2, 10), rng.randrange(1, 21), rng.randrange(1, 10)
        return _Equation(a, b, 0, a * x + b)
    if level == 2:
        a, b, x = _signed(2, 9, rng), _signed(1, 30, rng), _signed(1, 12, rng)
        return _Equation(a, b, 0, a * x + b)
    while True:
        a, b, c = rng.randrange(2, 13), _signed(1, 30, rng), rng.randrange(2, 13)
        if level == 3:
            d = (a - c) * _signed(1, 12, rng) + b
        else:
            c = rng.choice((0, c))
            d = _signed(1, 30, rng)
        if abs(a - c) < 2:  # the last step divides
            continue
        equation = _Equation(a, b, c, d)
        if level == 3 or 1 < equation.solution.denominator <= _LARGEST_DENOMINATOR:
            return equation


def _signed(low: int, high: int, rng: random.Random) -> int:
    return rng.choice((-1, 1)) * rng.randrange(low, high + 1)


def _linear(factor: int, constant: int, letter: str, signed: bool = False) -> str:
    """3x+5, -x, x-2 or 7; with a leading sign if it goes on after something."""
    if factor == 0:
        return str(constant)
    number = {1: "+", -1: "-"}.get(factor, f"{factor:+d}")
    text = f"{number}{letter}" + (f"{constant:+d}" if constant else "")
    return text if signed else text.removeprefix("+")


def _bracketed(value: Fraction) -> str:
    return str(value) if value.denominator == 1 and value >= 0 else f"({value})"


def _slipped(rest: int, factor: int, letter: str, rng: random.Random) -> tuple[str, Fraction]:
    """The last step gone wrong: a whole result one off, a fraction upside down."""
    if rest % factor == 0:
        bad = Fraction(near_value(rest // factor, rng))
        return _divided(rest, factor, letter, bad), bad
    bad = Fraction(factor, rest)
    return f"{letter}={bad}", bad


def _divided(rest: int, factor: int, letter: str, result: Fraction) -> str:
    """The last step: a division where it comes out whole, else a fraction to reduce."""
    below = str(factor) if factor > 0 else f"({factor})"
    if rest % factor == 0:
        return f"{letter}={rest}÷{below}={result}"
    shown = f"{rest}/{below}"
    return f"{letter}={shown}" if shown == str(result) else f"{letter}={shown}={result}"


def _substituted(equation: _Equation, value: Fraction, language: Language) -> str:
    """Both sides with the value put in, and the verdict if they differ."""
    left = equation.a * value + equation.b
    told = f"{equation.a}×{_bracketed(value)}{equation.b:+d}={left}"
    if equation.c == 0:
        return told if left == equation.d else told + _FAILS[language].format(equation.d)
    right = equation.c * value + equation.d
    constant = f"{equation.d:+d}" if equation.d else ""
    told += f"{_COMMA[language]}{equation.c}×{_bracketed(value)}{constant}={right}"
    return told if left == right else told + _DIFFERS[language]
