"""Expressions as people type them, read into polynomials with rational coefficients.

Everything is bounded (length, depth, degree, size of numbers), so that no text takes long. What is
no polynomial (a variable in a denominator, a root) is not read at all: the caller then says that it
cannot tell.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

MAX_CHARACTERS: Final = 400
_MAX_DEPTH: Final = 40
_MAX_DEGREE: Final = 6
_MAX_TERMS: Final = 64
_MAX_EXPONENT: Final = 64
_MAX_BITS: Final = 400
_SIGNS: Final = str.maketrans(
    {
        "×": "*", "·": "*", "∙": "*", "⋅": "*", "÷": "/", "∶": "/", "−": "-", "–": "-", "－": "-",
        "＋": "+", "＊": "*", "／": "/", "（": "(", "）": ")", "＝": "=", "：": ":", "［": "(",
        "］": ")", "[": "(", "]": ")", "{": "(", "}": ")", "⁄": "/", "，": ",", "．": ".",
    }
)  # fmt: skip
_POWERS: Final = {"²": "^2", "³": "^3", "**": "^"}
_TOKEN: Final = re.compile(r"\s*(?:(\d+\.\d+|\d+|\.\d+)|([a-zA-Z])|([-+*/^()%]))")

Monomial = tuple[tuple[str, int], ...]


class NotRead(Exception):
    """The text is no expression of the kind that is read here."""


@dataclass(frozen=True, slots=True)
class Polynomial:
    """Coefficients by monomial; no coefficient is zero."""

    terms: Mapping[Monomial, Fraction]

    @classmethod
    def constant(cls, value: Fraction) -> "Polynomial":
        """A number."""
        return cls({(): value} if value else {})

    @property
    def variables(self) -> frozenset[str]:
        """The letters in it."""
        return frozenset(name for monomial in self.terms for name, _ in monomial)

    @property
    def degree(self) -> int:
        """The highest sum of exponents."""
        return max((sum(power for _, power in m) for m in self.terms), default=0)

    @property
    def value(self) -> Fraction:
        """The number it is; NotRead if it has variables."""
        if self.variables:
            raise NotRead
        return self.terms.get((), Fraction(0))

    def coefficient(self, name: str, power: int) -> Fraction:
        """Of a power of the only variable."""
        return self.terms.get(((name, power),) if power else (), Fraction(0))

    def at(self, values: Mapping[str, Fraction]) -> Fraction:
        """Its value where every variable has one."""
        total = Fraction(0)
        for monomial, coefficient in self.terms.items():
            for name, power in monomial:
                coefficient *= values[name] ** power
            total += coefficient
        return _bounded(total)

    def plus(self, other: "Polynomial", factor: int = 1) -> "Polynomial":
        """Sum, or difference with factor -1."""
        terms = dict(self.terms)
        for monomial, coefficient in other.terms.items():
            terms[monomial] = terms.get(monomial, Fraction(0)) + factor * coefficient
        return _made(terms)

    def times(self, other: "Polynomial") -> "Polynomial":
        """Product."""
        terms: dict[Monomial, Fraction] = {}
        for left, a in self.terms.items():
            for right, b in other.terms.items():
                powers = dict(left)
                for name, power in right:
                    powers[name] = powers.get(name, 0) + power
                monomial = tuple(sorted(powers.items()))
                terms[monomial] = terms.get(monomial, Fraction(0)) + a * b
        return _made(terms)

    def over(self, other: "Polynomial") -> "Polynomial":
        """Quotient by a number."""
        divisor = other.value
        if not divisor:
            raise NotRead
        return _made({monomial: c / divisor for monomial, c in self.terms.items()})

    def power(self, exponent: int) -> "Polynomial":
        """A whole power; negative only of numbers."""
        if abs(exponent) > _MAX_EXPONENT or (self.variables and not 0 <= exponent <= _MAX_DEGREE):
            raise NotRead
        if not self.variables:
            if not self.value and exponent <= 0:
                raise NotRead
            return Polynomial.constant(_bounded(_bounded(self.value) ** exponent))
        found = Polynomial.constant(Fraction(1))
        for _ in range(exponent):
            found = found.times(self)
        return found


def read_expression(text: str) -> Polynomial:
    """The whole text as one expression; NotRead if it is none."""
    return _Reader(text).whole()


def plain(text: str) -> str:
    """The same with keyboard characters, and LaTeX's commonest commands as what they mean."""
    text = re.sub(r"\\d?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}", r"((\1)/(\2))", text)
    text = re.sub(r"\\(?:times|cdot)\b", "*", text)
    text = re.sub(r"\\div\b", "/", text)
    text = re.sub(r"\\(?:left|right|quad|,|;)|[$]|\\[()\[\]]", " ", text)
    text = text.translate(_SIGNS)
    for mark, power in _POWERS.items():
        text = text.replace(mark, power)
    return re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", text)


