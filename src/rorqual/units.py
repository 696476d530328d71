"""Numbers as people read them: bytes, FLOPs, counts, durations, money."""

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
