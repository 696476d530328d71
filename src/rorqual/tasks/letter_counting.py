"""Letter counting: how often a letter stands in a word, spelled out with a running count.

A tokenizer hides the letters of a word from the model; spelling brings them back. In Chinese the
question is about an English word or about a character in a short Chinese string.
"""

import random
import string
from typing import ClassVar

from rorqual.tasks.base import Language, Problem, Solution, Task, check_level, draw_language
from rorqual.tasks.slips import CHECK, corrected, draw_manner, draw_slip_index, near_value

_WORDS = tuple(
    """
    add ant apple arrow baby ball banana bed bee bell berry bird book boot bottle box bread bridge
    bus butter cake camel candle car carrot cat chair cheese cherry clock cloud coffee cookie cool
    corn cotton cow cup daddy dance dinner dog dollar door dress duck egg eye family farm fast
    fish flower fog foot forest fox funny garden glass goat gold goose grass green hammer happy
    hat hello hill honey horse house ice jelly jump key kitten lamp lemon letter lion lizard
    little mirror mitten monkey moon mother mouse muddy mummy needle nest noodle onion orange owl
    paper parrot pepper piano pillow pizza potato puppy queen rabbit radio rain ribbon river
    rocket rubber school sea seed sheep ship shoe silver sister snow soccer spoon star stone
    street summer sun sunny table tea teeth tennis tomato train tree turtle valley wheel window
    winter wood yellow zebra
    address airport balloon battery blanket blossom brother butterfly cabbage chicken chimney
    cinnamon classroom coconut committee december dolphin elephant evening february football
    giraffe goodness grammar grandfather hospital hundred january kangaroo kitchen language
    library lollipop mattress messenger mountain mushroom necklace newspaper occasion october
    parallel pineapple possible pumpkin pyramid raspberry sandwich september snowball squirrel
    strawberry success sweetness thirteen together tomorrow triangle umbrella village volcano
    waterfall weather wednesday
    accommodation blackberry caterpillar championship characteristic chocolate commission
    communication embarrassment encyclopedia environment experience grasshopper hippopotamus
    international independence intelligence mathematics millennium misunderstanding mississippi
    neighborhood paragraph playground possession professional questionnaire refrigerator
    responsibility restaurant supermarket temperature tennessee thunderstorm transportation
    understanding university watermelon
    """.split()
)
_CHARACTERS = "天地人大小上下山水火木日月风雨花鸟鱼虫马牛羊红黄白好书车门手"
# The letters of a word at least and at most, the words, the length of a Chinese string and how
# many different characters it has.
_SHAPE_BY_LEVEL = (
    (3, 6, 1, (4, 5), 3),
    (7, 9, 1, (6, 8), 4),
    (10, 17, 1, (9, 12), 5),
    (4, 10, 3, (14, 18), 6),
)
_WORDS_BY_LEVEL = tuple(
    tuple(word for word in _WORDS if low <= len(word) <= high) for low, high, *_ in _SHAPE_BY_LEVEL
)
_CHINESE_SHARE = 0.4
_QUESTIONS = {
    "en": (
        'How many times does "{sought}" occur in "{text}"?',
        'How often does the letter {sought} occur in "{text}"?',
        'Count the letter {sought} in "{text}".',
    ),
    "zh": (
        "英文“{text}”里有几个字母{sought}？",
        "字母{sought}在“{text}”中出现几次？",
        "数一数“{text}”里的字母{sought}。",
    ),
}
_CHINESE_QUESTIONS = (
    "“{text}”里有几个“{sought}”字？",
    "“{sought}”字在“{text}”中出现几次？",
    "数一数“{text}”里的“{sought}”字。",
)
_BEFORE_COUNT, _AFTER_COUNT = {"en": " (", "zh": "（"}, {"en": ")", "zh": "）"}
_COMMA = {"en": ", ", "zh": "，"}
_TOTAL = {"en": "so {}", "zh": "共{}个"}
_PLACES = {"en": "{sought} stands at {places}", "zh": "{sought}在第{places}位"}
_NOWHERE = {"en": "no {sought} in it", "zh": "没有{sought}"}


