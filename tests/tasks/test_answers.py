"""Reading answers: what is written comes back, what is hostile is None, and nothing raises."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from types import FrameType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rorqual.tasks.answers import (
    MAX_COMPLETION_CHARACTERS,
    evaluate_expression,
    final_answer,
    is_same_answer,
    normal_text,
    parse_number,
    split_reasoning,
)

# A shared machine may be slow: no example has a deadline.
patient = settings(deadline=None, max_examples=100)

FRAGMENTS = (
    *"<think> </think> <answer> </answer> \\boxed{ \\frac{3}{4} \\times \\div ** 7 word".split(),
    *"{}()+-*/.,=$（²１½−×÷\n\x00\u2028 ",
    "__import__('os')",
    "9" * 70,
)
SCRAPS = st.lists(st.sampled_from(FRAGMENTS), max_size=12).map("".join) | st.text(max_size=40)
PLAIN = st.text(st.characters(codec="utf-8", exclude_characters="<>{}\\"), max_size=60)


# Numbers


@patient
@given(st.fractions(max_denominator=10**6))
def test_a_written_fraction_or_integer_is_read_back(value: Fraction) -> None:
    assert parse_number(str(value)) == value
    assert parse_number(f" ${value}$ ") == value
    sign = "-" if value < 0 else ""
    latex = f"{sign}\\frac{{{abs(value.numerator)}}}{{{value.denominator}}}"
    assert parse_number(latex) == value


@patient
@given(st.integers(-(10**15), 10**15), st.integers(0, 6))
def test_decimals_and_grouped_thousands_are_read_exactly(number: int, places: int) -> None:
    value = Fraction(number, 10**places)
    assert parse_number(f"{Decimal(number).scaleb(-places):f}") == value
    assert parse_number(f"{number:,}") == number


@patient
@given(SCRAPS)
def test_no_text_makes_a_parser_raise(text: str) -> None:
    parse_number(text)
    evaluate_expression(text)
    final_answer(text)
    split_reasoning(text)
    is_same_answer(text, "7")
    assert is_same_answer(text, text) or parse_number(text) is not None


@pytest.mark.parametrize(
    "text",
    (
        *"1/0 \\frac{1}{0} \\frac{1}{2}{3} 1e3 0x10 １２ 1.5/2 --1 1,23 . ½ nan inf 7.".split(),
        *("", " ", "+", "1 2", "1_000", "3 apples", "1/-2", "9" * 65),
    ),
)
def test_what_is_no_number_is_none(text: str) -> None:
    assert parse_number(text) is None


def test_equal_numbers_are_equal_answers_and_neighbours_are_not() -> None:
    for got in ("3/4", "6/8", "0.75", "\\frac{3}{4}", "\\dfrac{3}{4}", "$ 3 / 4 $", "+3/4"):
        assert is_same_answer(got, "3/4")
    for got in ("-3/4", "4/3", "0.7501", "3", "", "3/4/1", "x=3/4"):
        assert not is_same_answer(got, "3/4")
    assert is_same_answer("−5", "-5")


def test_text_is_compared_up_to_case_spaces_and_full_width_marks() -> None:
    assert is_same_answer("3, 12、 45", "3，12,45")
    assert is_same_answer(" Red  Ball ", "redball")
    assert not is_same_answer("1 2", "12")
    assert not is_same_answer("3 5, 12", "35, 12")
    assert normal_text("1 \n 2 , a b") == "1 2,ab"
    # Nothing beyond a limit is left out of the comparison.
    assert not is_same_answer("a" * 200, "a" * 201)


# Expressions


@dataclass(frozen=True)
class Tree:
    """An expression, its value (None: a division by zero inside) and its integers in order."""

    text: str
    value: Fraction | None
    integers: list[int]


def join(left: Tree, sign: str, right: Tree) -> Tree:
    operations: dict[str, Callable[[Fraction, Fraction], Fraction]] = {
        "+": lambda a, b: a + b,
        "-": lambda a, b: a - b,
        "*": lambda a, b: a * b,
        "/": lambda a, b: a / b,
        "×": lambda a, b: a * b,
        "÷": lambda a, b: a / b,
        "\\times ": lambda a, b: a * b,
    }
    value = None
    if left.value is not None and right.value is not None and (right.value or sign not in "/÷"):
        value = operations[sign](left.value, right.value)
    return Tree(f"({left.text}{sign}{right.text})", value, left.integers + right.integers)


LEAVES = st.integers(0, 99).map(lambda n: Tree(str(n), Fraction(n), [n]))
SIGNS = st.sampled_from(["+", "-", "*", "/", "×", "÷", "\\times "])
TREES = st.recursive(
    LEAVES, lambda below: st.builds(join, below, SIGNS, below), max_leaves=8
).filter(lambda tree: len(tree.text) <= 128)


@patient
@given(TREES)
def test_an_expression_has_the_value_of_its_tree(tree: Tree) -> None:
    expected = None if tree.value is None else (tree.value, tree.integers)
    assert evaluate_expression(tree.text) == expected


@patient
@given(st.lists(st.tuples(st.sampled_from("+-*/"), st.integers(1, 20)), max_size=8))
def test_without_brackets_products_bind_tighter_and_go_left_to_right(
    rest: list[tuple[str, int]],
) -> None:
    text = "7" + "".join(f" {sign}{number}" for sign, number in rest)
    total, product = Fraction(0), Fraction(7)
    for sign, number in rest:
        if sign in "*/":
            product = product * number if sign == "*" else product / number
        else:
            total, product = total + product, Fraction(number if sign == "+" else -number)
    assert evaluate_expression(text) == (total + product, [7, *(number for _, number in rest)])


@pytest.mark.parametrize(
    "text",
    (
        *"() 1+ +1 2(3) (1 1) 2**3 9**9**9 1//2 1/0 5/(3-3) x+1 1.5+1 1e9 3=3 ² １+１".split(),
        *("", "1 2", "[1]", "1,2", "__import__('os')", "\\frac{1}{2}"),
        *("9" * 129, "9" * 25, "*".join(["99999"] * 6)),
        *("(" * 60 + "1" + ")" * 60, "-" * 60 + "1"),
    ),
)
def test_what_is_no_bounded_expression_is_none(text: str) -> None:
    assert evaluate_expression(text) is None


# Boxes and thinking


@patient
@given(SCRAPS, PLAIN, PLAIN)
def test_the_last_box_counts(before: str, inner: str, after: str) -> None:
    assert final_answer(f"{before}\\boxed{{{inner}}}{after}") == inner.strip()
    assert final_answer(f"{before}<answer>{inner}</answer>{after}") == inner.strip()


def test_boxes_nest_and_the_last_one_is_not_replaced_by_an_earlier_one() -> None:
    assert final_answer("\\boxed{\\frac{3}{4}}") == "\\frac{3}{4}"
    assert final_answer("\\boxed{1} and \\boxed{2}") == "2"
    assert final_answer("\\boxed{1} and <answer>2</answer>") == "2"
    assert final_answer("<answer>\\boxed{5}</answer>") == "5"
    for unfinished in (
        "\\boxed{1} \\boxed{2",
        "\\boxed{1} <answer>2",
        "\\boxed{" + "1" * 201 + "}",
    ):
        assert final_answer(unfinished) is None
    assert final_answer("42") is None


@patient
@given(PLAIN, PLAIN)
def test_thinking_and_reply_are_split_at_the_markers(thinking: str, reply: str) -> None:
    expected = (thinking.strip("\n"), reply.strip())
    assert split_reasoning(f"<think>\n{thinking}\n</think>\n\n{reply}") == expected
    assert split_reasoning(f"<think>{thinking}")[1] is None
    assert split_reasoning(reply) == (None, reply.strip())


def test_thinking_may_have_begun_in_the_prompt() -> None:
    assert split_reasoning("a\n</think>\n\n\\boxed{1}") == ("a", "\\boxed{1}")


@patient
@given(SCRAPS)
def test_a_reply_holds_no_marker(text: str) -> None:
    _, reply = split_reasoning(text)
    assert reply is None or ("<think>" not in reply and "</think>" not in reply)


@pytest.mark.parametrize(
    "text", ["<think> \\boxed{5}", "so <think> \\boxed{5}", "<think>a</think> <think> \\boxed{5}"]
)
def test_a_box_inside_thinking_that_never_ends_is_no_answer(text: str) -> None:
    assert split_reasoning(text)[1] is None


def count_lines_run(work: Callable[[], object]) -> int:
    """Lines of Python that run: a measure of work no busy machine can change."""
    count = 0

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal count
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
    return count


@pytest.mark.parametrize(
    "text",
    (
        *(mark * 10**5 for mark in ("\\boxed{", "<think>", "</think>", "<answer>")),
        *(character * 10**6 for character in "9 }("),
        "\\boxed{" + "{" * 10**6,
        "\\boxed{" + "(" * 10**6 + "}",
    ),
    ids=lambda text: repr(text[:12]),
)
def test_huge_texts_take_bounded_work(text: str) -> None:
    assert len(text) > MAX_COMPLETION_CHARACTERS
    for parse in (final_answer, split_reasoning, parse_number, evaluate_expression):
        assert count_lines_run(lambda parse=parse: parse(text)) < 2000
