"""How long a client wants to wait for its whole answer: a header, for every wire format; and how
long it may."""

import math
from collections.abc import Mapping
from typing import Final

from rorqual.errors import RequestError
from rorqual.platform import DeadlineExceeded
from rorqual.server.services import Asker, Services

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


def deadline_of(services: Services, asker: Asker, opened_seconds: float) -> float:
    """The moment by which a request ends: ours, or sooner where its client says so."""
    most = services.config.admission.deadline_seconds
    wanted = most if asker.deadline_seconds is None else asker.deadline_seconds
    return opened_seconds + min(most, wanted)


def too_late() -> DeadlineExceeded:
    """Said where nothing was delivered, so nothing costs."""
    return DeadlineExceeded("the deadline passed before the first token; allow more time", 1.0)
