"""A runner without a network: its logits are a hash of the history that the block tables lead to.

Whatever the engine mixes up (a block, a position, a length) changes the hash and so the output.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from rorqual.config import ModelConfig
from rorqual.config.engine import EngineConfig
from rorqual.engine import Delta, Engine, Request, SamplingParams
from rorqual.kernels.step import BLOCK_TOKENS, StepBatch, StepOutput
from tests.conftest import small_config

VOCAB = 40
END_ID = 1


class HashRunner:
    """Implements the Runner protocol."""

    def __init__(self, num_blocks: int, *, context: int = 512, vocab_size: int = VOCAB):
        self.config: ModelConfig = small_config(
            vocab_size=vocab_size, max_position_embeddings=context
        )
        self.num_blocks = num_blocks
        self.cells = np.full((num_blocks, BLOCK_TOKENS), -1, dtype=np.int64)
        self.salt = 0
        self.steps: list[StepBatch] = []
        self.fail_at: int | None = None
        self.now = 0.0

    def clock(self) -> float:
        return self.now

    def history(self, table: NDArray[np.int32], length: int) -> NDArray[np.int64]:
        blocks = table[: -(-length // BLOCK_TOKENS)]
        assert (blocks >= 0).all(), "a needed block is missing from the table"
        return self.cells[blocks].reshape(-1)[:length]

    def step(
        self,
        batch: StepBatch,
        *,
        want_hidden: bool = False,
        record_routes: bool = False,
        replay_routes: NDArray[np.int16] | None = None,
    ) -> StepOutput:
        self.steps.append(batch)
        if self.fail_at is not None and len(self.steps) == self.fail_at:
            raise OSError("the machine is on fire")
        self.now += 1e-3 + 1e-4 * len(batch.token_ids)
        wanted = set(batch.output_rows.tolist())
        logits: list[NDArray[np.float32]] = []
        written: set[int] = set()
        for s, cached in enumerate(batch.num_cached.tolist()):
            begin, end = batch.first_rows[s], batch.first_rows[s + 1]
            assert end > begin, "a sequence feeds nothing"
            for row in range(begin, end):
                position = cached + row - begin
                block = int(batch.block_tables[s, position // BLOCK_TOKENS])
                assert 0 <= block < self.num_blocks
                cell = block * BLOCK_TOKENS + position % BLOCK_TOKENS
                assert cell not in written, "two sequences write one cell"
                written.add(cell)
                self.cells.reshape(-1)[cell] = batch.token_ids[row]
                if row in wanted:
                    history = self.history(batch.block_tables[s], position + 1)
                    logits.append(hashed_logits(history, self.config.vocab_size, self.salt))
        rows = len(batch.token_ids)
        routes = np.tile(batch.token_ids.astype(np.int16)[:, None, None], (1, 2, 2))
        assert len(routes) == rows
        found = np.stack(logits) if logits else np.zeros((0, VOCAB), np.float32)
        return StepOutput(found, None, routes if record_routes else None)

    def copy_block(self, source: int, target: int) -> None:
        self.cells[target] = self.cells[source]

    def update(self, read: Callable[[str], NDArray[np.float32]]) -> None:
        self.salt = int(read("salt")[0])
        self.cells[:] = -1

    def close(self) -> None:
        pass


def hashed_logits(history: NDArray[np.int64], vocab_size: int, salt: int) -> NDArray[np.float32]:
    """Pseudo-random logits [V] in [-3, 3] of a history."""
    with np.errstate(over="ignore"):
        powers = np.cumprod(np.full(len(history), 6364136223846793005, dtype=np.uint64))
        state = ((history.astype(np.uint64) + np.uint64(1442695 + salt)) * powers).sum()
        mixed = (np.arange(vocab_size, dtype=np.uint64) + state) * np.uint64(0x9E3779B97F4A7C15)
        mixed ^= mixed >> np.uint64(29)
        mixed *= np.uint64(0xBF58476D1CE4E5B9)
        mixed ^= mixed >> np.uint64(32)
    return ((mixed % np.uint64(6001)).astype(np.float32) - 3000) / 1000


@dataclass
class Answer:
    """A sequence's deltas, put together."""

    token_ids: list[int] = field(default_factory=list)
    text: str = ""
    reasoning: str = ""
    deltas: list[Delta] = field(default_factory=list)

    @property
    def last(self) -> Delta:
        return self.deltas[-1]

    @property
    def finish_reason(self) -> str | None:
        return self.last.finish_reason


class Collector:
    """Takes the deltas of many requests; checks that nothing follows an end."""

    def __init__(self) -> None:
        self.answers: dict[tuple[str, int], Answer] = {}
        self.num_calls: dict[str, int] = {}

    def __call__(self, deltas: list[Delta]) -> None:
        names = {delta.request_id for delta in deltas}
        assert len(names) == 1, "one call, one request"
        name = names.pop()
        self.num_calls[name] = self.num_calls.get(name, 0) + 1
        for delta in deltas:
            answer = self.answers.setdefault((delta.request_id, delta.index), Answer())
            assert not answer.deltas or answer.finish_reason is None, "a delta after the end"
            answer.token_ids += delta.token_ids
            answer.text += delta.text
            answer.reasoning += delta.reasoning
            answer.deltas.append(delta)


def make_engine(runner: HashRunner, **fields: object) -> Engine:
    """An engine that checks its blocks after every step, on the runner's own clock."""
    values: dict[str, object] = {"check_invariants": True, "seed": 0, "max_num_seqs": 8}
    config = EngineConfig(**(values | fields))  # type: ignore[arg-type]
    return Engine(runner, config, end_ids=(END_ID,), clock=runner.clock)


def run_all(engine: Engine, limit: int = 100_000) -> None:
    """Step until everything has ended."""
    for _ in range(limit):
        if not engine.step():
            return
    raise AssertionError("the engine does not come to an end")


def solo(
    prompt: Sequence[int], params: SamplingParams, *, num_blocks: int = 64, context: int = 512
) -> list[Answer]:
    """The answers of a request that has an engine of its own."""
    runner = HashRunner(num_blocks, context=context)
    engine = make_engine(runner, max_num_seqs=max(params.n, 1), prefix_caching=False)
    collector = Collector()
    engine.submit(Request(id="solo", prompt_ids=prompt, params=params), collector)
    run_all(engine)
    return [collector.answers["solo", index] for index in range(params.n)]
