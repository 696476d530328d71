"""Greatest common divisor by Euclid's steps, and the least common multiple from it."""

import math
import random
from typing import ClassVar

from rorqual.tasks.base import Language, Problem, Solution, Task, check_level, draw_language
from rorqual.tasks.slips import (
    CHECK,
    corrected,
    draw_manner,
    draw_slip_index,
    near_value,
)

# What each level draws from: what is asked, the largest common factor and the largest cofactor.
_KINDS_BY_LEVEL = (
    (("gcd", 12, 9),),
    (("gcd", 15, 12), ("lcm", 6, 5)),
    (("gcd", 30, 20), ("lcm", 9, 9)),
    (("gcd", 60, 40), ("lcm", 15, 15)),
)
_QUESTIONS = {
    ("en", "gcd"): (
        "What is the greatest common divisor of {first} and {second}?",
        "Find the gcd of {first} and {second}.",
        "gcd({first}, {second})=?",
    ),
    ("zh", "gcd"): (
        "{first}和{second}的最大公约数是多少？",
        "求{first}与{second}的最大公约数。",
    ),
    ("en", "lcm"): (
        "What is the least common multiple of {first} and {second}?",
        "Find the lcm of {first} and {second}.",
        "lcm({first}, {second})=?",
    ),
    ("zh", "lcm"): (
        "{first}和{second}的最小公倍数是多少？",
        "求{first}与{second}的最小公倍数。",
    ),
}
_REMAINDER = {"en": " r ", "zh": "余"}
_COMMA = {"en": ", ", "zh": "，"}
_DIVISOR_IS = {"en": "gcd {}", "zh": "最大公约数是{}"}


class GcdLcm(Task):
    """Levels: gcd up to 108; up to 180, small lcm; up to 600; up to 2400, lcm of up to 225."""

    name: ClassVar[str] = "gcd_lcm"
    num_levels: ClassVar[int] = len(_KINDS_BY_LEVEL)

    def make(self, rng: random.Random, level: int, language: Language | None = None) -> Problem:
        check_level(self, level)
        kind, most_common, most_cofactor = rng.choice(_KINDS_BY_LEVEL[level - 1])
        common = rng.randrange(1, most_common + 1)
        first, second = (common * n for n in rng.sample(range(1, most_cofactor + 1), 2))
        spoken = draw_language(rng, language)
        answer = math.gcd(first, second) if kind == "gcd" else math.lcm(first, second)
        return Problem(
            task=self.name,
            level=level,
            language=spoken,
            prompt=rng.choice(_QUESTIONS[spoken, kind]).format(first=first, second=second),
            answer=str(answer),
            key=f"{kind} {min(first, second)} {max(first, second)}",
            data={"kind": kind, "first": first, "second": second},
        )

    def solve(self, problem: Problem, rng: random.Random) -> Solution:
        language, manner = problem.language, draw_manner(rng)
        comma = _COMMA[language]
        large, small = sorted((problem.data["first"], problem.data["second"]), reverse=True)
        divisions: list[tuple[int, int]] = []
        over, under = large, small
        while under:
            divisions.append((over, under))
            over, under = under, over % under
        divisor = over
        slip_index = draw_slip_index(manner, len(divisions), rng)
        steps: list[str] = []
        for index, (over, under) in enumerate(divisions):
            before, rest = f"{over}÷{under}={over // under}{_REMAINDER[language]}", over % under
            if index == slip_index:
                steps.append(corrected(before, near_value(rest, rng), rest, language, rng))
            else:
                steps.append(f"{before}{rest}")
        lines = [comma.join([*steps, _DIVISOR_IS[language].format(divisor)])]
        result = divisor
        if problem.data["kind"] == "lcm":
            result = large // divisor * small
            cofactor = large // divisor
            lines.append(f"{large}÷{divisor}={cofactor}{comma}{cofactor}×{small}={result}")
        if manner == "check":
            lines.append(CHECK[language] + _checked(large, small, result, comma))
        return Solution("\n".join(lines), f"\\boxed{{{result}}}")


def _checked(large: int, small: int, result: int, comma: str) -> str:
    """The result divides both numbers, or both divide it."""
    if result <= small:
        return f"{large}={result}×{large // result}{comma}{small}={result}×{small // result}"
    return f"{result}={large}×{result // large}{comma}{result}={small}×{result // small}"
