"""Money as text and as integers."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rorqual.units import format_nano, parse_nano


def test_amounts_read_as_people_write_them() -> None:
    assert [parse_nano(amount) for amount in ("2.19", 3, Decimal("0.000000001"), "-1e-9")] == [
        2_190_000_000,
        3_000_000_000,
        1,
        -1,
    ]
    assert [format_nano(nano) for nano in (0, 70_000_000, -1, 1_500_000_000)] == [
        "0.00",
        "0.07",
        "-0.000000001",
        "1.50",
    ]


@pytest.mark.parametrize("amount", ["0.0000000001", "ten", "", "NaN", "Infinity"])
def test_an_amount_that_is_not_exact_is_refused(amount: str) -> None:
    with pytest.raises(ValueError, match="amount="):
        parse_nano(amount)


@given(st.integers(-(10**18), 10**18))
def test_every_amount_survives_being_written(nano: int) -> None:
    assert parse_nano(format_nano(nano)) == nano
