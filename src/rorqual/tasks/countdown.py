"""Countdown: reach a target from a few numbers with + - × ÷, each number used at most once.

The worked solution is an honest search, told as it runs: a move states its value, is compared with
the target, rejected or taken further, and given up when its tries fail. Only how many wrong tries
are told is bounded; each is a real move whose stated value is true (Stream of Search, arXiv
2404.03683). A wrong try that happens to hit the target ends the search.
"""

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from rorqual.tasks.answers import evaluate_expression, final_answer, split_reasoning
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
from rorqual.tasks.slips import CHECK, Manner, draw_manner, equation

_LARGEST_TARGET = 200
_LARGEST_VALUE = 999  # what a try may reach on the way
_MOST_OFF_PATH = 2  # tries told at one table before a wrong branch is given up


@dataclass(frozen=True, slots=True)
class _Shape:
    """What a level draws: how many numbers, up to what, how many of them the target takes."""

    count: int
    largest: int
    signs: str
    used: int
    most_tries: int


_SHAPE_BY_LEVEL = (
    _Shape(3, 15, "+-", used=2, most_tries=4),
    _Shape(3, 10, "+-×", used=3, most_tries=5),
    _Shape(3, 25, "+-×÷", used=3, most_tries=8),
    _Shape(4, 25, "+-×÷", used=4, most_tries=10),
)
_QUESTIONS = {
    "en": (
        "Make {target} from {numbers} with + - × ÷, each number at most once.",
        "Use {numbers}, each at most once, and + - × ÷ to reach {target}.",
    ),
    "zh": (
        "用{numbers}凑出{target}，可用加减乘除，每个数最多用一次。",
        "用{numbers}和加减乘除算出{target}，每个数最多用一次。",
    ),
}
_NOT = {"en": "{equation}, not {target}", "zh": "{equation}，不是{target}"}
_YES = {"en": "{equation}, yes", "zh": "{equation}，对了"}
_LEFT = {"en": "{equation}, left {numbers}", "zh": "{equation}，剩{numbers}"}
_BACK = {"en": "back to {numbers}", "zh": "退回{numbers}"}
_USES = {
    "en": "{expression}={target}, uses {numbers}",
    "zh": "{expression}={target}，用了{numbers}",
}
_COMMA = {"en": ", ", "zh": "，"}


@dataclass(frozen=True, slots=True)
class _Term:
    """A number on the table, and the expression over the given numbers that made it."""

    value: int
    text: str
    kind: Literal["number", "sum", "product"] = "number"


@dataclass(frozen=True, slots=True)
class _Move:
    left: _Term
    sign: str
    right: _Term
    value: int

    @property
    def expression(self) -> str:
        return f"{self.left.value}{self.sign}{self.right.value}"

    def term(self) -> _Term:
        """The outcome as an expression, with the brackets it needs and no others."""
        left, right = self.left.text, self.right.text
        if self.sign in "×÷" and self.left.kind == "sum":
            left = f"({left})"
        loose = {"+": (), "-": ("sum",), "×": ("sum",), "÷": ("sum", "product")}[self.sign]
        if self.right.kind in loose:
            right = f"({right})"
        kind = "sum" if self.sign in "+-" else "product"
        return _Term(self.value, f"{left}{self.sign}{right}", kind)

    def after(self, terms: Sequence[_Term]) -> list[_Term]:
        """The table once the move is made: the outcome, and what was not touched."""
        rest = [term for term in terms if term is not self.left and term is not self.right]
        return [self.term(), *rest]


