"""Grade-school word problems, generated: whole numbers, one to four steps, two languages.

The stories are data in `word_stories`; this file draws the numbers, tells the story and works it
out one named step at a time. Names and things are wording: a problem is its story and its numbers.
"""

import random
from collections.abc import Iterator
from typing import ClassVar

from rorqual.tasks.base import Language, Problem, Solution, Task, check_level, draw_language
from rorqual.tasks.slips import CHECK, draw_manner, draw_slip_index, equation
from rorqual.tasks.word_stories import PEOPLE, STORIES, STORIES_BY_LEVEL, THINGS, Story

_LARGEST = 5000
_INVERSE = {"+": "-", "-": "+", "*": "/", "/": "*"}
_LABELLED = {"en": "{label}: {step}", "zh": "{label}：{step}"}


class WordProblems(Task):
    """Levels: one + or -; one * or / or two steps; two mixed steps; three to four steps."""

    name: ClassVar[str] = "word_problems"
    num_levels: ClassVar[int] = len(STORIES_BY_LEVEL)

    def make(self, rng: random.Random, level: int, language: Language | None = None) -> Problem:
        check_level(self, level)
        story = rng.choice(STORIES_BY_LEVEL[level - 1])
        values = _draw_values(story, rng)
        people = rng.sample(range(len(PEOPLE["en"])), 3)
        thing = rng.randrange(len(THINGS))
        spoken = draw_language(rng, language)
        template = rng.choice(story.en if spoken == "en" else story.zh)
        words = _words(spoken, people, thing)
        return Problem(
            task=self.name,
            level=level,
            language=spoken,
            prompt=template.format(**words, **values),
            answer=str(list(_work_out(story, values))[-1][-1]),
            key=f"{story.name} {' '.join(f'{name}={value}' for name, value in values.items())}",
            data={"story": story.name, "values": values, "people": people, "thing": thing},
        )

    def solve(self, problem: Problem, rng: random.Random) -> Solution:
        data, language = problem.data, problem.language
        story, values = STORIES[data["story"]], data["values"]
        words = _words(language, data["people"], data["thing"])
        steps = list(_work_out(story, values))
        manner = draw_manner(rng)
        slip_index = draw_slip_index(manner, len(steps), rng)
        labels = (story.en_labels if language == "en" else story.zh_labels).split("|")
        lines: list[str] = []
        for index, (left, sign, right, value) in enumerate(steps):
            slips = index == slip_index
            line = equation(f"{left}{sign}{right}", value, slips=slips, language=language, rng=rng)
            if len(steps) > 1:
                label = labels[index].format(**words, **values)
                line = _LABELLED[language].format(label=label, step=line)
            lines.append(line)
        left, sign, right, value = steps[-1]
        if manner == "check":
            lines.append(f"{CHECK[language]}{value}{_INVERSE[sign]}{right}={left}")
        return Solution("\n".join(lines), f"\\boxed{{{value}}}")


def _words(language: Language, people: list[int], thing: int) -> dict[str, str]:
    plural, singular, noun, measure = THINGS[thing]
    name, other, third = (PEOPLE[language][index] for index in people)
    return {
        "name": name,
        "other": other,
        "third": third,
        "things": plural,
        "one": singular,
        "thing": noun,
        "m": measure,
    }


def _draw_values(story: Story, rng: random.Random) -> dict[str, int]:
    """Numbers with which every step is a whole number from 1 to _LARGEST."""
    while True:
        values = {name: rng.choice(numbers) for name, numbers in story.values.items()}
        for result, left, sign, right in _parse(story.given):
            values[result] = _compute(_read(left, values), sign, _read(right, values))
        if all(1 <= step[-1] <= _LARGEST for step in _work_out(story, values)):
            return values


def _work_out(story: Story, values: dict[str, int]) -> Iterator[tuple[int, str, int, int]]:
    """(left, sign, right, value) of each step; value 0 where a division leaves a rest."""
    known = dict(values)
    for result, left_name, sign, right_name in _parse(story.steps):
        left, right = _read(left_name, known), _read(right_name, known)
        known[result] = _compute(left, sign, right)
        yield left, sign, right, known[result]


def _parse(steps: str) -> Iterator[tuple[str, str, str, str]]:
    """ "x=a*b y=x-c" as (result, left, sign, right)."""
    for step in steps.split():
        result, _, (left, sign, right) = step.partition("=")
        yield result, left, sign, right


def _read(name: str, values: dict[str, int]) -> int:
    return int(name) if name.isdigit() else values[name]


def _compute(left: int, sign: str, right: int) -> int:
    if sign == "/":
        return 0 if left % right else left // right
    return {"+": left + right, "-": left - right, "*": left * right}[sign]
