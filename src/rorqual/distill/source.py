"""Where a step's sequences come from, and what is learnt from them: the seam between the methods.

A method is one `Source`: it draws the sequences of a step and gives the loss of a micro-batch. The
update and the loop around it are the same for all.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from rorqual.model import Transformer
from rorqual.rl.costs import Tokens
from rorqual.rl.packing import PackedSequences

Figures = dict[str, float | None]


@dataclass(frozen=True, slots=True)
class Drawn:
    """The sequences of a step, what drawing them cost, and what there is to say about them."""

    prompts: list[list[int]]
    completions: list[list[int]]
    spent: Tokens = field(default_factory=Tokens)
    figures: Figures = field(default_factory=dict[str, float | None])


@dataclass(frozen=True, slots=True)
class Preparation:
    """What was done before the first step. fingerprint names the data that it fixed."""

    spent: Tokens
    seconds: float
    figures: dict[str, Any]
    fingerprint: str


class Source(ABC):
    """A method of distillation."""

    measures_kl: bool  # whether the loss is a divergence

    def prepare(
        self, should_stop: Callable[[], bool], say: Callable[[str], None]
    ) -> Preparation | None:
        """What comes before the first step; None if `should_stop` ended it early."""
        del should_stop, say
        return Preparation(Tokens(), 0.0, {}, "")

    @abstractmethod
    def draw(self, student: Transformer, step: int, dtype: torch.dtype) -> Drawn:
        """The sequences of a step."""

    @abstractmethod
    def loss(
        self, student: Transformer, hidden: Tensor, batch: PackedSequences, dtype: torch.dtype
    ) -> tuple[Tensor, Tokens]:
        """hidden [M, H] before each completion token -> their summed loss, what scoring cost."""
