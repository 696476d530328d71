"""Numbers as people read them: bytes, FLOPs, counts, durations, money.

Money that is counted, not shown, is an integer of nano-units (1e-9 of the currency), so that sums
are exact: a price of 0.07 per million tokens is 70 nano-units a token.
"""

from decimal import Decimal, InvalidOperation
from typing import Final

NANO: Final = 10**9

_DECIMAL = ("", "K", "M", "G", "T", "P", "E", "Z", "Y")
_COUNT = ("", "K", "M", "B", "T")


def _scaled(value: float, suffixes: tuple[str, ...], digits: int) -> str:
    magnitude, index = abs(value), 0
    while magnitude >= 1000 and index < len(suffixes) - 1:
        magnitude /= 1000
        value /= 1000
        index += 1
    text = f"{value:.0f}" if index == 0 else f"{value:.{digits}f}"
    return f"{text}{suffixes[index]}"


def format_bytes(num_bytes: float) -> str:
    """70272 -> '70.27 KB' (decimal units, as the papers and disk makers use)."""
    text = _scaled(num_bytes, _DECIMAL, 2)
    number = text.rstrip("KMGTPEZY")
    return f"{number} {text[len(number) :]}B"


def format_count(count: float) -> str:
    """671e9 -> '671.00B', with B for billions as model sizes are written."""
    return _scaled(count, _COUNT, 2)


def format_flops(flops: float) -> str:
    """2.5e11 -> '250.00 GFLOP'."""
    text = _scaled(flops, _DECIMAL, 2)
    number = text.rstrip("KMGTPEZY")
    return f"{number} {text[len(number) :]}FLOP"


def format_seconds(seconds: float) -> str:
    """95 -> '1m35s'; 4000 -> '1h07m'."""
    if seconds < 60:
        return f"{seconds:.0f}s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}m{rest:02d}s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02d}m"


def format_usd(amount_usd: float) -> str:
    """5.576e6 -> '$5,576,000'; cents only below a thousand dollars."""
    return f"${amount_usd:,.2f}" if abs(amount_usd) < 1000 else f"${amount_usd:,.0f}"


def parse_nano(amount: Decimal | str | int) -> int:
    """'2.19' -> 2190000000: money as integer nano-units, exactly or not at all."""
    try:
        nano = Decimal(amount) * NANO
    except InvalidOperation:
        raise ValueError(f"amount={amount!r} is not a decimal number, as in 2.19") from None
    if not nano.is_finite() or nano != nano.to_integral_value():
        raise ValueError(f"amount={amount} is finer than a nano-unit; use at most 9 decimals")
    return int(nano)


def format_nano(amount_nano: int) -> str:
    """2190000000 -> '2.19', -1 -> '-0.000000001': exact, with at least two decimals."""
    whole, rest = divmod(abs(amount_nano), NANO)
    decimals = f"{rest:09d}".rstrip("0").ljust(2, "0")
    return f"{'-' if amount_nano < 0 else ''}{whole}.{decimals}"
