"""The face that the engine sees of whatever computes a step: the native runtime or its torch twin.

A runner owns the weights and the paged cache. A row's result depends on its own tokens and cache
alone, never on what else is in the batch; that is what lets the scheduler mix, split, pre-empt and
share as it likes.
"""

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from rorqual.config import DenseConfig, ModelConfig
from rorqual.kernels.step import StepBatch, StepOutput

ReadTensor = Callable[[str], NDArray[np.float32]]
"""A published tensor by its Hugging Face name, float32."""


class Runner(Protocol):
    """What computes engine steps; see kernels/step.py for the arrays."""

    @property
    def config(self) -> ModelConfig | DenseConfig:
        """The network."""
        ...

    @property
    def num_blocks(self) -> int:
        """Physical cache blocks of BLOCK_TOKENS tokens."""
        ...

    def step(
        self,
        batch: StepBatch,
        *,
        want_hidden: bool = False,
        record_routes: bool = False,
        replay_routes: NDArray[np.int16] | None = None,
    ) -> StepOutput:
        """Feed the batch's tokens, append them to the cache, compute the wanted logits."""
        ...

    def copy_block(self, source: int, target: int) -> None:
        """Copy a block of every layer, for sequences that part in the middle of one."""
        ...

    def update(self, read: ReadTensor) -> None:
        """Take new weights; what the cache holds is invalid afterwards."""
        ...

    def close(self) -> None:
        """Give back weights and cache."""
        ...


@runtime_checkable
class DraftingRunner(Protocol):
    """A runner that can run the checkpoint's MTP modules."""

    def draft_step(
        self, batch: StepBatch, previous: NDArray[np.float32], depth: int = 0
    ) -> StepOutput:
        """Feed states `previous` [T, H] with the tokens that follow; see kernels/runtime.py."""
        ...
