"""Which problem comes next: families by weight, levels evenly or by the rolling pass rate.

Every draw has its own generator, seeded by the run's seed and the draw's place, so a resumed run
asks the same questions. Levels move up above one pass rate and down below another (reasoning-gym's
thresholds by default), one step at a time, after enough groups at the present level.
"""

import hashlib
import random
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rorqual.config.rl import RLConfig
from rorqual.config.tasks import TaskShare
from rorqual.tasks import Problem, Task, make_in_split

_WINDOW = 16  # groups that a pass rate is taken over


def derive_seed(*parts: int | str) -> int:
    """A 63-bit number that depends on all parts, the same on every machine."""
    text = "/".join(str(part) for part in parts)
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


@dataclass(frozen=True, slots=True)
class Drawn:
    """A problem and the share of the mixture that asked for it."""

    problem: Problem
    share_idx: int


class Curriculum:
    """Draws training problems and follows how they go."""

    def __init__(self, config: RLConfig, shares: Sequence[TaskShare], tasks: Sequence[Task]):
        """tasks: one per share."""
        self.config, self.shares, self.tasks = config, tuple(shares), tuple(tasks)
        self.level_place = [0] * len(self.shares)  # index into each share's levels
        self._recent: list[deque[float]] = [deque(maxlen=_WINDOW) for _ in self.shares]

    def draw(self, *place: int) -> Drawn:
        """The problem of a place (step, round, index within the round)."""
        rng = random.Random(derive_seed("problem", self.config.seed, *place))
        weights = [share.weight for share in self.shares]
        share_idx = rng.choices(range(len(self.shares)), weights)[0]
        share = self.shares[share_idx]
        level = self.level(share_idx) if self.config.curriculum else rng.choice(share.levels)
        language = rng.choice(share.languages)
        task = self.tasks[share_idx]
        return Drawn(make_in_split(task, rng, level, language, held_out=False), share_idx)

    def level(self, share_idx: int) -> int:
        """The level a share stands at."""
        return self.shares[share_idx].levels[self.level_place[share_idx]]

    def record(self, share_idx: int, pass_rate: float) -> None:
        """Note a group's share of right answers, and move the level when it is time."""
        recent = self._recent[share_idx]
        recent.append(pass_rate)
        if not self.config.curriculum or len(recent) < _WINDOW:
            return
        rate = sum(recent) / len(recent)
        place = self.level_place[share_idx]
        if rate > self.config.raise_level_above and place + 1 < len(self.shares[share_idx].levels):
            self.level_place[share_idx] += 1
            recent.clear()
        elif rate < self.config.lower_level_below and place > 0:
            self.level_place[share_idx] -= 1
            recent.clear()

    def pass_rates(self) -> dict[str, float]:
        """The rolling pass rate of each share that has been drawn, by name."""
        return {
            share.name: sum(recent) / len(recent)
            for share, recent in zip(self.shares, self._recent, strict=True)
            if recent
        }

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs."""
        return {"place": self.level_place, "recent": [list(recent) for recent in self._recent]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a saved state."""
        self.level_place = list(state["place"])
        self._recent = [deque(values, maxlen=_WINDOW) for values in state["recent"]]
