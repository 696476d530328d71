"""Reading answers out of model text: bounded parsers that never evaluate anything.

Every function takes hostile input: length is cut before parsing, numbers are bounded, nothing is
quadratic. What does not parse is None, never an exception.
"""

import re
from fractions import Fraction

MAX_COMPLETION_CHARACTERS = 200_000
_MAX_ANSWER_CHARACTERS = 200
_MAX_NUMBER_CHARACTERS = 64
_MAX_EXPRESSION_CHARACTERS = 128
_MAX_DEPTH = 24
_MAX_MAGNITUDE = 10**24

THINK_BEGIN, THINK_END = "<think>", "</think>"
_BOX = "\\boxed{"
_ANSWER_BEGIN, _ANSWER_END = "<answer>", "</answer>"
_NUMBER = re.compile(r"([+-]?) *(\d+)(?:\.(\d+))?(?: */ *(\d+))?")
_LATEX_FRACTION = re.compile(r"([+-]?)\\[dt]?frac\{([+-]?\d+)\}\{(\d+)\}")
_GROUPED = re.compile(r"[+-]?\d{1,3}(?:,\d{3})+(?:\.\d+)?")
_TOKEN = re.compile(r"\s*([0-9]+|[-+*/()×÷−]|\\times|\\cdot|\\div)")
_SIGN = {"×": "*", "\\times": "*", "\\cdot": "*", "÷": "/", "\\div": "/", "−": "-"}


def split_reasoning(completion: str) -> tuple[str | None, str | None]:
    """(thinking, reply): thinking None if there is none, reply None if the thinking never ends."""
    text = completion[:MAX_COMPLETION_CHARACTERS].strip()
    thinking, marker, content = text.rpartition(THINK_END)
    if THINK_BEGIN in content:  # thinking that begins, or begins again, and never ends
        return text.partition(THINK_BEGIN)[2].strip("\n"), None
    if not marker:
        return None, text
    # The opening marker may have been part of the prompt.
    return thinking.removeprefix(THINK_BEGIN).strip("\n"), content.strip()


def final_answer(content: str) -> str | None:
    """The text in the last \\boxed{...} or <answer>...</answer>, None without one."""
    text = content[-MAX_COMPLETION_CHARACTERS:]
    box, tag = text.rfind(_BOX), text.rfind(_ANSWER_BEGIN)
    if box < 0 and tag < 0:
        return None
    if tag > box:
        end = text.find(_ANSWER_END, tag)
        inner = text[tag + len(_ANSWER_BEGIN) : end] if end >= 0 else None
    else:
        inner = _balanced(text, box + len(_BOX))
    if inner is None or len(inner) > _MAX_ANSWER_CHARACTERS:
        return None
    return inner.strip()


def _balanced(text: str, begin: int) -> str | None:
    """Up to the brace that closes the one before `begin`."""
    depth = 1
    for index in range(begin, min(len(text), begin + _MAX_ANSWER_CHARACTERS + 2)):
        depth += (text[index] == "{") - (text[index] == "}")
        if depth == 0:
            return text[begin:index]
    return None


def parse_number(text: str) -> Fraction | None:
    """An integer, decimal or fraction (7, -1.5, 3/4, 1,234, \\frac{3}{4}); None if it is none."""
    text = text.strip().strip("$").strip().replace("−", "-")
    if not text or len(text) > _MAX_NUMBER_CHARACTERS or not text.isascii():
        return None
    if _GROUPED.fullmatch(text):
        text = text.replace(",", "")
    latex = _LATEX_FRACTION.fullmatch(text)
    if latex:
        sign, above, below = latex.groups()
        value = Fraction(int(above), int(below)) if int(below) else None
        return -value if value is not None and sign == "-" else value
    match = _NUMBER.fullmatch(text)
    if match is None:
        return None
    sign, whole, decimals, below = match.groups()
    if decimals and below:
        return None
    if below is not None:
        if int(below) == 0:
            return None
        value = Fraction(int(whole), int(below))
    else:
        value = Fraction(int(whole + (decimals or "")), 10 ** len(decimals or ""))
    return -value if sign == "-" else value


def is_same_answer(got: str, wanted: str) -> bool:
    """Equal as numbers where the wanted one is a number, else as text up to case and spaces."""
    number = parse_number(wanted)
    if number is not None:
        return parse_number(got) == number
    return normal_text(got) == normal_text(wanted)


def normal_text(text: str) -> str:
    """Case, spaces and full-width punctuation set aside; a space between digits stays one."""
    text = " ".join(text.split()).strip("$ ").casefold()
    text = text.translate({0xFF0C: ",", 0x3001: ",", 0xFF1A: ":", 0xFF1B: ";"})
    return re.sub(r"(?<!\d) | (?!\d)", "", text)


def evaluate_expression(text: str) -> tuple[Fraction, list[int]] | None:
    """Value of + - * / over integers with brackets, and the integers used, in order.

    None if it is anything else, too long, too deep, too large, or divides by zero.
    """
    if len(text) > _MAX_EXPRESSION_CHARACTERS:
        return None
    tokens: list[str] = []
    position = 0
    text = text.strip()
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            return None
        tokens.append(_SIGN.get(match[1], match[1]))
        position = match.end()
    reader = _ExpressionReader(tokens)
    value = reader.sum(0)
    if value is None or reader.position != len(tokens):
        return None
    return value, reader.integers


class _ExpressionReader:
    """Recursive descent over tokens; None means it is no expression."""

    def __init__(self, tokens: list[str]):
        self.tokens, self.position = tokens, 0
        self.integers: list[int] = []

    def _take(self, *wanted: str) -> str | None:
        if self.position < len(self.tokens) and self.tokens[self.position] in wanted:
            self.position += 1
            return self.tokens[self.position - 1]
        return None

    def sum(self, depth: int) -> Fraction | None:
        """product (('+' | '-') product)*"""
        value = self._product(depth)
        while value is not None and (sign := self._take("+", "-")):
            right = self._product(depth)
            if right is None:
                return None
            value = _bounded(value + right if sign == "+" else value - right)
        return value

    def _product(self, depth: int) -> Fraction | None:
        value = self._atom(depth)
        while value is not None and (sign := self._take("*", "/")):
            right = self._atom(depth)
            if right is None or (sign == "/" and right == 0):
                return None
            value = _bounded(value * right if sign == "*" else value / right)
        return value

    def _atom(self, depth: int) -> Fraction | None:
        if depth > _MAX_DEPTH:
            return None
        if self._take("-"):
            inner = self._atom(depth + 1)
            return None if inner is None else -inner
        if self._take("("):
            inner = self.sum(depth + 1)
            return inner if inner is not None and self._take(")") else None
        if self.position < len(self.tokens) and self.tokens[self.position].isdigit():
            value = int(self.tokens[self.position])
            self.position += 1
            self.integers.append(value)
            return _bounded(Fraction(value))
        return None


def _bounded(value: Fraction) -> Fraction | None:
    large = abs(value.numerator) > _MAX_MAGNITUDE or value.denominator > _MAX_MAGNITUDE
    return None if large else value
