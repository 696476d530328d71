"""Abstain: say so when a question has no answer or is too hard, and only then.

Every question has a twin that can be answered, and both are asked equally often; declining an
answerable one is as wrong as guessing. What has no answer is answered, after one sentence why,
with `unknown` in the box, in Chinese 未知. Half of the questions, of either kind, say so.
"""

import dataclasses
import random
import string
from typing import Any, ClassVar

from rorqual.tasks.abstain_twins import TWINS, TWINS_BY_LEVEL, Twin
from rorqual.tasks.base import (
    Language,
    Problem,
    Score,
    Solution,
    Task,
    check_level,
    draw_language,
    score_answer,
)
from rorqual.tasks.word_stories import PEOPLE, THINGS

UNKNOWN: dict[Language, str] = {"en": "unknown", "zh": "未知"}
_HINT = {
    "en": (" If nobody can tell, answer unknown.", " Answer unknown if it has no sure answer."),
    "zh": ("如果无法确定，就答未知。", "答不了就写未知。"),
}
_PEOPLE_WORDS = ("name", "other", "third")


class Abstain(Task):
    """Levels: a number missing; not determined; impossible or too large. Half are answerable."""

    name: ClassVar[str] = "abstain"
    num_levels: ClassVar[int] = len(TWINS_BY_LEVEL)

    def make(self, rng: random.Random, level: int, language: Language | None = None) -> Problem:
        check_level(self, level)
        twin = rng.choice(TWINS_BY_LEVEL[level - 1])
        known = rng.random() < 0.5
        values = {name: rng.choice(numbers) for name, numbers in twin.values.items()}
        values |= twin.complete(values, known, rng)
        people = rng.sample(range(len(PEOPLE["en"])), len(_PEOPLE_WORDS))
        data = {
            "twin": twin.name,
            "known": known,
            "values": values,
            "people": people,
            "thing": rng.randrange(len(THINGS)),
        }
        spoken = draw_language(rng, language)
        words, telling = _words(data, spoken), twin.telling[spoken]
        hint = rng.choice(("", rng.choice(_HINT[spoken])))
        question = telling.known if known else telling.unknown
        return Problem(
            task=self.name,
            level=level,
            language=spoken,
            prompt=question.format(**words) + hint,
            answer=str(words[twin.answer]) if known else UNKNOWN[spoken],
            key=_key(twin, data),
            data=data,
        )

    def solve(self, problem: Problem, rng: random.Random) -> Solution:
        del rng
        telling = TWINS[problem.data["twin"]].telling[problem.language]
        words, box = _words(problem.data, problem.language), f"\\boxed{{{problem.answer}}}"
        if problem.data["known"]:
            return Solution(telling.work.format(**words), box)
        gap = "" if problem.language == "zh" else " "
        return Solution(telling.look.format(**words), telling.why.format(**words) + gap + box)

    def score(self, problem: Problem, completion: str) -> Score:
        """As the default; who works out what was thought out of reach is right, too."""
        if not problem.data["known"] and TWINS[problem.data["twin"]].only_hard:
            exact = dataclasses.replace(problem, answer=str(problem.data["values"]["x"]))
            if (score := score_answer(exact, completion)).correct:
                return score
        return score_answer(problem, completion)


def _words(data: Any, language: Language) -> dict[str, object]:
    plural, singular, noun, measure = THINGS[data["thing"]]
    words: dict[str, object] = {"things": plural, "one": singular, "thing": noun, "m": measure}
    for word, person in zip(_PEOPLE_WORDS, data["people"], strict=True):
        words[word] = PEOPLE[language][person]
    return words | data["values"]


def _key(twin: Twin, data: dict[str, Any]) -> str:
    """What the question shows: numbers, people, thing; what it does not show tells nothing."""
    telling = twin.telling["en"]
    question = telling.known if data["known"] else telling.unknown
    shown = {name for _, name, _, _ in string.Formatter().parse(question) if name}
    indices = dict(zip(_PEOPLE_WORDS, data["people"], strict=True)) | {"things": data["thing"]}
    parts = indices | data["values"]
    told = " ".join(f"{name}={parts[name]}" for name in sorted(shown))
    return f"{twin.name} {'known' if data['known'] else 'unknown'} {told}"
