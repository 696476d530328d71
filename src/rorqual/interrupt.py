"""Ctrl-C and SIGTERM ask a run to stop after the step in hand; a second Ctrl-C stops at once."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class StopRequest:
    """Set once a signal has asked the run to stop."""

    def __init__(self) -> None:
        self.signal_name: str | None = None

    def __bool__(self) -> bool:
        return self.signal_name is not None


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Listen for SIGINT and SIGTERM inside the block; the old handlers return afterwards."""
    request = StopRequest()

    def handle(number: int, frame: FrameType | None) -> None:
        del frame
        if request and number == signal.SIGINT:
            raise KeyboardInterrupt
        request.signal_name = signal.Signals(number).name

    watched = (signal.SIGINT, signal.SIGTERM)
    previous = {number: signal.signal(number, handle) for number in watched}
    try:
        yield request
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
