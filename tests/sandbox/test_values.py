"""Typed data crosses the border unchanged, and nothing else does."""

import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rorqual.sandbox.framing import FrameError, FrameReader, frame
from rorqual.sandbox.values import MAX_DEPTH, ValueRefused, decode_value, encode_value

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
)
KEYS = SCALARS | st.tuples(SCALARS, SCALARS)
TYPED = st.recursive(
    SCALARS | st.complex_numbers(allow_nan=False),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(KEYS, inner, max_size=4)
        | st.sets(KEYS, max_size=4)
    ),
    max_leaves=12,
)
PLAIN = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text("ab中", max_size=3), inner, max_size=4)
    ),
    max_leaves=12,
)


def shape(value: Any) -> Any:
    """The value with every type spelled out: `==` alone takes True for 1 and 1 for 1.0."""
    if type(value) in (list, tuple):
        return type(value), [shape(item) for item in value]
    if type(value) is dict:
        return dict, [(shape(k), shape(v)) for k, v in value.items()]
    if type(value) is set:
        return set, sorted(repr(shape(item)) for item in value)
    return type(value), repr(value)


@settings(max_examples=200, deadline=None)
@given(TYPED)
def test_typed_values_come_back_as_they_were(value: Any) -> None:
    assert shape(decode_value(encode_value(value, plain=False), plain=False)) == shape(value)


@settings(max_examples=200, deadline=None)
@given(PLAIN)
def test_plain_values_come_back_as_they_were(value: Any) -> None:
    assert shape(decode_value(encode_value(value, plain=True), plain=True)) == shape(value)


def test_plain_tuples_become_lists_and_nan_stays() -> None:
    assert decode_value(encode_value((1, (2,)), plain=True), plain=True) == [1, [2]]
    assert math.isnan(decode_value(encode_value(math.nan, plain=True), plain=True))


@pytest.mark.parametrize(
    "value", [{1: 1}, {1}, 1j, b"x", object(), range(3), frozenset(), int, Ellipsis, "\udcff"]
)
def test_other_values_are_refused_when_written(value: object) -> None:
    with pytest.raises(ValueRefused):
        encode_value(value, plain=True)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        '{"a": 1}',
        "[]",
        "[1]",
        '["x", 1]',
        '["t", 1]',
        '["s", 1]',
        '["c", 1.0, 2.0]',
        '["d", 1]',
        '["d", ["a"]]',
        '["d", ["a", 1, 2]]',
        '["d", [1, 1]]',
        '["d", [["l"], 1]]',
        '"\\ud800"',
        "1" * 5000,
        "[" * 100_000,
        '["l", ' * 40 + "1" + "]" * 40,
        b"\xff",
    ],
)
def test_other_texts_are_refused_when_read(text: str | bytes) -> None:
    with pytest.raises(ValueRefused):
        decode_value(text, plain=True)


@pytest.mark.parametrize("text", ['["s", ["l"]]', '["c", 1, 2]', '["d", [["s"], 1]]', '["f"]'])
def test_typed_texts_that_make_no_value_are_refused(text: str) -> None:
    with pytest.raises(ValueRefused):
        decode_value(text, plain=False)


def test_depth_ends_where_it_says() -> None:
    value: object = 1
    for _ in range(MAX_DEPTH):
        value = [value]
    assert decode_value(encode_value(value, plain=True), plain=True) == value
    with pytest.raises(ValueRefused, match="deeper"):
        encode_value([value], plain=True)
    with pytest.raises(ValueRefused):
        decode_value(json.dumps(["l", json.loads(encode_value(value, plain=True))]), plain=True)


@given(st.lists(st.binary(max_size=50)), st.integers(1, 7))
def test_frames_come_out_as_they_went_in(payloads: list[bytes], step: int) -> None:
    stream = b"".join(frame(payload) for payload in payloads)
    reader = FrameReader(limit=len(stream))
    pieces = [stream[i : i + step] for i in range(0, len(stream), step)]
    assert [found for piece in pieces for found in reader.feed(piece)] == payloads


def test_frames_beyond_the_limit_are_refused_before_they_are_read() -> None:
    with pytest.raises(FrameError, match="longer"):
        FrameReader(limit=100).feed(b"\xff\xff\xff\xff")
    reader = FrameReader(limit=10)
    assert reader.feed(frame(b"abc")) == [b"abc"]
    with pytest.raises(FrameError, match="more"):
        reader.feed(frame(b"abcd"))
