"""The exact checker of homework: right, wrong, or not for it to say; never a guess."""

import time
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rorqual.server.solver import verify

RIGHT = [
    ("What is 38+47?", "85", "arithmetic"),
    ("计算1/2+1/3。", "5/6", "arithmetic"),
    (r"Compute \frac{3}{4}\times 8", r"\boxed{6}", "arithmetic"),
    ("25% * 80", "20", "arithmetic"),
    ("0.1+0.2", "0.3", "arithmetic"),
    ("Solve 2x+3=11 for x.", "x = 4", "equation"),
    ("Solve x^2-5x+6=0", "x=2 or x=3", "equation"),
    ("x^3-6x^2+11x-6=0", "1, 2, 3", "equation"),
    ("解方程 3(x-2)=2x+1", "x=7", "equation"),
    ("Solve: x+y=5, x-y=1", "x=3, y=2", "system"),
    ("解方程组 2x+y=7；x-y=2", "x=3，y=1", "system"),
    ("Find the gcd of 12 and 18", "6", "gcd"),
    ("求12和18的最小公倍数", "36", "lcm"),
    ("Prime factorization of 360", "2^3 * 3^2 * 5", "factors"),
    ("Is 91 prime?", "no", "prime"),
    ("What is the remainder when 17 is divided by 5?", "2", "remainder"),
]
UNKNOWN = [
    "Tom has 3+4 apples and eats 2. How many are left?",
    "A train goes 60 km in 1 hour; how far in 2?",
    "x^2 = 2",
    "x = x",
    "x + y = 3",
    "1/0",
    "2^9999",
    "(" * 300,
    "9" * 500,
    "2x+3=11 11 x",
    "",
]


@pytest.mark.parametrize(("text", "answer", "kind"), RIGHT)
def test_right_answers_are_verified_and_wrong_ones_not(text: str, answer: str, kind: str) -> None:
    found = verify(text, answer)
    assert (found.verdict, found.kind) == ("verified", kind)
    assert found.expected is not None and verify(text, found.expected).verdict == "verified"
    wrong = "yes" if kind == "prime" else "x=99, y=1" if kind == "system" else "99991"
    assert verify(text, wrong).verdict == "wrong"


@pytest.mark.parametrize("text", UNKNOWN)
def test_what_is_not_understood_is_not_judged(text: str) -> None:
    assert verify(text, "5").verdict == "unverified"


def test_each_line_of_working_is_judged() -> None:
    found = verify("Solve 3(x-2)=2x+1", "3x-6=2x+1\n3x-2x=1+7\nso I move it\nx=7")
    assert [step.verdict for step in found.steps] == ["verified", "wrong", "unverified"]
    assert found.verdict == "verified"


@settings(deadline=None)
@given(st.integers(-999, 999), st.integers(1, 99), st.sampled_from("+-*/"))
def test_arithmetic_agrees_with_fractions(a: int, b: int, sign: str) -> None:
    value = {"+": Fraction(a + b), "-": Fraction(a - b), "*": Fraction(a * b),
             "/": Fraction(a, b)}[sign]  # fmt: skip
    assert verify(f"{a}{sign}{b}", str(value)).verdict == "verified"
    assert verify(f"{a}{sign}{b}", str(value + 1)).verdict == "wrong"


@settings(deadline=None)
@given(st.text(alphabet="0123456789xy+-*/^()=., solveand求和", max_size=60), st.text(max_size=30))
def test_no_text_breaks_it_or_takes_long(text: str, answer: str) -> None:
    began = time.process_time()
    assert verify(text, answer).verdict in ("verified", "wrong", "unverified")
    assert time.process_time() - began < 2
