"""One stream's tokens, held back until their count is on disk.

The first token is committed at once (nobody waits for a batch to fill), later ones in batches of
`flush_tokens` or after `flush_seconds`. What a crash can leave billed but undelivered is therefore
one batch, and nothing is ever delivered unbilled.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Generic, TypeVar

from rorqual.config.server import MeteringConfig
from rorqual.platform.errors import RequestClosed
from rorqual.platform.ledger import Ledger, Outcome
from rorqual.platform.ledger_operations import Settlement
from rorqual.platform.prices import TokenCounts

T = TypeVar("T")


class Meter(Generic[T]):
    """Counts what one request generates, and says what may be sent. For one thread at a time."""

    def __init__(
        self,
        ledger: Ledger,
        config: MeteringConfig,
        request_id: str,
        *,
        clock: Callable[[], float],
    ) -> None:
        self._ledger = ledger
        self._config = config
        self._request_id = request_id
        self._clock = clock
        self._logged = TokenCounts()
        self._counts = TokenCounts()
        self._held: list[T] = []
        self._oldest_seconds: float | None = None

    def prompt(self, *, cache_hit_tokens: int, input_tokens: int) -> None:
        """The prompt's counts; they are committed with the first token."""
        self._counts = replace(
            self._counts, cache_hit_tokens=cache_hit_tokens, input_tokens=input_tokens
        )

    def add(self, item: T, *, output_tokens: int = 0, reasoning_tokens: int = 0) -> list[T]:
        """Holds an item back with its tokens; returns the items that may be sent now, in order."""
        self._counts = replace(
            self._counts,
            output_tokens=self._counts.output_tokens + output_tokens,
            reasoning_tokens=self._counts.reasoning_tokens + reasoning_tokens,
        )
        self._held.append(item)
        if self._oldest_seconds is None:
            self._oldest_seconds = self._clock()
        return self.flush() if self.due_seconds() <= 0 else []

    def due_seconds(self) -> float:
        """How long the oldest held item may still wait; infinity when nothing is held."""
        if self._oldest_seconds is None:
            return float("inf")
        unlogged = self._counts.total_tokens - self._logged.total_tokens
        first = self._logged.total_tokens == 0
        if first or unlogged >= self._config.flush_tokens:
            return 0.0
        return self._oldest_seconds + self._config.flush_seconds - self._clock()

    def flush(self) -> list[T]:
        """Commits the counts of everything held, then returns it for sending."""
        if self._counts != self._logged:
            self._ledger.log(self._request_id, self._counts)
            self._logged = self._counts
        held, self._held, self._oldest_seconds = self._held, [], None
        return held

    def close(self, outcome: Outcome = "finished") -> tuple[list[T], Settlement]:
        """Commits and settles in one transaction; returns what is left to send, and the bill."""
        settlement = self._ledger.settle(self._request_id, self._counts, outcome=outcome)
        if settlement.counts != self._counts:  # a sweeper was faster: what is held was not billed
            raise RequestClosed(
                f"request {self._request_id} was settled ({settlement.outcome}); deliver no more"
            )
        held, self._held, self._oldest_seconds = self._held, [], None
        return held, settlement

    @property
    def counts(self) -> TokenCounts:
        """Everything counted so far, committed or not."""
        return self._counts
