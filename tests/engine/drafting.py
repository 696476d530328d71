"""A runner with a module that drafts, right or wrong as the test wants it."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from rorqual.kernels.step import BLOCK_TOKENS, StepBatch, StepOutput
from tests.conftest import small_config
from tests.engine.fakes import VOCAB, HashRunner, hashed_logits

Quality = Literal["right", "wrong", "mixed"]


class DraftingHashRunner(HashRunner):
    """HashRunner with a module cache of its own, filled with the tokens that follow.

    A state names its position and token, so that the module notices a state that is fed in the
    wrong place. Its logits are those of the model for the history that it has *read*: drafts are
    right only as long as every cell was read. row_seconds: what a row costs the module.
    """

    def __init__(
        self,
        num_blocks: int,
        *,
        context: int = 512,
        quality: Quality = "right",
        call_seconds: float = 1e-4,
        row_seconds: float = 1e-5,
    ):
        super().__init__(num_blocks, context=context)
        self.config = small_config(
            vocab_size=VOCAB, max_position_embeddings=context, num_nextn_predict_layers=1
        )
        self.following = np.full((num_blocks, BLOCK_TOKENS), -1, dtype=np.int64)
        self.quality: Quality = quality
        self.call_seconds, self.row_seconds = call_seconds, row_seconds
        self.num_draft_steps = 0

    def step(
        self,
        batch: StepBatch,
        *,
        want_hidden: bool = False,
        record_routes: bool = False,
        replay_routes: NDArray[np.int16] | None = None,
    ) -> StepOutput:
        output = super().step(batch, record_routes=record_routes)
        if not want_hidden:
            return output
        states = np.zeros((len(batch.token_ids), self.config.hidden_size), np.float32)
        for s, cached in enumerate(batch.num_cached.tolist()):
            begin, end = batch.first_rows[s], batch.first_rows[s + 1]
            states[begin:end, 0] = np.arange(cached, cached + end - begin)
        states[:, 1] = batch.token_ids
        return StepOutput(output.logits, states, output.routes)

    def copy_block(self, source: int, target: int) -> None:
        super().copy_block(source, target)
        self.following[target] = self.following[source]

    def draft_step(
        self, batch: StepBatch, previous: NDArray[np.float32], depth: int = 0
    ) -> StepOutput:
        assert depth == 0 and previous.shape == (len(batch.token_ids), self.config.hidden_size)
        self.num_draft_steps += 1
        self.now += self.call_seconds + self.row_seconds * len(batch.token_ids)
        wanted = set(batch.output_rows.tolist())
        logits: list[NDArray[np.float32]] = []
        written: set[tuple[int, int]] = set()
        states = previous.copy()
        for s, cached in enumerate(batch.num_cached.tolist()):
            table = batch.block_tables[s]
            for row in range(batch.first_rows[s], batch.first_rows[s + 1]):
                position = cached + row - int(batch.first_rows[s])
                block, offset = int(table[position // BLOCK_TOKENS]), position % BLOCK_TOKENS
                own = previous[row, 0] >= 0  # else the module's own state
                assert not own or previous[row, 0] == position, "a state of another position"
                assert not own or previous[row, 1] == self.cells[block, offset]
                assert (block, offset) not in written, "two sequences write one cell"
                written.add((block, offset))
                self.following[block, offset] = batch.token_ids[row]
                states[row, 0] = -1
                if row in wanted:
                    logits.append(self._drafted(table, position))
        found = np.stack(logits) if logits else np.zeros((0, VOCAB), np.float32)
        return StepOutput(found, states, None)

    def _drafted(self, table: NDArray[np.int32], position: int) -> NDArray[np.float32]:
        blocks = table[: position // BLOCK_TOKENS + 1]
        read = self.following[blocks].reshape(-1)[: position + 1]
        history = np.concatenate([self.cells[table[0], :1], read])
        logits = hashed_logits(history, VOCAB, self.salt)
        right = self.quality == "right" or (self.quality == "mixed" and position % 3 > 0)
        return logits if right else -logits