class LetterCounting(Task):
    """Levels: short words; up to 9 letters; long words; three words at once."""

    name: ClassVar[str] = "letter_counting"
    num_levels: ClassVar[int] = len(_SHAPE_BY_LEVEL)

    def make(self, rng: random.Random, level: int, language: Language | None = None) -> Problem:
        check_level(self, level)
        _, _, num_words, lengths, variety = _SHAPE_BY_LEVEL[level - 1]
        words = _WORDS_BY_LEVEL[level - 1]
        drawn = [" ".join(rng.sample(words, num_words)) for _ in range(2)]
        text = max(drawn, key=_most_repeated)  # words without a repeat are the rarer ones
        sought = _draw_sought(text, string.ascii_lowercase, rng)
        spoken = draw_language(rng, language)
        templates = _QUESTIONS[spoken]
        if spoken == "zh" and rng.random() < _CHINESE_SHARE:
            characters = "".join(rng.sample(_CHARACTERS, variety))
            text = "".join(rng.choices(characters, k=rng.randint(*lengths)))
            sought = _draw_sought(text, characters, rng)
            templates = _CHINESE_QUESTIONS
        return Problem(
            task=self.name,
            level=level,
            language=spoken,
            prompt=rng.choice(templates).format(sought=sought, text=text),
            answer=str(text.count(sought)),
            key=f"{sought} {text}",
            data={"text": text, "sought": sought},
        )

    def solve(self, problem: Problem, rng: random.Random) -> Solution:
        language, manner = problem.language, draw_manner(rng)
        text, sought = problem.data["text"], problem.data["sought"]
        comma, after = _COMMA[language], _AFTER_COUNT[language]
        before = f"{sought}{_BEFORE_COUNT[language]}"
        slip_index = draw_slip_index(manner, text.count(sought), rng)
        count = 0
        lines: list[str] = []
        for word in text.split():
            spelled: list[str] = []
            for letter in word:
                if letter != sought:
                    spelled.append(letter)
                    continue
                count += 1
                if count - 1 == slip_index:
                    bad = near_value(count, rng)
                    spelled.append(
                        corrected(before, f"{bad}{after}", f"{count}{after}", language, rng)
                    )
                else:
                    spelled.append(f"{before}{count}{after}")
            lines.append(comma.join(spelled))
        lines[-1] += comma + _TOTAL[language].format(count)
        if manner == "check":
            lines.append(CHECK[language] + _checked(text, sought, language))
        return Solution("\n".join(lines), f"\\boxed{{{count}}}")


def _draw_sought(text: str, alphabet: str, rng: random.Random) -> str:
    """A letter whose count is drawn evenly from those there are, zero half as often.

    Drawn evenly by letter instead, the answer 1 would be right most of the time.
    """
    by_count: dict[int, list[str]] = {}
    for letter in alphabet:
        by_count.setdefault(text.count(letter), []).append(letter)
    counts = sorted(by_count)
    (count,) = rng.choices(counts, weights=[2 if count else 1 for count in counts])
    return rng.choice(by_count[count])


def _most_repeated(text: str) -> int:
    return max(text.count(letter) for letter in text if letter != " ")


def _checked(text: str, sought: str, language: Language) -> str:
    """One word: where it stands, counted from one. Several: the sum of their counts."""
    words = text.split()
    if len(words) > 1:
        return "+".join(str(word.count(sought)) for word in words) + f"={text.count(sought)}"
    places = [str(index) for index, letter in enumerate(text, 1) if letter == sought]
    template = _PLACES if places else _NOWHERE
    separator = {"en": ", ", "zh": "、"}[language]
    return template[language].format(sought=sought, places=separator.join(places))
