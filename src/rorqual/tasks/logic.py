"""Logic: put people in order from comparisons, then find who tells the truth.

Orders hold all neighbouring comparisons, so they are determined. Truth puzzles are drawn until
exactly one assignment of truth-tellers and liars fits, found by trying all of them; the worked
solution tries them too, and says why each failing one fails.
"""

import itertools
import random
import re
from collections.abc import Sequence
from typing import Any, ClassVar

from rorqual.tasks.answers import final_answer, normal_text, split_reasoning
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
from rorqual.tasks.slips import corrected, draw_manner
from rorqual.tasks.word_stories import PEOPLE

# A relation: "{a} ... {b}" said from above, from below, and the question for each end.
_RELATIONS: tuple[dict[Language, tuple[str, str, str, str]], ...] = (
    {
        "en": ("{a} is taller than {b}", "{b} is shorter than {a}", "tallest", "shortest"),
        "zh": ("{a}比{b}高", "{b}比{a}矮", "最高", "最矮"),
    },
    {
        "en": ("{a} is older than {b}", "{b} is younger than {a}", "oldest", "youngest"),
        "zh": ("{a}比{b}年纪大", "{b}比{a}年纪小", "年纪最大", "年纪最小"),
    },
    {
        "en": ("{a} runs faster than {b}", "{b} runs slower than {a}", "fastest", "slowest"),
        "zh": ("{a}比{b}跑得快", "{b}比{a}跑得慢", "跑得最快", "跑得最慢"),
    },
    {
        "en": ("{a} is heavier than {b}", "{b} is lighter than {a}", "heaviest", "lightest"),
        "zh": ("{a}比{b}重", "{b}比{a}轻", "最重", "最轻"),
    },
)
_WHO = {"en": ("Who is the {most}?", "Who is {most}?"), "zh": ("谁{most}？", "{most}的是谁？")}
_KNIGHTS = {
    "en": (
        "Each always lies or always tells the truth. {said} Who tells the truth?",
        "{said} Each of them always tells the truth or always lies. Who tells the truth?",
    ),
    "zh": (
        "每人要么总说真话，要么总说谎。{said}谁说真话？",
        "{said}他们要么总说真话，要么总说谎。谁说真话？",
    ),
}
_SAYS = {"en": '{a}: "{claim}"', "zh": "{a}说：“{claim}”"}
_CLAIMS: dict[Language, dict[str, str]] = {
    "en": {
        "lies": "{b} lies.",
        "honest": "{b} tells the truth.",
        "same": "{b} and I are alike.",
        "different": "{b} and I are not alike.",
        "count 0": "We all lie.",
        "count 1": "Only one of us tells the truth.",
        "count 2": "Exactly two of us tell the truth.",
        "all": "We all tell the truth.",
    },
    "zh": {
        "lies": "{b}说谎。",
        "honest": "{b}说真话。",
        "same": "{b}和我是一样的人。",
        "different": "{b}和我不是一样的人。",
        "count 0": "我们都说谎。",
        "count 1": "我们中只有一人说真话。",
        "count 2": "我们中正好两人说真话。",
        "all": "我们都说真话。",
    },
}
_TRIAL = {
    "en": ("true", "lies", "{a} would be right", "{a} would be wrong", "fits"),
    "zh": ("真", "假", "{a}的话就对了", "{a}的话就错了", "符合"),
}
_NOBODY = {"en": "nobody", "zh": "没有人"}
_COLON, _COMMA = {"en": ": ", "zh": "："}, {"en": ", ", "zh": "，"}
_BETWEEN_NAMES = re.compile(r",|、|和|\band\b|&")


class Logic(Task):
    """Levels: order three people; order four; truth-tellers among two; among three."""

    name: ClassVar[str] = "logic"
    num_levels: ClassVar[int] = 4

    def make(self, rng: random.Random, level: int, language: Language | None = None) -> Problem:
        check_level(self, level)
        data = _draw_order(rng, level) if level <= 2 else _draw_knights(rng, level - 1)
        spoken = draw_language(rng, language)
        names = [PEOPLE[spoken][index] for index in data["people"]]
        if data["kind"] == "order":
            prompt, answer = _tell_order(data, names, spoken, rng), names[data["asked"]]
        else:
            prompt = _tell_knights(data, names, spoken, rng)
            honest = [name for name, true in zip(names, data["honest"], strict=True) if true]
            answer = _COMMA[spoken].join(honest) or _NOBODY[spoken]
        key = " ".join(str(value) for value in data.values())
        return Problem(self.name, level, spoken, prompt, answer, key, data)

    def solve(self, problem: Problem, rng: random.Random) -> Solution:
        names = [PEOPLE[problem.language][index] for index in problem.data["people"]]
        if problem.data["kind"] == "order":
            thinking = _work_out_order(problem, names, rng)
        else:
            thinking = _work_out_knights(problem, names)
        return Solution(thinking, f"\\boxed{{{problem.answer}}}")

    def score(self, problem: Problem, completion: str) -> Score:
        """The names asked for and no others, in any order."""
        _, content = split_reasoning(completion)
        got = None if content is None else final_answer(content)
        if got is None:
            return wrong("no answer")
        right = _name_list(got) == _name_list(problem.answer)
        return RIGHT if right else wrong("wrong answer")


def _name_list(text: str) -> list[str]:
    return sorted(normal_text(name) for name in _BETWEEN_NAMES.split(text.replace("，", ",")))


