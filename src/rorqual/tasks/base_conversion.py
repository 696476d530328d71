"""Base conversion: to decimal by Horner's rule, from decimal by repeated division."""

import random
from typing import ClassVar, Literal

from rorqual.tasks.base import Language, Problem, Solution, Task, check_level, draw_language
from rorqual.tasks.slips import CHECK, Manner, draw_manner, draw_slip_index, equation

_DIGITS = "0123456789ABCDEF"
_Way = Literal["read", "write", "both"]
# What each level draws from: reading, writing or both; the bases; the largest value.
_KINDS_BY_LEVEL: tuple[tuple[tuple[_Way, tuple[int, ...], int], ...], ...] = (
    (("read", (2,), 63), ("read", (3, 4, 5, 6, 7, 8, 9), 99)),
    (("read", (2, 3, 5, 8), 255), ("write", (2, 3, 4, 5, 8), 99)),
    (("read", (2, 8, 16), 999), ("write", (2, 3, 8, 16), 499)),
    (("read", (2, 7, 16), 4095), ("write", (2, 7, 16), 2047), ("both", (2, 3, 5, 8, 16), 511)),
)
_BASE_WORDS = dict(
    zip(
        range(2, 17),
        "二 三 四 五 六 七 八 九 十 十一 十二 十三 十四 十五 十六".split(),
        strict=True,
    )
)
_QUESTIONS = {
    "en": (
        "Convert {digits} from base {source} to base {target}.",
        "What is {digits} (base {source}) in base {target}?",
        "{digits} in base {source} is what in base {target}?",
    ),
    "zh": (
        "把{source}进制的{digits}化成{target}进制。",
        "{source}进制数{digits}用{target}进制怎么写？",
        "{source}进制{digits}等于{target}进制的多少？",
    ),
}
_LETTER = {"en": " ({})", "zh": "（{}）"}
_DIVISION = {
    "en": "{quotient} r {rest}, so far {tail}",
    "zh": "{quotient}余{rest}，得{tail}",
}
_COMMA = {"en": ", ", "zh": "，"}


def digits_of(value: int, base: int) -> str:
    """A positive integer written in a base up to 16."""
    text = ""
    while value:
        value, rest = divmod(value, base)
        text = _DIGITS[rest] + text
    return text


class BaseConversion(Task):
    """Levels: to decimal up to 99; both ways; hexadecimal and to 999; from base to base."""

    name: ClassVar[str] = "base_conversion"
    num_levels: ClassVar[int] = len(_KINDS_BY_LEVEL)

    def make(self, rng: random.Random, level: int, language: Language | None = None) -> Problem:
        check_level(self, level)
        way, bases, largest = rng.choice(_KINDS_BY_LEVEL[level - 1])
        base = rng.choice(bases)
        value = rng.randrange(base, largest + 1)  # at least two digits
        source, target = {"read": (base, 10), "write": (10, base)}.get(way, (base, base))
        if way == "both":
            target = rng.choice([other for other in bases if other != source])
        spoken = draw_language(rng, language)
        names = {"en": str, "zh": _BASE_WORDS.__getitem__}[spoken]
        digits = digits_of(value, source)
        prompt = rng.choice(_QUESTIONS[spoken]).format(
            digits=digits, source=names(source), target=names(target)
        )
        return Problem(
            task=self.name,
            level=level,
            language=spoken,
            prompt=prompt,
            answer=digits_of(value, target),
            key=f"{digits} {source} {target}",
            data={"digits": digits, "source": source, "target": target},
        )

    def solve(self, problem: Problem, rng: random.Random) -> Solution:
        language, manner = problem.language, draw_manner(rng)
        digits, source, target = (problem.data[name] for name in ("digits", "source", "target"))
        lines: list[str] = []
        value = int(digits) if source == 10 else 0
        if source != 10:
            told, value = _read(digits, source, manner, language, rng)
            lines.append(told)
        result = str(value)
        if target != 10:
            # With both ways in one solution, only the first part slips.
            second_manner = manner if source == 10 else "plain"
            told, result = _write(value, target, second_manner, language, rng)
            lines += told
        if manner == "check":
            shown, base = (digits, source) if source != 10 else (result, target)
            lines.append(f"{CHECK[language]}{_place_sum(shown, base)}={value}")
        return Solution("\n".join(lines), f"\\boxed{{{result}}}")


def _read(
    digits: str, base: int, manner: Manner, language: Language, rng: random.Random
) -> tuple[str, int]:
    """Horner's rule, one multiplication and one addition a digit."""
    slip_index = draw_slip_index(manner, len(digits) - 1, rng)
    value = int(digits[0], 16)
    steps = [_named(digits[0])]
    for index, digit in enumerate(digits[1:]):
        if digit.isalpha():
            steps.append(_named(digit))
        before, value = value, value * base + int(digit, 16)
        steps.append(
            equation(
                f"{before}×{base}+{int(digit, 16)}",
                value,
                slips=index == slip_index,
                language=language,
                rng=rng,
            )
        )
    return _COMMA[language].join(steps), value


def _named(digit: str) -> str:
    return f"{digit}={int(digit, 16)}" if digit.isalpha() else digit


def _write(
    value: int, base: int, manner: Manner, language: Language, rng: random.Random
) -> tuple[list[str], str]:
    """Repeated division; each line ends with the digits so far, so none are turned round."""
    num_steps = len(digits_of(value, base))
    slip_index = draw_slip_index(manner, num_steps, rng)
    lines: list[str] = []
    tail = ""
    for index in range(num_steps):
        whole, rest = divmod(value, base)
        tail = _DIGITS[rest] + tail
        letter = _LETTER[language].format(_DIGITS[rest]) if rest > 9 else ""
        quotient = equation(
            f"{value}÷{base}", whole, slips=index == slip_index, language=language, rng=rng
        )
        lines.append(
            _DIVISION[language].format(quotient=quotient, rest=f"{rest}{letter}", tail=tail)
        )
        value = whole
    return lines, tail


def _place_sum(digits: str, base: int) -> str:
    """The digits times their places, zeros left out: 8+2+1 for binary 1011."""
    terms: list[str] = []
    for power, digit in zip(range(len(digits) - 1, -1, -1), digits, strict=True):
        count, place = int(digit, 16), base**power
        if count:
            terms.append(str(place) if count == 1 else f"{count}×{place}" if power else str(count))
    return "+".join(terms)
