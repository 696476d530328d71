"""Equations and linear systems over the rationals, solved exactly."""

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Final

from rorqual.server.solver.polynomial import NotRead, Polynomial

_MAX_UNKNOWNS: Final = 4
_MAX_DIVISORS: Final = 512
_LARGEST_FACTORED: Final = 10**9


def solve_equation(equation: Polynomial) -> list[Fraction]:
    """Every rational solution of `equation` = 0 in its one variable, ascending.

    NotRead if there is a solution that is not rational (a root), or none or all numbers solve it
    in a way that this does not tell apart.
    """
    (name,) = equation.variables
    degree = equation.degree
    found: list[Fraction] = []
    coefficients = [equation.coefficient(name, power) for power in range(degree + 1)]
    while len(coefficients) > 3:
        root = _rational_root(coefficients)
        if root is None:
            raise NotRead
        found.append(root)
        coefficients = _divided(coefficients, root)
    found += _quadratic(coefficients)
    return sorted(set(found))


def _quadratic(coefficients: list[Fraction]) -> list[Fraction]:
    """Solutions of degree 2 or 1; NotRead if they are not rational."""
    if len(coefficients) == 2:
        return [-coefficients[0] / coefficients[1]]
    if len(coefficients) < 2:
        raise NotRead
    c, b, a = coefficients
    discriminant = b * b - 4 * a * c
    if discriminant < 0:
        raise NotRead
    root = _root(discriminant)
    return [(-b - root) / (2 * a), (-b + root) / (2 * a)]


def _root(value: Fraction) -> Fraction:
    up, down = math.isqrt(value.numerator), math.isqrt(value.denominator)
    if up * up != value.numerator or down * down != value.denominator:
        raise NotRead
    return Fraction(up, down)


def _rational_root(coefficients: list[Fraction]) -> Fraction | None:
    """A root by the rational root theorem; the lowest coefficient first."""
    common = math.lcm(*(c.denominator for c in coefficients))
    whole = [int(c * common) for c in coefficients]
    if whole[0] == 0:
        return Fraction(0)
    for up in _divisors(abs(whole[0])):
        for down in _divisors(abs(whole[-1])):
            for root in (Fraction(up, down), Fraction(-up, down)):
                if sum(c * root**power for power, c in enumerate(coefficients)) == 0:
                    return root
    return None


def _divided(coefficients: list[Fraction], root: Fraction) -> list[Fraction]:
    """The quotient by (x - root)."""
    quotient: list[Fraction] = []
    carry = Fraction(0)
    for coefficient in reversed(coefficients):
        carry = carry * root + coefficient
        quotient.append(carry)
    return quotient[-2::-1]


def _divisors(number: int) -> list[int]:
    if number > _LARGEST_FACTORED:
        raise NotRead
    found = [1]
    for prime, power in factorise(number):
        found = [d * prime**exponent for d in found for exponent in range(power + 1)]
        if len(found) > _MAX_DIVISORS:
            raise NotRead
    return found


def factorise(number: int) -> list[tuple[int, int]]:
    """(prime, exponent) pairs, ascending; NotRead above what trial division does at once."""
    if not 1 <= number <= 10**12:
        raise NotRead
    found: list[tuple[int, int]] = []
    divisor = 2
    while divisor * divisor <= number:
        power = 0
        while number % divisor == 0:
            number //= divisor
            power += 1
        if power:
            found.append((divisor, power))
        divisor += 1 if divisor == 2 else 2
    if number > 1:
        found.append((number, 1))
    return found


def solve_system(equations: Sequence[Polynomial]) -> dict[str, Fraction]:
    """The one solution of linear equations; NotRead if there is none, or more than one."""
    names = sorted(frozenset[str]().union(*(equation.variables for equation in equations)))
    if not 1 <= len(names) <= _MAX_UNKNOWNS or any(e.degree > 1 for e in equations):
        raise NotRead
    rows = [[e.coefficient(name, 1) for name in names] + [-e.coefficient("", 0)] for e in equations]
    rank = 0
    for column in range(len(names)):
        pivot = next((r for r in range(rank, len(rows)) if rows[r][column]), None)
        if pivot is None:
            raise NotRead
        rows[rank], rows[pivot] = rows[pivot], rows[rank]
        rows[rank] = [value / rows[rank][column] for value in rows[rank]]
        for r in range(len(rows)):
            if r != rank and rows[r][column]:
                factor = rows[r][column]
                rows[r] = [a - factor * b for a, b in zip(rows[r], rows[rank], strict=True)]
        rank += 1
    if any(row[-1] for row in rows[rank:]):
        raise NotRead
    return {name: rows[place][-1] for place, name in enumerate(names)}
