"""A runner that says what a test wants: its logits prefer the next token of a written answer.

Everything else is the real engine, so splitting, structures, stops and counts are what users get.
"""

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from rorqual.config import ModelConfig
from rorqual.config.engine import EngineConfig
from rorqual.engine import Engine
from rorqual.engine.texts import Texts
from rorqual.kernels.step import BLOCK_TOKENS, StepBatch, StepOutput
from rorqual.tokenizer import Tokenizer, train_tokenizer
from rorqual.tokenizer.special import ASSISTANT, FIM_END, TOOL_OUTPUTS_END
from tests.conftest import small_config

CORPUS = [
    "The whale swims in the wide ocean and sings. What is 6 times 7? It is 42, of course.",
    '{"city": "Paris", "days": 3} {"name": "x", "value": [1, 2, 3]} get_weather function json',
    "def add(a, b):\n    return a + b\n\nOnce upon a time there was a whale. 北京 天气 鲸鱼",
] * 4
DEFAULT = "The whale sings."


def make_tokenizer() -> Tokenizer:
    """A few hundred tokens and every marker."""
    return train_tokenizer(CORPUS, vocab_size=500)


class ScriptRunner:
    """Implements the Runner protocol. `answers`: what follows a prompt that contains the key."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        answers: Mapping[str, str],
        *,
        num_blocks: int = 256,
        context: int = 512,
        pause: Callable[[], None] = lambda: None,
    ):
        self.config: ModelConfig = small_config(
            vocab_size=tokenizer.vocab_size, max_position_embeddings=context
        )
        self.num_blocks = num_blocks
        self.answers = dict(answers)
        self.pause = pause
        self._tokenizer = tokenizer
        self._cells = np.full(num_blocks * BLOCK_TOKENS, -1, dtype=np.int64)
        special = tokenizer.special_tokens
        self._openings = {special[name] for name in (ASSISTANT, TOOL_OUTPUTS_END, FIM_END)}

    def step(self, batch: StepBatch, **_: object) -> StepOutput:
        self.pause()
        wanted = set(batch.output_rows.tolist())
        logits: list[NDArray[np.float32]] = []
        for s, cached in enumerate(batch.num_cached.tolist()):
            begin, end = batch.first_rows[s], batch.first_rows[s + 1]
            for row in range(begin, end):
                position = cached + row - begin
                table = batch.block_tables[s]
                self._cells[self._cell(table, position)] = batch.token_ids[row]
                if row in wanted:
                    cells = [self._cell(table, place) for place in range(position + 1)]
                    logits.append(self._logits(self._cells[cells].tolist()))
        width = self.config.vocab_size
        found = np.stack(logits) if logits else np.zeros((0, width), np.float32)  # [L, V]
        return StepOutput(found, None, None)

    def copy_block(self, source: int, target: int) -> None:
        ours = slice(source * BLOCK_TOKENS, (source + 1) * BLOCK_TOKENS)
        self._cells[target * BLOCK_TOKENS : (target + 1) * BLOCK_TOKENS] = self._cells[ours]

    def update(self, read: object) -> None:
        self._cells[:] = -1

    def close(self) -> None:
        pass

    def _cell(self, table: NDArray[np.int32], position: int) -> int:
        return int(table[position // BLOCK_TOKENS]) * BLOCK_TOKENS + position % BLOCK_TOKENS

    def _logits(self, history: list[int]) -> NDArray[np.float32]:
        """Likeliest: the script's next token; then the rest of the vocabulary in order."""
        values = -np.arange(self.config.vocab_size, dtype=np.float32) / 1000 - 20  # [V]
        values[self._next(history)] = 0
        return values

    def _next(self, history: list[int]) -> int:
        start = len(history)
        while start and history[start - 1] not in self._openings:
            start -= 1
        asked = self._tokenizer.decode(history[:start] if start else history)
        written = self._tokenizer.decode(history[start:]) if start else ""
        answer = next((text for key, text in self.answers.items() if key in asked), DEFAULT)
        ids = self._tokenizer.encode_with_special(answer)
        for place in range(len(ids) + 1):  # what the prompt ends with may begin the answer
            if self._tokenizer.decode(ids[:place]) == written:
                break
        else:
            place = len(history) - start if start else 0
        return ids[place] if place < len(ids) else self._tokenizer.eos_token_id


def make_engine(runner: ScriptRunner, tokenizer: Tokenizer, **fields: object) -> Engine:
    """The real engine over it, greedy numbers included."""
    config = EngineConfig(**({"max_num_seqs": 16, "seed": 0} | fields))  # type: ignore[arg-type]
    end_ids = (tokenizer.eos_token_id,)
    texts = Texts(tokenizer, runner.config.vocab_size, end_ids)
    return Engine(runner, config, end_ids=end_ids, texts=texts)  # type: ignore[arg-type]
