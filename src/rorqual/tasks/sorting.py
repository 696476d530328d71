"""Sorting: put a few numbers in order by taking the smallest (or largest) of what is left."""

import random
from typing import ClassVar

from rorqual.tasks.base import Language, Problem, Solution, Task, check_level, draw_language
from rorqual.tasks.slips import CHECK, corrected, draw_manner, draw_slip_index

# How many numbers, and the largest of them.
_SHAPE_BY_LEVEL = (((3,), 99), ((4, 5), 99), ((5, 6), 499), ((7, 8), 999))
_QUESTIONS = {
    ("en", False): ("Sort {numbers} from smallest to largest.", "Put in rising order: {numbers}."),
    ("en", True): ("Sort {numbers} from largest to smallest.", "Put in falling order: {numbers}."),
    ("zh", False): ("把{numbers}从小到大排列。", "从小到大排序：{numbers}。"),
    ("zh", True): ("把{numbers}从大到小排列。", "从大到小排序：{numbers}。"),
}
_TAKEN = {
    ("en", False): "smallest {}",
    ("en", True): "largest {}",
    ("zh", False): "最小{}",
    ("zh", True): "最大{}",
}
_COMMA, _COLON = {"en": ", ", "zh": "，"}, {"en": ": ", "zh": "："}


class Sorting(Task):
    """Levels: 3 numbers below 100; 4 or 5; 5 or 6 below 500; 7 or 8 below 1000."""

    name: ClassVar[str] = "sorting"
    num_levels: ClassVar[int] = len(_SHAPE_BY_LEVEL)

    def make(self, rng: random.Random, level: int, language: Language | None = None) -> Problem:
        check_level(self, level)
        counts, largest = _SHAPE_BY_LEVEL[level - 1]
        numbers = rng.sample(range(1, largest + 1), rng.choice(counts))
        falling = rng.random() < 0.5
        spoken = draw_language(rng, language)
        listed = _COMMA[spoken].join(map(str, numbers))
        answer = sorted(numbers, reverse=falling)
        return Problem(
            task=self.name,
            level=level,
            language=spoken,
            prompt=rng.choice(_QUESTIONS[spoken, falling]).format(numbers=listed),
            answer=", ".join(map(str, answer)),
            key=f"{'falling' if falling else 'rising'} {sorted(numbers)}",
            data={"numbers": numbers, "falling": falling},
        )

    def solve(self, problem: Problem, rng: random.Random) -> Solution:
        language, manner = problem.language, draw_manner(rng)
        falling: bool = problem.data["falling"]
        sign = ">" if falling else "<"
        left: list[int] = list(problem.data["numbers"])
        slip_index = draw_slip_index(manner, len(left) - 1, rng)
        ordered: list[int] = []
        lines: list[str] = []
        while len(left) > 1:
            best = max(left) if falling else min(left)
            told = _TAKEN[language, falling].format(best)
            if len(ordered) == slip_index:
                other = rng.choice([number for number in left if number != best])
                bad = _TAKEN[language, falling].format(other)
                good = f"{best}{sign}{other}{_COMMA[language]}{told}"
                told = corrected("", bad, good, language, rng)
            lines.append(_COMMA[language].join(map(str, left)) + _COLON[language] + told)
            ordered.append(best)
            left.remove(best)
        ordered += left
        if manner == "check":
            lines.append(CHECK[language] + sign.join(map(str, ordered)))
        return Solution("\n".join(lines), f"\\boxed{{{', '.join(map(str, ordered))}}}")
