"""One JSON line a request, on stderr: what happened, how long, how many tokens. No text, no keys.

What a client wrote never gets here: neither prompts nor answers, neither headers nor query strings,
and paths only as the route's template.
"""

import json
import sys
import time
from collections.abc import Callable
from typing import Any


class RequestLog:
    """Writes lines; `write` is replaced by tests."""

    def __init__(self, write: Callable[[str], object] | None = None) -> None:
        self._write = write

    def line(self, event: str, **fields: Any) -> None:
        """One event; None is left out."""
        kept = {name: value for name, value in fields.items() if value is not None}
        text = json.dumps({"time": round(time.time(), 3), "event": event, **kept})
        if self._write is not None:
            self._write(text)
        else:
            sys.stderr.write(f"{text}\n")  # in one piece
            sys.stderr.flush()
