"""Program output: what does this short Python program print?

Programs come from templates with drawn numbers and variable names, at most ten lines; the answer
and the trace come from our own interpreter (`program_trace`). A problem is the program with its
variables in fixed letters, so a renamed copy stays on its side of the split.
"""

import random
from typing import ClassVar

from rorqual.tasks.answers import final_answer, parse_number, split_reasoning
from rorqual.tasks.base import (
    RIGHT,
    Language,
    Problem,
    Score,
    Solution,
    Task,
    check_level,
    draw_language,
    wrong,
)
from rorqual.tasks.program_trace import Event, Interpreter, TooLong
from rorqual.tasks.slips import corrected, draw_manner, near_value

_LARGEST, _LONGEST, _MOST_EVENTS = 999, 40, 20
_LETTERS = ("a", "b", "c", "n", "s", "t", "x", "y")
_QUESTIONS = {
    "en": ("What does this print?\n{source}", "{source}\nWhat is printed?"),
    "zh": ("这段程序输出什么？\n{source}", "{source}\n输出是什么？"),
}
# Blanks: {p} {q} {r} variables, {A} {B} {C} {D} small numbers, {E} a larger one, {o} {u} signs,
# {l} a list of numbers, {w} {v} words, {i} an index, {m} 2 or 3, {f} a function of a list.
_PROGRAMS_BY_LEVEL: tuple[tuple[str, ...], ...] = (
    (
        "{p} = {A}\n{q} = {p} {o} {B}\nprint({p} {u} {q})",
        "{p} = {A}\n{p} = {p} {o} {B}\nprint({p} {u} {C})",
        "{p} = {A}\n{q} = {B}\n{p} = {q} {o} {C}\nprint({p})",
        "{p} = {A}\n{q} = {p}\n{p} = {B}\nprint({p} {o} {q})",
    ),
    (
        "{p} = {A}\n{q} = {B}\nif {p} > {q}:\n    {p} = {p} - {q}\nelse:\n    {p} = {p} * {m}\n"
        "print({p} {o} {C})",
        "{p} = {A}\nif {p} {c} {B}:\n    {p} += {C}\nif {p} % 2 == 0:\n    {p} = {p} // 2\n"
        "print({p})",
        "{p} = {A}\nfor {q} in range({k}):\n    {p} = {p} + {q}\nprint({p})",
        "{p} = {A}\nfor {q} in range({k}):\n    {p} = {p} {o} {B}\nprint({p})",
        "{p} = {A}\nfor {q} in {l}:\n    {p} = {p} {o} {q}\nprint({p})",
    ),
    (
        "{p} = {l}\n{p}[{i}] = {A}\n{p}.append({B})\nprint({p})",
        "{p} = {l}\n{q} = {p}[{i}] {o} {p}[-1]\n{p}.append({q})\nprint({f}({p}))",
        "{p} = {l}\n{p} = sorted({p})\nprint({p}[{i}] {o} {A})",
        "{p} = {w}\n{q} = {p} + {v}\nprint({q}[::-1])",
        "{p} = {w}\n{q} = {p}[{i}] + {p}[-1]\nprint({q} * {m})",
        "{p} = {w}\n{q} = {p}[:{m}].upper()\nprint({q} + {v})",
        "{p} = {E}\n{q} = 0\nwhile {p} > {A}:\n    {p} = {p} // 2\n    {q} += 1\n"
        "print({q} {o} {p})",
        "{p} = {E}\nwhile {p} > {D}:\n    {p} -= {D}\nprint({p})",
    ),
    (
        "{p} = {A}\nfor {q} in range(1, {k}):\n    if {q} % {m} == 0:\n        {p} += {q}\n"
        "    else:\n        {p} -= {B}\nprint({p})",
        "{p} = []\n{q} = {k}\nwhile {q} > 0:\n    {p}.append({q} * {m} {o} {A})\n    {q} -= 1\n"
        "print({p})",
        '{p} = ""\nfor {q} in {w}:\n    {p} = {q} + {p}\nprint({p} + {v})',
        "{p} = {A}\nfor {q} in range({m}):\n    for {r} in range(2):\n        {p} += {q} * {r}\n"
        "    {p} = {p} {o} {B}\nprint({p})",
        "{p} = {E}\n{q} = 0\nwhile {p} != 1:\n    if {p} % 2 == 0:\n        {p} = {p} // 2\n"
        "    else:\n        {p} = {p} {o} 1\n    {q} += 1\nprint({q})",
        "{p} = {l}\n{q} = {A}\nfor {r} in {p}:\n    if {r} > {q}:\n        {q} = {r} - {B}\n"
        "print({q})",
    ),
)
_WORDS = ("cat", "dog", "sun", "tree", "fish", "moon", "bird", "milk", "lamp", "rose")


