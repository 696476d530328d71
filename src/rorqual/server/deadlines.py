"""How long a client wants to wait for its whole answer: a header, for every wire format."""

import math
from collections.abc import Mapping
from typing import Final

from rorqual.errors import RequestError

DEADLINE_HEADER: Final = "x-rorqual-deadline"


def wanted_seconds(headers: Mapping[str, str]) -> float | None:
    """Seconds from now in which the answer is of use; None if the request does not say."""
    text = headers.get(DEADLINE_HEADER)
    if text is None:
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise RequestError(
            f"X-Rorqual-Deadline: {text[:40]!r}; expected seconds above 0, as in 2.5",
            code="invalid_deadline",
            param="X-Rorqual-Deadline",
        )
    return seconds
