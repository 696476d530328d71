"""The question pairs behind `abstain`: each can be asked so that it has an answer, or none.

A pair is data. `known` and `unknown` are the two questions in one language; `work` thinks the
answerable one through, `look` finds what is missing in the other and `why` says it in one sentence.
`complete` adds what follows from the drawn numbers, with the answer as x; unknown problems may get
other numbers there (a division that leaves a rest, equations that clash).
"""

import random
from collections.abc import Callable
from dataclasses import dataclass

from rorqual.tasks.base import Language

Values = dict[str, int]


@dataclass(frozen=True, slots=True)
class Telling:
    """One pair in one language."""

    known: str
    unknown: str
    work: str
    look: str
    why: str


@dataclass(frozen=True, slots=True)
class Twin:
    """One pair. answer: the placeholder that is the answer.

    only_hard: the unknown question has an answer x, out of reach; giving it is right as well.
    """

    name: str
    values: dict[str, range]
    complete: Callable[[Values, bool, random.Random], Values]
    telling: dict[Language, Telling]
    answer: str = "x"
    only_hard: bool = False


_SMALL, _LARGER = range(2, 16), range(4, 31)


def _sum(values: Values, known: bool, rng: random.Random) -> Values:
    del known, rng
    return {"x": values["a"] + values["b"]}


def _difference(values: Values, known: bool, rng: random.Random) -> Values:
    """a-b, with a drawn on top of b so that something is left."""
    del known, rng
    return {"a": values["a"] + values["b"], "x": values["a"]}


def _product(values: Values, known: bool, rng: random.Random) -> Values:
    del known, rng
    return {"x": values["a"] * values["b"]}


def _nothing(values: Values, known: bool, rng: random.Random) -> Values:
    del values, known, rng
    return {}


def _taken(values: Values, known: bool, rng: random.Random) -> Values:
    """b of a are given away; unknown: more than there are."""
    del rng
    a, b = values["a"] + values["b"], values["b"]
    return {"a": a, "b": b, "x": a - b} if known else {"a": b, "b": a}


def _multiple(values: Values, known: bool, rng: random.Random) -> Values:
    """k*x=n; unknown: n lies between two multiples."""
    k, q = values["k"], values["q"]
    below = k * q
    n = below if known else below + rng.randrange(1, k)
    return {"n": n, "x": q, "below": below, "next": q + 1, "above": below + k}


def _clash(values: Values, known: bool, rng: random.Random) -> Values:
    """x+a=s and x-c=d; unknown: the second equation asks for another x."""
    x = values["c"] + values["e"]
    other = x if known else x + rng.randint(1, 5)
    return {"x": x, "z": other, "s": x + values["a"], "d": other - values["c"]}


def _large(values: Values, known: bool, rng: random.Random) -> Values:
    """A product from the tables; unknown: five and six digits."""
    a, b = values["a"], values["b"]
    if not known:
        a, b = rng.randrange(10_000, 1_000_000), rng.randrange(10_000, 1_000_000)
    return {"a": a, "b": b, "x": a * b}