def _moves(terms: Sequence[_Term], signs: str) -> list[_Move]:
    """All moves that change something and stay among the positive integers, none huge."""
    found: list[_Move] = []
    for index, first in enumerate(terms):
        for second in terms[index + 1 :]:
            large, small = (first, second) if first.value >= second.value else (second, first)
            found.append(_Move(first, "+", second, first.value + second.value))
            if large.value > small.value:
                found.append(_Move(large, "-", small, large.value - small.value))
            if small.value > 1 and "×" in signs:
                found.append(_Move(first, "×", second, first.value * second.value))
            if small.value > 1 and "÷" in signs and large.value % small.value == 0:
                found.append(_Move(large, "÷", small, large.value // small.value))
    return [move for move in found if move.value <= _LARGEST_VALUE]


class Countdown(Task):
    """Levels: two of three numbers with + -; all three with ×; with ÷; all of four."""

    name: ClassVar[str] = "countdown"
    num_levels: ClassVar[int] = len(_SHAPE_BY_LEVEL)

    def make(self, rng: random.Random, level: int, language: Language | None = None) -> Problem:
        check_level(self, level)
        shape = _SHAPE_BY_LEVEL[level - 1]
        while True:
            numbers = rng.sample(range(1, shape.largest + 1), shape.count)
            path, terms = [], [_Term(number, str(number)) for number in numbers]
            for _ in range(shape.used - 1):
                # After the first, every move builds on the outcome of the one before.
                moves = [m for m in _moves(terms, shape.signs) if not path or _uses(m, terms[0])]
                path.append(rng.choice(moves))
                terms = path[-1].after(terms)
            target = terms[0].value
            if target <= _LARGEST_TARGET and target not in numbers:
                break
        spoken = draw_language(rng, language)
        prompt = rng.choice(_QUESTIONS[spoken]).format(
            target=target,
            numbers=_COMMA[spoken].join(map(str, numbers)),
        )
        return Problem(
            task=self.name,
            level=level,
            language=spoken,
            prompt=prompt,
            answer=terms[0].text,
            key=f"{sorted(numbers)} {target}",
            data={
                "numbers": numbers,
                "target": target,
                "path": [move.expression for move in path],
            },
        )

    def solve(self, problem: Problem, rng: random.Random) -> Solution:
        search = _Search(problem, rng)
        expression = search.run()
        return Solution("\n".join(search.lines), f"\\boxed{{{expression}}}")

    def score(self, problem: Problem, completion: str) -> Score:
        """The boxed expression takes given numbers only, each at most once, and hits the target."""
        _, content = split_reasoning(completion)
        if content is None:
            return wrong("thinking never ends")
        got = final_answer(content)
        if got is None:
            return wrong("no answer")
        evaluated = evaluate_expression(got)
        if evaluated is None:
            return wrong("not an expression")
        value, used = evaluated
        if Counter(used) - Counter(problem.data["numbers"]):
            return wrong("numbers not given")
        return RIGHT if value == problem.data["target"] else wrong("misses the target")


def _uses(move: _Move, term: _Term) -> bool:
    return move.left is term or move.right is term


class _Search:
    """One telling of the search. The known path is only taken after the wrong tries drawn."""

    def __init__(self, problem: Problem, rng: random.Random):
        self.rng = rng
        self.language: Language = problem.language
        self.shape = _SHAPE_BY_LEVEL[problem.level - 1]
        self.numbers: list[int] = list(problem.data["numbers"])
        self.target: int = problem.data["target"]
        self.path: list[str] = list(problem.data["path"])
        self.tries_left = rng.randrange(self.shape.most_tries + 1)
        self.manner: Manner = draw_manner(rng)
        self.slipped = False
        self.lines: list[str] = []

    def run(self) -> str:
        """The expression that hits the target; `lines` tells how it was found."""
        terms = [_Term(number, str(number)) for number in self.numbers]
        hit = self._explore(terms, self.path)
        assert hit is not None, "the known path reaches the target"
        if self.manner == "check":
            self._check(hit.text)
        return hit.text

    def _explore(self, terms: list[_Term], path: list[str]) -> _Term | None:
        """Moves from this table: wrong ones, then the path's where there is one."""
        moves = _moves(terms, self.shape.signs)
        moves_to_go = self.shape.used - 1 - (len(self.numbers) - len(terms))
        planned = next((move for move in moves if path and move.expression == path[0]), None)
        others = [move for move in moves if move is not planned]
        self.rng.shuffle(others)
        tries: list[str] = []
        hit = None
        for move in self._until_spent(others, planned, moves_to_go):
            stated = self._state(move)
            if move.value == self.target:
                hit = move.term()
                tries.append(_YES[self.language].format(equation=stated))
            elif moves_to_go == 1:
                tries.append(_NOT[self.language].format(equation=stated, target=self.target))
            else:
                table = move.after(terms)
                self._say(_LEFT, equation=stated, numbers=self._listed(table))
                hit = self._explore(table, path[1:] if move is planned else [])
                if hit is None:
                    self._say(_BACK, numbers=self._listed(terms))
            if hit is not None:
                break
        self.lines += tries
        return hit

    def _until_spent(
        self, others: list[_Move], planned: _Move | None, moves_to_go: int
    ) -> Iterator[_Move]:
        """Wrong moves while the tries last to follow them to the end; then the planned one."""
        for num_tried, move in enumerate(others):
            enough = num_tried == _MOST_OFF_PATH if planned is None else self.rng.random() < 0.3
            if enough or self.tries_left < moves_to_go:
                break
            self.tries_left -= 1
            yield move
        if planned is not None:
            yield planned

    def _state(self, move: _Move) -> str:
        slips = self.manner == "slip" and not self.slipped
        self.slipped = self.slipped or slips
        return equation(
            move.expression, move.value, slips=slips, language=self.language, rng=self.rng
        )

    def _check(self, expression: str) -> None:
        evaluated = evaluate_expression(expression)
        assert evaluated is not None, "the search writes expressions"
        used = _COMMA[self.language].join(map(str, evaluated[1]))
        stated = _USES[self.language].format(
            expression=expression, target=self.target, numbers=used
        )
        self.lines.append(CHECK[self.language] + stated)

    def _listed(self, terms: Sequence[_Term]) -> str:
        return _COMMA[self.language].join(str(term.value) for term in terms)

    def _say(self, template: dict[str, str], **words: object) -> None:
        self.lines.append(template[self.language].format(**words))
