"""What changes a sequence's logits before a token is drawn: penalties, biases, forbidden tokens.

Only sequences that ask for any of it carry a `LogitAdjuster`; the others' logits are not touched.
Order: structure, bias, repetition, frequency and presence, minimum length (as vLLM applies them).
"""

import numpy as np
from numpy.typing import NDArray

from rorqual.engine.requests import SamplingParams
from rorqual.engine.structure_compiler import StructureState


class LogitAdjuster:
    """The adjustments of one sequence, kept up to date token by token."""

    def __init__(
        self,
        params: SamplingParams,
        prompt_ids: NDArray[np.int32],
        vocab_size: int,
        end_ids: tuple[int, ...],
        structure: StructureState | None,
    ):
        self._params, self.structure = params, structure
        self._num_written = 0
        self._end_ids = np.array(end_ids, dtype=np.int64)
        self._bias_ids = np.array(list(params.logit_bias), dtype=np.int64)
        self._biases = np.array(list(params.logit_bias.values()), dtype=np.float32)
        self._counts: NDArray[np.float32] | None = None
        if params.has_penalties:
            self._counts = np.zeros(vocab_size, dtype=np.float32)  # [V] in the answer
            self._seen = np.zeros(vocab_size, dtype=np.bool_)  # [V] in prompt or answer
            self._seen[prompt_ids] = True

    @staticmethod
    def needed(params: SamplingParams) -> bool:
        """Whether a sequence with these parameters needs one."""
        return bool(
            params.has_penalties
            or params.logit_bias
            or params.min_tokens
            or params.structure is not None
        )

    def apply(self, logits: NDArray[np.float32]) -> None:
        """Change a row of logits [V] in place."""
        if self.structure is not None:
            bits = self.structure.allowed()
            if bits is not None:
                flags = np.unpackbits(bits.view(np.uint8), bitorder="little")
                allowed = np.zeros(len(logits), dtype=np.bool_)
                allowed[: len(flags)] = flags[: len(logits)]
                logits[~allowed] = -np.inf
        if len(self._bias_ids):
            logits[self._bias_ids] += self._biases
        if self._counts is not None:
            self._penalise(logits, self._counts)
        if self._num_written < self._params.min_tokens:
            logits[self._end_ids] = -np.inf

    def _penalise(self, logits: NDArray[np.float32], counts: NDArray[np.float32]) -> None:
        params = self._params
        if params.repetition_penalty != 1.0:
            ids = np.flatnonzero(self._seen)
            values = logits[ids]
            penalty = np.float32(params.repetition_penalty)
            logits[ids] = np.where(values > 0, values / penalty, values * penalty)
        if params.presence_penalty or params.frequency_penalty:
            ids = np.flatnonzero(counts)
            subtracted = counts[ids] * params.frequency_penalty + params.presence_penalty
            logits[ids] -= subtracted.astype(np.float32)

    def advance(self, token_id: int, *, thinking: bool) -> None:
        """A token that is no end token was drawn; `thinking`: the next one is still thought.

        A structure binds the answer, so it comes into force where the thinking ends.
        """
        self._num_written += 1
        if self._counts is not None:
            self._counts[token_id] += 1
            self._seen[token_id] = True
        if self.structure is not None:
            self.structure.advance(token_id)
            if not thinking and not self.structure.active:
                self.structure.activate()

    @property
    def finished(self) -> bool:
        """Whether a structure is complete, so that nothing may follow."""
        return self.structure is not None and self.structure.finished

    @property
    def failed(self) -> str | None:
        """Why a structure's matcher gave up, None if it has not."""
        return None if self.structure is None else self.structure.failed
