"""Reverse the digits of a number: a task of one's own, as docs/own-task.md explains it."""

import random
from typing import ClassVar

from rorqual.tasks import Language, Problem, Solution, Task, draw_language


class ReverseDigits(Task):
    """Levels: 3, 5 and 8 digits."""

    name: ClassVar[str] = "reverse_digits"
    num_levels: ClassVar[int] = 3

    def make(self, rng: random.Random, level: int, language: Language | None = None) -> Problem:
        digits = "".join(rng.choices("123456789", k=(3, 5, 8)[level - 1]))
        spoken = draw_language(rng, language)
        prompt = f"Write {digits} backwards." if spoken == "en" else f"把{digits}倒过来写。"
        return Problem(self.name, level, spoken, prompt, answer=digits[::-1], key=digits)

    def solve(self, problem: Problem, rng: random.Random) -> Solution:
        return Solution(" ".join(problem.answer), f"\\boxed{{{problem.answer}}}")
