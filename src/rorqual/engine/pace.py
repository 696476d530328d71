"""How many tokens a step may feed so that it ends in time.

The time of a step is close to a line in its tokens: a fixed part (reading the weights) and a part
per token. Both are estimated from the steps that were measured, later ones counting more, so the
budget follows the machine, the model and whatever else runs beside it.
"""

from typing import Final

_FADING: Final = 0.95  # weight that a measurement loses with each later one
_LARGEST_GROWTH: Final = 2  # a budget goes this far beyond the largest step measured, no further


class Pace:
    """A budget of tokens per step from the durations of past steps."""

    def __init__(self, target_seconds: float, fewest_tokens: int, most_tokens: int):
        self.target_seconds = target_seconds
        self.fewest_tokens = min(fewest_tokens, most_tokens)
        self.most_tokens = most_tokens
        self._largest_tokens = float(fewest_tokens)
        # Faded sums of 1, tokens, seconds, tokens^2, tokens * seconds over the measured steps.
        self._count = self._tokens = self._seconds = self._squares = self._products = 0.0

    def observe(self, num_tokens: int, seconds: float) -> None:
        """One step was measured."""
        self._count = self._count * _FADING + 1
        self._tokens = self._tokens * _FADING + num_tokens
        self._seconds = self._seconds * _FADING + seconds
        self._squares = self._squares * _FADING + num_tokens * num_tokens
        self._products = self._products * _FADING + num_tokens * seconds
        self._largest_tokens = max(self._largest_tokens, num_tokens)

    def line(self) -> tuple[float, float]:
        """Seconds of a step: (fixed, per token), neither negative."""
        if not self._count:
            return 0.0, 0.0
        spread = self._count * self._squares - self._tokens * self._tokens
        covariance = self._count * self._products - self._tokens * self._seconds
        if spread > 1e-9 * self._squares * self._count and covariance > 0:
            slope = covariance / spread
            fixed = (self._seconds - slope * self._tokens) / self._count
            if fixed >= 0:
                return fixed, slope
        # One size of step, or noise: as if all of the time were the tokens'.
        return 0.0, self._seconds / self._tokens

    def budget(self) -> int:
        """Tokens that a step may feed to end within the target."""
        fixed, slope = self.line()
        reachable = min(self._largest_tokens * _LARGEST_GROWTH, self.most_tokens)
        if slope > 0:
            reachable = min(reachable, (self.target_seconds - fixed) / slope)
        return int(max(reachable, self.fewest_tokens))
