"""Times as the interfaces say them."""

from datetime import UTC, datetime

from rorqual.errors import RequestError


def iso(seconds: float | None) -> str | None:
    """ISO 8601 in UTC."""
    if seconds is None:
        return None
    text = datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


def from_iso(text: str, param: str) -> float:
    """The moment that a client names."""
    try:
        found = datetime.fromisoformat(text)
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        raise RequestError(
            f"{param}: expected a time, as in 2026-01-31T16:00:00Z", param=param
        ) from None