class _Reader:
    """Recursive descent: sum, product (also implied: 2x, 3(x+1)), power, atom."""

    def __init__(self, text: str) -> None:
        if len(text) > MAX_CHARACTERS:
            raise NotRead
        self._tokens: list[str] = []
        position, text = 0, text.rstrip()
        while position < len(text):
            match = _TOKEN.match(text, position)
            if match is None:
                raise NotRead
            self._tokens.append(match.group().strip())
            position = match.end()
        self._at = 0

    def whole(self) -> Polynomial:
        found = self._sum(0)
        if self._at != len(self._tokens):
            raise NotRead
        return found

    def _peek(self) -> str:
        return self._tokens[self._at] if self._at < len(self._tokens) else ""

    def _take(self, signs: str) -> str:
        token = self._peek()
        if token and token in signs:
            self._at += 1
            return token
        return ""

    def _sum(self, depth: int) -> Polynomial:
        if depth > _MAX_DEPTH:
            raise NotRead
        found = self._product(depth)
        while sign := self._take("+-"):
            found = found.plus(self._product(depth), 1 if sign == "+" else -1)
        return found

    def _product(self, depth: int) -> Polynomial:
        found, divides = self._signed(depth), False
        while True:
            if sign := self._take("*/"):
                divides = sign == "/"
                right = self._signed(depth)
                found = found.over(right) if divides else found.times(right)
            elif self._peek() == "(" or self._peek().isalpha():
                if divides:  # 6/2(1+2), 1/2x: people read them in two ways
                    raise NotRead
                found = found.times(self._power(depth))
            else:
                return found

    def _signed(self, depth: int) -> Polynomial:
        sign = 1
        while token := self._take("+-"):
            sign = -sign if token == "-" else sign
        found = self._power(depth)
        return found if sign > 0 else Polynomial({}).plus(found, -1)

    def _power(self, depth: int) -> Polynomial:
        base = self._atom(depth)
        if not self._take("^"):
            return base
        negative = bool(self._take("-"))
        exponent = self._atom(depth + 1).value
        if exponent.denominator != 1 or self._peek() == "^":
            raise NotRead
        return base.power(-int(exponent) if negative else int(exponent))

    def _atom(self, depth: int) -> Polynomial:
        token = self._peek()
        self._at += 1
        if token == "(":
            found = self._sum(depth + 1)
            if not self._take(")"):
                raise NotRead
        elif token.isalpha():
            found = Polynomial({((token.lower(), 1),): Fraction(1)})
        elif token[:1].isdigit() or token.startswith("."):
            found = Polynomial.constant(_bounded(Fraction(token)))
        else:
            raise NotRead
        if self._peek() == "%":
            self._at += 1
            found = found.over(Polynomial.constant(Fraction(100)))
        return found


def _made(terms: dict[Monomial, Fraction]) -> Polynomial:
    found = Polynomial({m: _bounded(c) for m, c in terms.items() if c})
    if found.degree > _MAX_DEGREE or len(found.terms) > _MAX_TERMS:
        raise NotRead
    return found


def _bounded(value: Fraction) -> Fraction:
    if value.numerator.bit_length() > _MAX_BITS or value.denominator.bit_length() > _MAX_BITS:
        raise NotRead
    return value