_MISSING_NUMBER = (
    Twin(
        "gain",
        {"a": _LARGER, "b": _SMALL},
        _sum,
        {
            "en": Telling(
                "{name} has {a} {things}. {other} brings {b} more. How many are there now?",
                "{name} has {a} {things}. {other} brings some more. How many are there now?",
                "{a}+{b}={x}",
                "{a} and how many more? Not said.",
                "It is not said how many {other} brings.",
            ),
            "zh": Telling(
                "{name}有{a}{m}{thing}，{other}又拿来{b}{m}。现在一共有多少{m}？",
                "{name}有{a}{m}{thing}，{other}又拿来一些。现在一共有多少{m}？",
                "{a}+{b}={x}",
                "{a}再加多少？没有说。",
                "没有说{other}拿来多少。",
            ),
        },
    ),
    Twin(
        "lose",
        {"a": _SMALL, "b": _SMALL},
        _difference,
        {
            "en": Telling(
                "{name} has {a} {things} and loses {b}. How many are left?",
                "{name} has {a} {things} and loses a few. How many are left?",
                "{a}-{b}={x}",
                "{a} less how many? Not said.",
                "It is not said how many are lost.",
            ),
            "zh": Telling(
                "{name}有{a}{m}{thing}，丢了{b}{m}。还剩多少{m}？",
                "{name}有{a}{m}{thing}，丢了一些。还剩多少{m}？",
                "{a}-{b}={x}",
                "{a}减多少？没有说。",
                "没有说丢了多少。",
            ),
        },
    ),
    Twin(
        "start",
        {"a": _SMALL, "b": _SMALL},
        _difference,
        {
            "en": Telling(
                "{name} has {a} {things} and gives {other} {b}. How many does {name} keep?",
                "{name} has {things} and gives {other} {b}. How many does {name} keep?",
                "{a}-{b}={x}",
                "How many at first? Not said.",
                "It is not said how many {name} had.",
            ),
            "zh": Telling(
                "{name}有{a}{m}{thing}，给了{other}{b}{m}。{name}还剩多少{m}？",
                "{name}有一些{thing}，给了{other}{b}{m}。{name}还剩多少{m}？",
                "{a}-{b}={x}",
                "原来有多少？没有说。",
                "没有说{name}原来有多少。",
            ),
        },
    ),
    Twin(
        "boxes",
        {"a": range(2, 10), "b": range(2, 13)},
        _product,
        {
            "en": Telling(
                "{name} has {a} boxes with {b} {things} in each. How many {things} is that?",
                "{name} has {a} boxes with {things}. How many {things} is that?",
                "{a}*{b}={x}",
                "{a} times how many? Not said.",
                "It is not said how many are in a box.",
            ),
            "zh": Telling(
                "{name}有{a}盒{thing}，每盒{b}{m}。一共多少{m}？",
                "{name}有{a}盒{thing}。一共多少{m}？",
                "{a}*{b}={x}",
                "{a}乘多少？没有说。",
                "没有说每盒有多少。",
            ),
        },
    ),
)

_NOT_DETERMINED = (
    Twin(
        "captain",
        {"a": _LARGER, "b": _LARGER},
        _sum,
        {
            "en": Telling(
                "A ship carries {a} sheep and {b} goats. How many animals does it carry?",
                "A ship carries {a} sheep and {b} goats. How old is the captain?",
                "{a}+{b}={x}",
                "{a} and {b} are animals, not years.",
                "Nothing is said about the captain's age.",
            ),
            "zh": Telling(
                "船上有{a}只绵羊和{b}只山羊。船上有多少只羊？",
                "船上有{a}只绵羊和{b}只山羊。船长多少岁？",
                "{a}+{b}={x}",
                "{a}和{b}是羊的数目，不是岁数。",
                "没有说船长的年龄。",
            ),
        },
    ),
    Twin(
        "third_person",
        {"a": _LARGER, "b": _LARGER},
        _sum,
        {
            "en": Telling(
                "{name} has {a} {things}, {other} has {b}. How many do they have together?",
                "{name} has {a} {things}, {other} has {b}. How many does {third} have?",
                "{a}+{b}={x}",
                "{name}: {a}, {other}: {b}, {third}: not said.",
                "Nothing is said about {third}.",
            ),
            "zh": Telling(
                "{name}有{a}{m}{thing}，{other}有{b}{m}。两人一共有多少{m}？",
                "{name}有{a}{m}{thing}，{other}有{b}{m}。{third}有多少{m}？",
                "{a}+{b}={x}",
                "{name}{a}，{other}{b}，{third}没有说。",
                "没有说{third}有多少。",
            ),
        },
    ),
    Twin(
        "two_unknowns",
        {"a": range(4, 100), "b": range(2, 50)},
        _difference,
        {
            "en": Telling(
                "x+y={a} and y={b}. What is x?",
                "x+y={a}. What is x?",
                "x={a}-{b}={x}",
                "x=1 with y={a}-1 fits, x=2 with y={a}-2 fits too.",
                "More than one x fits.",
            ),
            "zh": Telling(
                "x+y={a}，y={b}。x是多少？",
                "x+y={a}。x是多少？",
                "x={a}-{b}={x}",
                "x=1时y={a}-1，x=2时y={a}-2，都可以。",
                "符合的x不止一个。",
            ),
        },
    ),
    Twin(
        "order",
        {},
        _nothing,
        {
            "en": Telling(
                "{name} is taller than {other}. {other} is taller than {third}. Who is shortest?",
                "{name} is taller than {other}. {name} is taller than {third}. Who is shortest?",
                "{name}>{other}>{third}",
                "{name}>{other}, {name}>{third}; {other} or {third}? Not said.",
                "It is not said whether {other} or {third} is shorter.",
            ),
            "zh": Telling(
                "{name}比{other}高，{other}比{third}高。谁最矮？",
                "{name}比{other}高，{name}比{third}高。谁最矮？",
                "{name}>{other}>{third}",
                "{name}>{other}，{name}>{third}；{other}和{third}谁矮？没有说。",
                "没有说{other}和{third}谁更矮。",
            ),
        },
        answer="third",
    ),
)

