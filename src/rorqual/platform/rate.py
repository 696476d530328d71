"""How fast the engine works, measured: tokens a second of busy time, and how much of a request's
worst case is used. Both forget with a half-life, so that they follow the load of the minute."""

from collections.abc import Callable

_HALF_LIFE_SECONDS = 30.0
_PRIOR_SECONDS = 5.0  # the configured rate counts as so much observation
_HALF_LIFE_REQUESTS = 32.0


class RateMeter:
    """Pure arithmetic on an injected clock; its owner locks."""

    def __init__(self, initial_tokens_per_second: float, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._updated_seconds = clock()
        self._busy = False
        self._tokens = initial_tokens_per_second * _PRIOR_SECONDS
        self._busy_seconds = _PRIOR_SECONDS
        self._used_tokens = 1.0
        self._cost_tokens = 1.0

    @property
    def tokens_per_second(self) -> float:
        """Of prompts and answers together, while at least one request ran."""
        self._advance()
        return max(1e-3, self._tokens / self._busy_seconds)

    @property
    def used_share(self) -> float:
        """The part of their cost that finished requests used."""
        return min(1.0, max(0.01, self._used_tokens / self._cost_tokens))

    def seconds_for(self, cost_tokens: float) -> float:
        """How long the engine probably works on requests of this cost."""
        return cost_tokens * self.used_share / self.tokens_per_second

    def set_busy(self, busy: bool) -> None:
        """Whether anything runs from now on."""
        self._advance()
        self._busy = busy

    def note_tokens(self, tokens: int) -> None:
        """So many tokens were worked off since the last note."""
        self._advance()
        self._tokens += tokens

    def note_finished(self, used_tokens: int, cost_tokens: int) -> None:
        """A request ended, having used a part of its cost."""
        decay = 0.5 ** (1 / _HALF_LIFE_REQUESTS)
        self._used_tokens = self._used_tokens * decay + used_tokens
        self._cost_tokens = self._cost_tokens * decay + cost_tokens

    def _advance(self) -> None:
        now = self._clock()
        elapsed = now - self._updated_seconds
        self._updated_seconds = now
        if not self._busy or elapsed <= 0:
            return
        decay = 0.5 ** (elapsed / _HALF_LIFE_SECONDS)
        self._tokens *= decay
        self._busy_seconds = self._busy_seconds * decay + elapsed
