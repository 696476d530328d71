"""JSON as the server writes and reads it: what it is made by must not be seen."""

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rorqual.server import json_bytes

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)  # fmt: skip


@given(VALUES)
def test_what_is_written_is_what_the_standard_library_reads(value: Any) -> None:
    written = json_bytes.encode(value)
    assert b"\n" not in written  # an event is one line
    assert json.loads(written) == json_bytes.decode(written) == value


def test_large_integers_and_odd_keys_are_written_as_they_are() -> None:
    assert json_bytes.encode({"a": 2**70, 1: 2}) == b'{"a":1180591620717411303424,"1":2}'


def test_half_a_pair_becomes_a_question_mark() -> None:
    assert json_bytes.encode({"a": "x\ud83dy"}) == b'{"a":"x?y"}'
    assert json_bytes.decode(b'"x\\ud83dy"') == "x\ud83dy"  # an upstream may cut a pair in two


def test_numbers_that_are_none_are_null() -> None:
    assert json_bytes.encode([math.nan, -math.inf]) == b"[null,null]"


@pytest.mark.parametrize("data", [b"", b"{", b"no", b"\xff", b'{"a":1}{'])
def test_what_is_no_json_is_a_value_error(data: bytes) -> None:
    with pytest.raises((json.JSONDecodeError, UnicodeDecodeError)):
        json_bytes.decode(data)