def _draw_order(rng: random.Random, level: int) -> dict[str, Any]:
    """People from the highest down; level 2 shuffles the comparisons and turns some round."""
    count = level + 2
    people = rng.sample(range(len(PEOPLE["en"])), count)
    from_below = rng.randrange(2)
    told = [[above, from_below] for above in range(count - 1)]
    if level == 2:
        rng.shuffle(told)
        for statement in told:
            statement[1] = rng.randrange(2)
    asked = rng.choice((0, count - 1) if level == 1 else (0, 1, count - 1))
    relation = rng.randrange(len(_RELATIONS))
    return {"kind": "order", "relation": relation, "people": people, "told": told, "asked": asked}


def _superlative(data: dict[str, Any], language: Language) -> str:
    _, _, most, least = _RELATIONS[data["relation"]][language]
    if data["asked"] == 1:
        return most.replace("最", "第二") if language == "zh" else f"second {most}"
    return most if data["asked"] == 0 else least


def _tell_order(
    data: dict[str, Any], names: Sequence[str], language: Language, rng: random.Random
) -> str:
    phrases = _RELATIONS[data["relation"]][language]
    told = [
        phrases[from_below].format(a=names[above], b=names[above + 1])
        for above, from_below in data["told"]
    ]
    question = rng.choice(_WHO[language]).format(most=_superlative(data, language))
    return (
        "，".join(told) + "。" + question if language == "zh" else f"{'. '.join(told)}. {question}"
    )


def _work_out_order(problem: Problem, names: Sequence[str], rng: random.Random) -> str:
    """Every comparison the same way round, then the chain, then the one asked for."""
    data, language = problem.data, problem.language
    pairs = [f"{names[above]}>{names[above + 1]}" for above, _ in data["told"]]
    chain = ">".join(names)
    if draw_manner(rng) == "slip":
        swapped = [*names[:-2], names[-1], names[-2]]
        chain = corrected("", ">".join(swapped), chain, language, rng)
    asked = _superlative(dict(data), language)
    last = f"{asked}{_COLON[language]}{problem.answer}"
    return "\n".join((_COMMA[language].join(pairs), chain, last))


def _draw_knights(rng: random.Random, count: int) -> dict[str, Any]:
    """Claims [kind, whom] of each person, with exactly one assignment that fits them all."""
    people = rng.sample(range(len(PEOPLE["en"])), count)
    kinds = ["lies", "honest", "same", "different", "count 0", "count 1", "all"]
    kinds += ["count 2"] if count == 3 else []
    while True:
        claims: list[list[Any]] = []
        for speaker in range(count):
            kind = rng.choice(kinds)
            others = [person for person in range(count) if person != speaker]
            claims.append([kind, None if "count" in kind or kind == "all" else rng.choice(others)])
        fitting = [honest for honest in _assignments(count) if _misfit(claims, honest) is None]
        if len(fitting) == 1:
            return {
                "kind": "knights",
                "people": people,
                "claims": claims,
                "honest": list(fitting[0]),
            }


def _assignments(count: int) -> list[tuple[bool, ...]]:
    return list(itertools.product((True, False), repeat=count))


def _misfit(claims: Sequence[Sequence[Any]], honest: Sequence[bool]) -> int | None:
    """The first person whose claim does not go with being honest or not; None if all do."""
    for speaker, (kind, whom) in enumerate(claims):
        if _holds(kind, speaker, whom, honest) != honest[speaker]:
            return speaker
    return None


def _holds(kind: str, speaker: int, whom: int | None, honest: Sequence[bool]) -> bool:
    if whom is None:
        wanted = len(honest) if kind == "all" else int(kind.removeprefix("count "))
        return sum(honest) == wanted
    return {
        "lies": not honest[whom],
        "honest": honest[whom],
        "same": honest[whom] == honest[speaker],
        "different": honest[whom] != honest[speaker],
    }[kind]


def _tell_knights(
    data: dict[str, Any], names: Sequence[str], language: Language, rng: random.Random
) -> str:
    said: list[str] = []
    for name, (kind, whom) in zip(names, data["claims"], strict=True):
        claim = _CLAIMS[language][kind].format(b="" if whom is None else names[whom])
        if len(names) == 2:
            claim = claim.replace("We all", "We both").replace("我们都", "我们俩都")
        said.append(_SAYS[language].format(a=name, claim=claim))
    gap = "" if language == "zh" else " "
    return rng.choice(_KNIGHTS[language]).format(said=gap.join(said))


def _work_out_knights(problem: Problem, names: Sequence[str]) -> str:
    """Try the assignments in turn until one fits."""
    language, claims = problem.language, problem.data["claims"]
    true, false, would_be_right, would_be_wrong, fits = _TRIAL[language]
    gap = " " if language == "en" else ""
    lines: list[str] = []
    for honest in _assignments(len(names)):
        tried = _COMMA[language].join(
            f"{name}{gap}{true if is_honest else false}"
            for name, is_honest in zip(names, honest, strict=True)
        )
        misfit = _misfit(claims, honest)
        if misfit is None:
            return "\n".join((*lines, f"{tried}{_COLON[language]}{fits}"))
        fault = would_be_wrong if honest[misfit] else would_be_right
        lines.append(f"{tried}{_COLON[language]}{fault.format(a=names[misfit])}")
    raise AssertionError(f"no assignment fits {problem.key}")
