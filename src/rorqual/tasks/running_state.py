"""Running state: follow a dial through steps of arithmetic modulo ten.

Answering at once needs all steps in one forward pass; written out, each line repeats
what it needs and takes one fact of a small table. It is the family on which thinking pays first.
"""

import random
from typing import ClassVar

from rorqual.tasks.base import Language, Problem, Solution, Task, check_level, draw_language

# No move comes twice in a problem: a small model finds its place by the last move it took.
_FORWARD = tuple(range(1, 10))
_BOTH_WAYS = (*_FORWARD, *(-size for size in _FORWARD))
_SHAPE_BY_LEVEL = ((3, _FORWARD), (5, _FORWARD), (8, _FORWARD), (12, _BOTH_WAYS))
_NAMES = {
    "en": ("Ann", "Ben", "Mia", "Leo", "Zoe", "Max"),
    "zh": ("小明", "小红", "小丽", "小刚", "小美", "小华"),
}
_OPENINGS = {
    "en": (
        "A dial from 0 to 9 shows {start}. Where does it stop after {steps}?",
        "{name} stands at {start} on a ring of places 0 to 9. Which place after {steps}?",
        "Start with {start} and keep the last digit. What is left after {steps}?",
    ),
    "zh": (
        "转盘从0到9，指着{start}。停在几？转动{steps}。",
        "{name}站在0到9的环上{start}号位。到几号位？移动{steps}。",
        "从{start}开始，只留个位，剩几？{steps}。",
    ),
}


class RunningState(Task):
    """Levels: 3, 5 and 8 steps forward, then 12 both ways; the answer is one digit."""

    name: ClassVar[str] = "running_state"
    num_levels: ClassVar[int] = len(_SHAPE_BY_LEVEL)

    def make(self, rng: random.Random, level: int, language: Language | None = None) -> Problem:
        check_level(self, level)
        count, moves_of_level = _SHAPE_BY_LEVEL[level - 1]
        start = rng.randrange(10)
        moves = rng.sample(moves_of_level, count)
        spoken = draw_language(rng, language)
        template = rng.choice(_OPENINGS[spoken])
        steps = " ".join(f"{move:+d}" for move in moves)
        prompt = template.format(start=start, steps=steps, name=rng.choice(_NAMES[spoken]))
        return Problem(
            task=self.name,
            level=level,
            language=spoken,
            prompt=prompt,
            answer=str((start + sum(moves)) % 10),
            key=f"{start} {moves}",
            data={"start": start, "moves": moves},
        )

    def solve(self, problem: Problem, rng: random.Random) -> Solution:
        del rng
        value, steps = int(problem.data["start"]), []
        for move in problem.data["moves"]:
            after = (value + move) % 10
            steps.append(f"{value}{move:+d}={after}")
            value = after
        return Solution(" ".join(steps), f"\\boxed{{{value}}}")
