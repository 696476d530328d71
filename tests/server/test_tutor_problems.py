"""A hundred problems as people type them, through the endpoint: none is verified wrongly."""

import itertools
import math
import random
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import httpx
import pytest

from tests.server.conftest import ServerFactory

BY_HAND = Path(__file__).parent / "problems.toml"
NUM_MADE = 40


@dataclass(frozen=True)
class Typed:
    """A problem with answers whose truth does not come from the solver."""

    text: str
    right: tuple[str, ...] = ()
    wrong: tuple[str, ...] = ()
    can_tell: bool = True


def by_hand() -> list[Typed]:
    rows = tomllib.loads(BY_HAND.read_text("utf-8"))["problems"]
    return [
        Typed(
            row["text"],
            tuple(row.get("right", ())),
            tuple(row["wrong"]),
            row.get("can_tell", True),
        )
        for row in rows
    ]


def made(rng: random.Random) -> Iterator[Typed]:
    """The answer first, the problem around it; or truth by counting, not by algebra."""
    for kind in itertools.cycle((_fractions, _linear, _quadratic, _system, _gcd, _lcm, _prime,
                                 _factors, _remainder, _chain)):  # fmt: skip
        yield kind(rng)


def _fractions(rng: random.Random) -> Typed:
    a, b, c, d = (rng.randint(2, 30) for _ in range(4))
    up, down = a * d + c * b, b * d
    return Typed(f"{a}/{b} + {c}/{d}", (f"{up}/{down}",), (f"{a + c}/{b + d}", f"{down}/{up}1"))


def _linear(rng: random.Random) -> Typed:
    root, a, c = rng.randint(-20, 20), rng.randint(2, 9), rng.randint(-30, 30)
    left = rng.choice([f"{a}x + {c} = {a * root + c}", f"{a}(x - {c}) = {a * (root - c)}"])
    text = rng.choice([f"Solve {left.replace('+ -', '- ').replace('- -', '+ ')}", f"解方程 {left}"])
    return Typed(text, (f"x = {root}", str(root)), (f"x = {root + 1}", f"x = {-root - 1}"))


def _quadratic(rng: random.Random) -> Typed:
    p, q = rng.sample(range(-9, 10), 2)
    text = f"x^2 + {-(p + q)}x + {p * q} = 0".replace("+ -", "- ")
    return Typed(text, (f"x = {q} or x = {p}",), (f"x = {p}", f"x = {p}, x = {q + 20}"))


def _system(rng: random.Random) -> Typed:
    x, y = rng.sample(range(-9, 10), 2)
    a, b, c, d = 1, rng.randint(1, 5), rng.randint(1, 5), -rng.randint(1, 5)
    text = f"{a}x + {b}y = {a * x + b * y}; {c}x - {-d}y = {c * x + d * y}"
    return Typed(f"Solve the system {text}", (f"x = {x}, y = {y}",), (f"x = {y}, y = {x}",))


def _gcd(rng: random.Random) -> Typed:
    a, b = rng.randint(2, 400), rng.randint(2, 400)
    truth = max(n for n in range(1, min(a, b) + 1) if a % n == 0 == b % n)
    return Typed(f"求{a}和{b}的最大公因数", (str(truth),), (str(truth + 1), str(a * b)))


def _lcm(rng: random.Random) -> Typed:
    a, b = rng.randint(2, 40), rng.randint(2, 40)
    truth = next(n for n in range(1, a * b + 1) if n % a == 0 == n % b)
    return Typed(f"least common multiple of {a} and {b}", (str(truth),), (str(2 * truth), "1"))


def _prime(rng: random.Random) -> Typed:
    n = rng.randint(2, 400)
    is_prime = all(n % k for k in range(2, n))
    yes, no = ("yes", "no") if is_prime else ("no", "yes")
    return Typed(f"Is {n} a prime number?", (yes,), (no,))


def _factors(rng: random.Random) -> Typed:
    primes = sorted(rng.choices((2, 3, 5, 7, 11, 13), k=rng.randint(2, 5)))
    text = " * ".join(map(str, primes))
    return Typed(
        f"Factorize {math.prod(primes)}", (text,), (" * ".join(map(str, [*primes, 2])), "1")
    )


def _remainder(rng: random.Random) -> Typed:
    quotient, divisor = rng.randint(1, 90), rng.randint(2, 40)
    rest = rng.randrange(divisor)
    text = f"remainder when {quotient * divisor + rest} is divided by {divisor}"
    return Typed(text, (str(rest),), (str(quotient + divisor), str(rest + divisor)))


def _chain(rng: random.Random) -> Typed:
    total, text = Fraction(rng.randint(1, 99)), ""
    text = str(total)
    for _ in range(rng.randint(2, 5)):
        n = rng.randint(1, 99)
        if rng.random() < 0.5:
            total, text = total + n, f"{text} + {n}"
        else:
            total, text = total - n, f"{text} - {n}"
    return Typed(f"{text} =", (str(total),), (str(total + 1), str(-total - 1)))


PROBLEMS = [*by_hand(), *itertools.islice(made(random.Random(6)), NUM_MADE)]


@pytest.fixture(scope="module")
def http(start_server: ServerFactory) -> Iterator[httpx.Client]:
    server = start_server()
    with httpx.Client(base_url=server.url, headers={"x-rorqual": "1"}, timeout=60) as client:
        yield client


def verdict(http: httpx.Client, text: str, answer: str) -> str:
    reply = http.post("/api/tutor/verify", json={"text": text, "answer": answer})
    assert reply.status_code == 200, reply.text
    return reply.json()["verdict"]


def test_there_are_a_hundred_of_every_kind() -> None:
    assert len(PROBLEMS) >= 100
    assert sum(len(one.right) for one in PROBLEMS) >= 100
    assert sum(len(one.wrong) for one in PROBLEMS) >= 150


def test_no_wrong_answer_is_verified_and_no_right_one_is_called_wrong(http: httpx.Client) -> None:
    mistakes: list[tuple[str, str, str]] = []
    for one in PROBLEMS:
        for answer, allowed in (
            *((answer, {"verified"}) for answer in one.right),
            *((answer, {"wrong", "unverified"}) for answer in one.wrong if one.can_tell),
            *((answer, {"unverified"}) for answer in one.wrong if not one.can_tell),
        ):
            said = verdict(http, one.text, answer)
            if said not in allowed:
                mistakes.append((one.text, answer, said))
    assert mistakes == []


def test_an_exercise_shows_each_example_with_its_verdict(http: httpx.Client) -> None:
    body = {"text": "square(3) == 9, square(0) == 0", "answer": "def square(n):\n    return n + 6"}
    told = http.post("/api/tutor/verify", json=body).json()
    assert (told["verdict"], told["kind"]) == ("wrong", "program")
    assert [(step["text"], step["verdict"]) for step in told["steps"]] == [
        ("`square(3) == 9`", "verified"),
        ("`square(0) == 0`", "wrong"),
    ]
