"""Honest slips and checks in worked solutions.

Most solutions run straight through. A few write one wrong value, notice it and put it right, or
check the end: traces hold the habit of looking twice, which reinforcement learning can strengthen
and cannot invent (arXiv 2503.01307). What stands after a slip is always right.
"""

import random
from typing import Literal

from rorqual.tasks.base import Language

Manner = Literal["plain", "slip", "check"]

_ONE_IN = 6
_CORRECTIONS = {
    "en": ("{before}{bad}, wait, {before}{good}", "{before}{bad}, no, {before}{good}"),
    "zh": ("{before}{bad}，等一下，{before}{good}", "{before}{bad}，不对，{before}{good}"),
}
CHECK = {"en": "Check: ", "zh": "检查："}


def draw_manner(rng: random.Random) -> Manner:
    """How this solution is told: one in six slips once or checks its result."""
    if rng.randrange(_ONE_IN):
        return "plain"
    return rng.choice(("slip", "check"))


def draw_slip_index(manner: Manner, num_steps: int, rng: random.Random) -> int | None:
    """The step that slips, None where none does."""
    return rng.randrange(num_steps) if manner == "slip" and num_steps else None


def near_value(value: int, rng: random.Random) -> int:
    """A wrong value one beside the right one, negative only beside a negative one."""
    change = rng.choice((-1, 1))
    return value - change if value >= 0 > value + change else value + change


def corrected(
    before: str, bad: object, good: object, language: Language, rng: random.Random
) -> str:
    """`before` with the wrong value, the moment of doubt, `before` with the right value."""
    return rng.choice(_CORRECTIONS[language]).format(before=before, bad=bad, good=good)


def equation(
    expression: str, value: int, *, slips: bool, language: Language, rng: random.Random
) -> str:
    """`expression=value`, after a corrected slip if it slips."""
    if not slips:
        return f"{expression}={value}"
    return corrected(f"{expression}=", near_value(value, rng), value, language, rng)
