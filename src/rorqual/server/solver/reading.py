"""What a problem as typed asks for, in English or Chinese; nothing, if a word is not understood.

A problem counts as understood only if everything in it is mathematics or one of the few words that
frame it. A story is therefore never mistaken for the sum that occurs in it.
"""

import re
from dataclasses import dataclass
from typing import Final, Literal

from rorqual.server.solver.polynomial import NotRead, Polynomial, plain, read_expression

Kind = Literal["arithmetic", "equation", "system", "gcd", "lcm", "factors", "prime", "remainder"]

_GCD: Final = re.compile(
    r"greatest common (?:divisor|factor)|highest common factor|\b(?:gcd|gcf|hcf)\b|"
    r"最大公约数|最大公因数"
)
_LCM: Final = re.compile(r"(?:least|lowest|smallest) common multiple|\blcm\b|最小公倍数")
_FACTORS: Final = re.compile(
    r"prime factori[sz]ation|prime factors|factori[sz]e|分解质因数|质因数分解"
)
_PRIME: Final = re.compile(r"\bis\b.*\bprime\b|是(?:不是)?(?:质数|素数)")
_REMAINDER: Final = re.compile(
    r"remainder\s+(?:when|if|of|from)?\s*(?:dividing\s+(\d+)\s+by|(\d+)\s+(?:is\s+)?divided\s+by)"
    r"\s+(\d+)|(\d+)\s*mod(?:ulo)?\s*(\d+)|(\d+)\s*除以\s*(\d+)\s*的?余数"
)
# Something made of the answer is asked for, not the answer: a sum of roots, a count of factors.
_DERIVED: Final = re.compile(
    r"\b(?:sum|product|difference|number)\s+of\b|[的之](?:和|积|差|商|个数|平方)|多少个|几个"
)
_WORDS: Final = frozenset(
    """what whats is are the a an of and or for to find calculate compute evaluate simplify solve
    equation equations system value result answer how much please following exactly sum product
    difference work out it then when if number numbers solution solutions expression below
    determine""".split()
)
_CHINESE: Final = re.compile(
    r"计算|求解|求|解方程组|解方程|解|方程组|方程|等于多少|等于几|是多少|的值|结果|请问|请|答案|下列|以下|多少|"
    r"各|和|且|与|把|将|的|是|算一算|算|得|化简|吗|呢|一下"
)
# What a word leaves behind: no sign of mathematics, so that its neighbours are not joined; nor
# anything that a person types (a bar would hide an absolute value).
_GAP: Final = "\0"
_EDGE: Final = " \t\0"
_LONGEST_NUMBER: Final = 13  # digits
_FOR: Final = re.compile(r"\bfor\s+[a-z]\b")
_MATH: Final = re.compile(r"[0-9a-zA-Z.+\-*/^()%=\s]+")
# No exclamation mark: after a number it is a factorial.
_BREAKS: Final = re.compile(r"[,;；、。\n?？:]|\band\b|\\\\|和|且|与|\.(?=\s|$)")


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked: numbers, or an expression, or equations of the form polynomial = 0."""

    kind: Kind
    numbers: tuple[int, ...] = ()
    expression: Polynomial | None = None
    equations: tuple[Polynomial, ...] = ()


def read_question(text: str) -> Question:
    """What a problem asks for; NotRead if any of it is not understood."""
    raw, text = text, plain(text).lower()
    if _GAP in text or _mixes_divisions(raw):
        raise NotRead
    found = _number_question(text)
    if found is not None:
        if re.search(r"\d,\d", raw):  # gcd(24,180): two numbers, or one of five digits
            raise NotRead
        return found
    equations: list[Polynomial] = []
    expressions: list[Polynomial] = []
    for piece in _BREAKS.split(text):
        _read_piece(piece, equations, expressions)
    if equations and _DERIVED.search(text):
        raise NotRead
    if equations and not expressions:
        return _equation_question(equations)
    if len(expressions) == 1 and not equations and not expressions[0].variables:
        return Question("arithmetic", expression=expressions[0])
    raise NotRead


def _mixes_divisions(raw: str) -> bool:
    """5/6 ÷ 10/9 means fractions to people; (5/6) ÷ (10/9) says so."""
    outside = re.sub(r"[(（][^()（）]*[)）]", "", raw)
    return "÷" in outside and re.search(r"[/／]", outside) is not None


def _equation_question(equations: list[Polynomial]) -> Question:
    names = frozenset[str]().union(*(equation.variables for equation in equations))
    if len(equations) == 1 and len(names) == 1:
        return Question("equation", equations=tuple(equations))
    if len(names) >= 1 and len(equations) >= len(names):
        return Question("system", equations=tuple(equations))
    raise NotRead


def read_equation(text: str) -> Polynomial:
    """left - right of `left = right`."""
    left, equals, right = text.partition("=")
    if not equals or "=" in right:
        raise NotRead
    return read_expression(left).plus(read_expression(right), -1)


def _read_piece(piece: str, equations: list[Polynomial], expressions: list[Polynomial]) -> None:
    """One stretch of text: framing words, and at most one expression or equation."""
    rest = _without_words(_CHINESE.sub(_GAP, _FOR.sub(_GAP, piece))).strip(_EDGE)
    rest = rest.rstrip("= ." + _EDGE)  # 38+47=
    if not rest or (len(rest) == 1 and rest.isalpha()):  # `for x`
        return
    if not _MATH.fullmatch(rest):
        raise NotRead
    if "=" in rest:
        equations.append(read_equation(rest))
    else:
        expressions.append(read_expression(rest))


def _without_words(text: str) -> str:
    """Without framing words; any other word of several letters is not understood."""
    kept: list[str] = []
    for part in re.split(r"([a-z]{2,}|\ba\b(?=\s+[a-z]))", text):
        if re.fullmatch(r"[a-z]{2,}|a", part) and part in _WORDS:
            kept.append(_GAP)
        elif re.fullmatch(r"[a-z]{2,}", part) and not _is_product(part):
            raise NotRead
        else:
            kept.append(part)
    return "".join(kept)


def _is_product(part: str) -> bool:
    """xy is x times y: two letters from the end of the alphabet."""
    return len(part) == 2 and set(part) <= set("uvwxyz")


def _number_question(text: str) -> Question | None:
    """Questions about whole numbers, known by their words."""
    digits = re.findall(r"\d+", text)
    if any(len(found) > _LONGEST_NUMBER for found in digits):
        return None
    numbers = tuple(int(found) for found in digits)
    match = _REMAINDER.search(text)
    if match is not None:
        pair = tuple(int(found) for found in match.groups() if found is not None)
        if pair[1] == 0 or _says_more(text.replace(match.group(), " ")):
            raise NotRead
        return Question("remainder", numbers=pair)
    kinds: list[tuple[re.Pattern[str], Kind]] = [
        (_GCD, "gcd"),
        (_LCM, "lcm"),
        (_FACTORS, "factors"),
        (_PRIME, "prime"),
    ]
    for pattern, kind in kinds:
        if not pattern.search(text):
            continue
        if _DERIVED.search(text) or re.search(r"\d\.\d", text):
            raise NotRead
        rest = re.sub(r"\d+", " ", pattern.sub(" ", text))
        few = len(numbers) == 1 if kind in ("factors", "prime") else 2 <= len(numbers) <= 8
        if kind == "prime":
            rest = re.sub(r"\b(?:is|a|prime)\b", " ", rest)
        if not few or 0 in numbers or _says_more(rest):
            raise NotRead
        return Question(kind, numbers=numbers)
    return None


def _says_more(rest: str) -> bool:
    """Whether anything but framing words is left."""
    rest = _CHINESE.sub(" ", _BREAKS.sub(" ", rest))
    return bool(re.sub(r"[()\s\0]", "", _without_words(rest))) or bool(_DERIVED.search(rest))