_IMPOSSIBLE = (
    Twin(
        "more_than_there_are",
        {"a": _LARGER, "b": _SMALL},
        _taken,
        {
            "en": Telling(
                "{name} has {a} {things} and gives {b} of them to {other}. How many are left?",
                "{name} has {a} {things} and gives {b} of them to {other}. How many are left?",
                "{b}<{a}, so {a}-{b}={x}",
                "{b}>{a}",
                "{name} cannot give {b} of {a}.",
            ),
            "zh": Telling(
                "{name}有{a}{m}{thing}，把其中{b}{m}给了{other}。还剩多少{m}？",
                "{name}有{a}{m}{thing}，把其中{b}{m}给了{other}。还剩多少{m}？",
                "{b}<{a}，{a}-{b}={x}",
                "{b}>{a}",
                "只有{a}{m}，给不了{b}{m}。",
            ),
        },
    ),
    Twin(
        "whole_number",
        {"k": range(2, 10), "q": range(2, 21)},
        _multiple,
        {
            "en": Telling(
                "x is a whole number and {k}x={n}. What is x?",
                "x is a whole number and {k}x={n}. What is x?",
                "{n}/{k}={x}",
                "{k}*{x}={below}, {k}*{next}={above}; {n} lies between.",
                "{n} is not a multiple of {k}.",
            ),
            "zh": Telling(
                "x是整数，{k}x={n}。x是多少？",
                "x是整数，{k}x={n}。x是多少？",
                "{n}/{k}={x}",
                "{k}*{x}={below}，{k}*{next}={above}，{n}在中间。",
                "{n}不是{k}的倍数。",
            ),
        },
    ),
    Twin(
        "clash",
        {"a": _SMALL, "c": _SMALL, "e": _SMALL},
        _clash,
        {
            "en": Telling(
                "x+{a}={s} and x-{c}={d}. What is x?",
                "x+{a}={s} and x-{c}={d}. What is x?",
                "{s}-{a}={x}, {d}+{c}={x}",
                "{s}-{a}={x}, {d}+{c}={z}",
                "The two equations contradict each other.",
            ),
            "zh": Telling(
                "x+{a}={s}，x-{c}={d}。x是多少？",
                "x+{a}={s}，x-{c}={d}。x是多少？",
                "{s}-{a}={x}，{d}+{c}={x}",
                "{s}-{a}={x}，{d}+{c}={z}",
                "两个等式互相矛盾。",
            ),
        },
    ),
    Twin(
        "too_large",
        {"a": range(2, 13), "b": range(2, 21)},
        _large,
        {
            "en": Telling(
                "What is {a}*{b}?",
                "What is {a}*{b}?",
                "{a}*{b}={x}",
                "{a} and {b} have five digits or more.",
                "I cannot multiply numbers this large reliably.",
            ),
            "zh": Telling(
                "{a}*{b}等于多少？",
                "{a}*{b}等于多少？",
                "{a}*{b}={x}",
                "{a}和{b}有五位以上。",
                "这么大的数我乘不准。",
            ),
        },
        only_hard=True,
    ),
)

TWINS_BY_LEVEL: tuple[tuple[Twin, ...], ...] = (_MISSING_NUMBER, _NOT_DETERMINED, _IMPOSSIBLE)
TWINS: dict[str, Twin] = {twin.name: twin for level in TWINS_BY_LEVEL for twin in level}