class ProgramOutput(Task):
    """Levels: assignments; if and for; lists, strings, while; loops with branches."""

    name: ClassVar[str] = "program_output"
    num_levels: ClassVar[int] = len(_PROGRAMS_BY_LEVEL)

    def make(self, rng: random.Random, level: int, language: Language | None = None) -> Problem:
        check_level(self, level)
        template, blanks, answer = _draw_program(rng, level)
        letters = rng.sample(_LETTERS, 3)
        spoken = draw_language(rng, language)
        source = template.format(p=letters[0], q=letters[1], r=letters[2], **blanks)
        return Problem(
            task=self.name,
            level=level,
            language=spoken,
            prompt=rng.choice(_QUESTIONS[spoken]).format(source=source),
            answer=answer,
            key=template.format(p="p", q="q", r="r", **blanks),
            data={"source": source},
        )

    def solve(self, problem: Problem, rng: random.Random) -> Solution:
        interpreter = Interpreter()
        interpreter.run(problem.data["source"])
        events = interpreter.events
        numeric = [index for index, event in enumerate(events) if _is_computed(event)]
        slips = draw_manner(rng) == "slip" and numeric
        slip_index = rng.choice(numeric) if slips else None
        text = ""
        for index, event in enumerate(events):
            told = event.before + event.value
            if index == slip_index:
                good = int(event.value)
                told = corrected(event.before, near_value(good, rng), good, problem.language, rng)
            gap = "" if index == 0 else "\n" if event.begins_line else ", "
            text += gap + told
        return Solution(text, f"\\boxed{{{problem.answer}}}")

    def score(self, problem: Problem, completion: str) -> Score:
        """Exact text up to spaces (case counts); whole numbers as numbers."""
        _, content = split_reasoning(completion)
        got = None if content is None else final_answer(content)
        if got is None:
            return wrong("no answer")
        same = "".join(got.split()) == "".join(problem.answer.split())
        number = parse_number(problem.answer)
        same = same or (number is not None and parse_number(got) == number)
        return RIGHT if same else wrong("wrong answer")


def _is_computed(event: Event) -> bool:
    """A number that came out of arithmetic, not one copied from the program."""
    return event.before.count("=") > 1 and event.value.lstrip("-").isdigit()


def _draw_program(rng: random.Random, level: int) -> tuple[str, dict[str, object], str]:
    """A template, what fills its blanks, and what it prints: short, with small numbers."""
    while True:
        template = rng.choice(_PROGRAMS_BY_LEVEL[level - 1])
        blanks = _draw_blanks(rng)
        interpreter = Interpreter(spells=False)
        try:
            printed = interpreter.run(template.format(p="p", q="q", r="r", **blanks))
        except TooLong:
            continue
        short = len(printed) <= _LONGEST and len(interpreter.events) <= _MOST_EVENTS
        if short and all(_is_small(event) for event in interpreter.events):
            return template, blanks, printed


def _is_small(event: Event) -> bool:
    value = event.value.lstrip("-")
    return not value.isdigit() or int(value) <= _LARGEST


def _draw_blanks(rng: random.Random) -> dict[str, object]:
    first, second = rng.sample(_WORDS, 2)
    return {
        "A": rng.randint(1, 12),
        "B": rng.randint(1, 9),
        "C": rng.randint(1, 9),
        "D": rng.randint(3, 9),
        "E": rng.randint(12, 40),
        "k": rng.randint(3, 5),
        "o": rng.choice("+-"),
        "u": rng.choice("+-*"),
        "c": rng.choice("<>"),
        "l": [rng.randint(1, 9) for _ in range(rng.randint(3, 4))],
        "w": f'"{first}"',
        "v": f'"{second[0]}"',
        "i": rng.randrange(3),
        "m": rng.randint(2, 3),
        "f": rng.choice(("sum", "max", "min", "len")),
    }
