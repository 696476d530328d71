"""Column arithmetic: addition, subtraction, multiplication by one digit, carries written out.

Each line does one column, from the ones up, and ends with the result so far: the next line only
puts a digit in front of it, so that nothing has to be turned round in one go at the end.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from typing import ClassVar

from rorqual.tasks.base import Language, Problem, Solution, Task, check_level, draw_language
from rorqual.tasks.slips import CHECK, draw_manner, draw_slip_index, equation

# What each level draws from: operator, digits of the left and of the right number.
_KINDS_BY_LEVEL = (
    (("+", 2, 2),),
    (("+", 3, 2), ("+", 3, 3), ("-", 2, 2), ("-", 3, 2)),
    (("+", 4, 4), ("-", 3, 3), ("-", 4, 3), ("×", 2, 1)),
    (("+", 6, 5), ("-", 5, 5), ("-", 6, 4), ("×", 3, 1), ("×", 4, 1)),
)
_PLACES = {
    "en": ("Ones", "Tens", "Hundreds", "Thousands", "Ten thousands", "Hundred thousands"),
    "zh": ("个位", "十位", "百位", "千位", "万位", "十万位"),
}
_QUESTIONS = {
    "en": ("What is {left}{sign}{right}?", "Compute {left}{sign}{right}.", "{left}{sign}{right}=?"),
    "zh": ("{left}{sign}{right}等于多少？", "计算{left}{sign}{right}。", "{left}{sign}{right}=？"),
}
# A column's line: borrow and carry are "" where there is none.
_LINES = {
    "en": "{place}: {borrow}{sum}{carry}, so far {tail}{trimmed}",
    "zh": "{place}：{borrow}{sum}{carry}，得{tail}{trimmed}",
}
_BORROW = {"en": "borrow 1, ", "zh": "借1，"}
_CARRY = {"en": ", carry {}", "zh": "，进{}"}
_TRIMMED = {"en": ", that is {}", "zh": "，即{}"}


@dataclass(frozen=True, slots=True)
class _Column:
    """One column: what is worked out, its value, the digits it leaves and what goes on."""

    expression: str
    value: int
    digits: str
    carry: int = 0
    borrows: bool = False


class Arithmetic(Task):
    """Levels: two-digit sums; three digits and differences; four and ×; up to six digits."""

    name: ClassVar[str] = "arithmetic"
    num_levels: ClassVar[int] = len(_KINDS_BY_LEVEL)

    def make(self, rng: random.Random, level: int, language: Language | None = None) -> Problem:
        check_level(self, level)
        sign, left_digits, right_digits = rng.choice(_KINDS_BY_LEVEL[level - 1])
        left = _draw_number(left_digits, rng)
        right = rng.randrange(2, 10) if sign == "×" else _draw_number(right_digits, rng)
        if sign == "-" and left < right:
            left, right = right, left
        spoken = draw_language(rng, language)
        # 38+47 asks the same as 47+38: both stay on one side of the split.
        first, second = sorted((left, right)) if sign == "+" else (left, right)
        return Problem(
            task=self.name,
            level=level,
            language=spoken,
            prompt=rng.choice(_QUESTIONS[spoken]).format(left=left, sign=sign, right=right),
            answer=str({"+": left + right, "-": left - right, "×": left * right}[sign]),
            key=f"{first}{sign}{second}",
            data={"left": left, "sign": sign, "right": right},
        )

    def solve(self, problem: Problem, rng: random.Random) -> Solution:
        left, sign, right = (problem.data[name] for name in ("left", "sign", "right"))
        language, manner = problem.language, draw_manner(rng)
        columns = list(_COLUMNS[sign](left, right))
        slip_index = draw_slip_index(manner, len(columns), rng)
        lines: list[str] = []
        tail = ""
        for index, column in enumerate(columns):
            slips = index == slip_index
            tail = column.digits + tail
            zeros = index == len(columns) - 1 and len(tail) > 1 and tail.startswith("0")
            lines.append(
                _LINES[language].format(
                    place=_PLACES[language][index],
                    borrow=_BORROW[language] if column.borrows else "",
                    sum=equation(
                        column.expression, column.value, slips=slips, language=language, rng=rng
                    ),
                    carry=_CARRY[language].format(column.carry) if column.carry else "",
                    tail=tail,
                    trimmed=_TRIMMED[language].format(int(tail)) if zeros else "",
                )
            )
        result = int(tail)
        if manner == "check":
            lines.append(CHECK[language] + _checked(left, sign, right, result))
        return Solution("\n".join(lines), f"\\boxed{{{result}}}")


def _draw_number(num_digits: int, rng: random.Random) -> int:
    return rng.randrange(10 ** (num_digits - 1), 10**num_digits)


def _digit_pairs(left: int, right: int) -> Iterator[tuple[str, str | None, bool]]:
    """(digit of left, digit of right or None, is the last column), ones first.

    left has at least as many digits as right.
    """
    pairs = list(zip_longest(reversed(str(left)), reversed(str(right))))
    for index, (upper, lower) in enumerate(pairs):
        yield upper, lower, index == len(pairs) - 1


def _add_columns(left: int, right: int) -> Iterator[_Column]:
    carry = 0
    for upper, lower, last in _digit_pairs(left, right):
        terms = [upper, *([lower] if lower else []), *(["1"] if carry else [])]
        value = sum(map(int, terms))
        if last:
            yield _Column("+".join(terms), value, str(value))
            return
        carry = value // 10
        yield _Column("+".join(terms), value, str(value % 10), carry)


def _subtract_columns(left: int, right: int) -> Iterator[_Column]:
    owed = 0
    for upper, lower, _ in _digit_pairs(left, right):
        borrows = int(upper) - owed < int(lower or 0)
        top = int(upper) + 10 * borrows
        terms = [str(top), *(["1"] if owed else []), *([lower] if lower else [])]
        value = top - owed - int(lower or 0)
        owed = int(borrows)
        yield _Column("-".join(terms), value, str(value), borrows=borrows)


def _multiply_columns(left: int, digit: int) -> Iterator[_Column]:
    carry, upper_digits = 0, str(left)[::-1]
    for index, upper in enumerate(upper_digits):
        value = int(upper) * digit + carry
        expression = f"{upper}×{digit}" + (f"+{carry}" if carry else "")
        if index == len(upper_digits) - 1:
            yield _Column(expression, value, str(value))
            return
        carry = value // 10
        yield _Column(expression, value, str(value % 10), carry)


_COLUMNS = {"+": _add_columns, "-": _subtract_columns, "×": _multiply_columns}


def _checked(left: int, sign: str, right: int, result: int) -> str:
    """The inverse operation, back to the left number."""
    if sign == "+":
        return f"{result}-{right}={result - right}"
    if sign == "-":
        return f"{result}+{right}={result + right}"
    return f"{result}÷{right}={result // right}"
