"""Chain sums: several numbers added and taken away in turn, with the running total written out."""

import random
from typing import ClassVar

from rorqual.tasks.base import Language, Problem, Solution, Task, check_level, draw_language
from rorqual.tasks.slips import CHECK, draw_manner, draw_slip_index, equation

# Numbers in the chain, the largest of them, and whether some are taken away.
_SHAPE_BY_LEVEL = ((3, 19, False), (4, 30, True), (5, 99, True), (7, 300, True))
_QUESTIONS = {
    "en": (
        "What is {chain}?",
        "Compute {chain}.",
        "{chain}=?",
        "Work out {chain} from left to right.",
    ),
    "zh": ("{chain}等于多少？", "计算{chain}。", "{chain}=？", "从左到右算：{chain}"),
}
_SEPARATOR = {"en": ", ", "zh": "，"}


class ChainSum(Task):
    """Levels: 3, 4, 5 and 7 numbers, growing; the running total never falls below zero."""

    name: ClassVar[str] = "chain_sum"
    num_levels: ClassVar[int] = len(_SHAPE_BY_LEVEL)

    def make(self, rng: random.Random, level: int, language: Language | None = None) -> Problem:
        check_level(self, level)
        count, largest, takes_away = _SHAPE_BY_LEVEL[level - 1]
        moves = [rng.randrange(1, largest + 1)]
        total = moves[0]
        while len(moves) < count:
            move = rng.randrange(1, largest + 1)
            if takes_away and move <= total and rng.random() < 0.5:
                move = -move
            moves.append(move)
            total += move
        chain = f"{moves[0]}" + "".join(f"{move:+d}" for move in moves[1:])
        spoken = draw_language(rng, language)
        return Problem(
            task=self.name,
            level=level,
            language=spoken,
            prompt=rng.choice(_QUESTIONS[spoken]).format(chain=chain),
            answer=str(total),
            key=chain,
            data={"moves": moves},
        )

    def solve(self, problem: Problem, rng: random.Random) -> Solution:
        first, *moves = problem.data["moves"]
        language, manner = problem.language, draw_manner(rng)
        slip_index = draw_slip_index(manner, len(moves), rng)
        steps: list[str] = []
        total = before = int(first)
        for index, move in enumerate(moves):
            before, total = total, total + move
            slips = index == slip_index
            steps.append(
                equation(f"{before}{move:+d}", total, slips=slips, language=language, rng=rng)
            )
        thinking = _SEPARATOR[language].join(steps)
        if manner == "check":
            thinking += f"\n{CHECK[language]}{total}{-moves[-1]:+d}={before}"
        return Solution(thinking, f"\\boxed{{{total}}}")
