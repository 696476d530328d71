"""The overload ladder: what is given up first, and when it comes back.

Load goes up a step at once and comes down one step at a time, after a while of calm below a lower
mark, so that the service does not flicker. An administrator can hold it at any step. Existing users
and their keys are served on every step; the last one only closes registration.
"""

from collections.abc import Callable
from enum import IntEnum

from rorqual.config.server import OverloadConfig


class Level(IntEnum):
    """Each step includes those before it."""

    NORMAL = 0
    SHORTER_THINKING = 1
    SMALLER_MODEL = 2
    QUEUE_ONLY = 3  # an account's second request runs only if no other account waits for a first
    REGISTRATION_CLOSED = 4


class OverloadLadder:
    """Pure logic with an injected clock; its owner locks."""

    def __init__(self, config: OverloadConfig, clock: Callable[[], float]) -> None:
        self._config = config
        self._clock = clock
        self._automatic = Level.NORMAL
        self._held: Level | None = None
        self._restless_seconds = clock()

    @property
    def level(self) -> Level:
        """Where the service stands."""
        return self._automatic if self._held is None else self._held

    @property
    def held(self) -> Level | None:
        """The step an administrator holds it at; None: load decides."""
        return self._held

    def hold(self, level: Level | None) -> None:
        """Holds a step whatever the load is, or lets load decide again."""
        self._held = level

    def update(self, load: float) -> Level:
        """Takes a measurement of load (1.0 is the limit) and moves by it."""
        now = self._clock()
        reached = Level(sum(load >= mark for mark in self._config.rise))
        if reached > self._automatic:
            self._automatic = reached
        if self._automatic == Level.NORMAL:
            return self.level
        calm_below = self._config.rise[self._automatic - 1] * self._config.fall_ratio
        if load >= calm_below:
            self._restless_seconds = now
        elif now - self._restless_seconds >= self._config.dwell_seconds:
            self._automatic = Level(self._automatic - 1)
            self._restless_seconds = now
        return self.level

    def thinking_tokens(self, budget_tokens: int) -> int:
        """A thinking budget on this step."""
        if self.level < Level.SHORTER_THINKING:
            return budget_tokens
        return max(1, int(budget_tokens * self._config.thinking_scale))

    def model(self, model: str) -> str:
        """The model that serves a request for `model` on this step."""
        if self.level < Level.SMALLER_MODEL:
            return model
        return self._config.smaller_models.get(model, model)

    @property
    def registration_open(self) -> bool:
        """Whether new accounts are made on this step."""
        return self.level < Level.REGISTRATION_CLOSED
