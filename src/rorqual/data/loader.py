"""Batches of packed documents, in an order that a seed fixes and a small state resumes.

Each epoch shuffles the documents (Philox, keyed by seed and epoch), cuts the order into windows,
packs each window on its own and shuffles its rows. So memory is one window's plan, and the state
is three numbers: epoch, window, row. The global order of rows depends neither on the number of
processes nor on the batch size: rank r takes rows r, r + world_size, ... of each global batch.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rorqual.data.index import TokenStore
from rorqual.data.packing import PackedRows, pack_rows
from rorqual.errors import ConfigError, DataError

_WINDOW_DOCUMENTS = 1 << 16
_STATE_VERSION = 1


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows of this rank; a row of T + 1 tokens holds T inputs and T targets."""

    tokens: np.ndarray  # [B, T + 1] int32
    document_idx: np.ndarray  # [B, T + 1] int32, number of the document in its row, -1 is padding


def shuffled(count: int, seed: int, epoch: int, stream: int) -> np.ndarray:
    """A permutation from raw Philox words, which numpy keeps stable where its own may change."""
    words = np.random.Philox(key=np.array([seed, epoch << 32 | stream], np.uint64))
    return np.argsort(words.random_raw(count), kind="stable")  # [count] int64


class _RowPlan:
    """The rows of one window of one epoch."""

    def __init__(self, store: TokenStore, row_tokens: int, seed: int, epoch: int, window: int):
        order = shuffled(len(store.lengths), seed, epoch, 0)
        first = window * _WINDOW_DOCUMENTS
        self._store = store
        self._row_tokens = row_tokens
        self._documents = order[first : first + _WINDOW_DOCUMENTS]  # [documents]
        self._rows: PackedRows = pack_rows(store.lengths[self._documents], row_tokens)
        self._order = shuffled(self._rows.num_rows, seed, epoch, window + 1)  # [rows]
        self.num_rows = self._rows.num_rows

    def num_tokens(self, row: int) -> int:
        """Tokens in a row, padding not counted."""
        rows, number = self._rows, self._order[row]
        return int(rows.lengths[rows.offsets[number] : rows.offsets[number + 1]].sum())

    def fill(self, row: int, tokens: np.ndarray, document_idx: np.ndarray) -> None:
        """Writes a row into two arrays of [T + 1]; what it leaves untouched is padding."""
        rows, number = self._rows, self._order[row]
        filled = 0
        for count, piece in enumerate(range(rows.offsets[number], rows.offsets[number + 1])):
            length = int(rows.lengths[piece])
            document = int(self._documents[rows.documents[piece]])
            end = filled + length
            tokens[filled:end] = self._store.read(document, int(rows.starts[piece]), length)
            document_idx[filled:end] = count
            filled = end


class PackedLoader:
    """An endless stream of batches over the documents of a split.

    `sequences_per_batch` counts all ranks; it may be changed between batches (a batch ramp).
    `epoch` is that of the next row, `tokens_seen` counts all ranks without padding.
    """

    def __init__(
        self,
        index_path: Path,
        *,
        sequence_length: int,
        sequences_per_batch: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        split: str = "train",
    ) -> None:
        if not 0 <= rank < world_size:
            raise ConfigError(f"rank={rank} is not below world_size={world_size}; check torchrun")
        if sequence_length < 1 or seed < 0:
            raise ConfigError(
                f"sequence_length={sequence_length} and seed={seed} must be at least 1 and 0"
            )
        self.epoch = 0
        self.tokens_seen = 0
        self._store = TokenStore(index_path, split)
        self._sequence_length = sequence_length
        self._seed = seed
        self._rank = rank
        self._world_size = world_size
        self._split = split
        self._window = 0
        self._row = 0
        self._plan: _RowPlan | None = None
        self.sequences_per_batch = sequences_per_batch

    @property
    def sequences_per_batch(self) -> int:
        """Rows of a batch over all ranks."""
        return self._sequences_per_batch

    @sequences_per_batch.setter
    def sequences_per_batch(self, value: int) -> None:
        if value < 1 or value % self._world_size:
            raise ConfigError(
                f"sequences_per_batch={value} is not a multiple of world_size={self._world_size}; "
                "choose a train.sequences_per_step that is"
            )
        self._sequences_per_batch = value

    def next_batch(self) -> Batch:
        """This rank's rows of the next global batch."""
        shape = (self._sequences_per_batch // self._world_size, self._sequence_length + 1)
        tokens = np.full(shape, self._store.index.pad_token_id, np.int32)  # [B, T + 1]
        document_idx = np.full(shape, -1, np.int32)  # [B, T + 1]
        for number in range(self._sequences_per_batch):
            plan = self._current_plan()
            if number % self._world_size == self._rank:
                local = number // self._world_size
                plan.fill(self._row, tokens[local], document_idx[local])
            self.tokens_seen += plan.num_tokens(self._row)
            self._advance(plan)
        return Batch(tokens, document_idx)

    def _current_plan(self) -> _RowPlan:
        if self._plan is None:
            self._plan = _RowPlan(
                self._store, self._sequence_length + 1, self._seed, self.epoch, self._window
            )
        return self._plan

    def _advance(self, plan: _RowPlan) -> None:
        self._row += 1
        if self._row == plan.num_rows:
            self._plan = None
            self._row = 0
            self._window += 1
            if self._window * _WINDOW_DOCUMENTS >= len(self._store.lengths):
                self._window = 0
                self.epoch += 1

    def state_dict(self) -> dict[str, Any]:
        """Where the stream stands, as JSON can hold it."""
        return {
            "version": _STATE_VERSION,
            "fingerprint": self._store.index.fingerprint,
            "split": self._split,
            "seed": self._seed,
            "sequence_length": self._sequence_length,
            "epoch": self.epoch,
            "window": self._window,
            "row": self._row,
            "tokens_seen": self.tokens_seen,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on at the exact next row; world size and batch size may differ."""
        ours = self.state_dict()
        for key in ("version", "split", "seed", "sequence_length"):
            if state.get(key) != ours[key]:
                raise ConfigError(
                    f"data loader: the saved {key} is {state.get(key)}, this run's is {ours[key]}; "
                    "resume with the saved one"
                )
        if state["fingerprint"] != ours["fingerprint"]:
            raise DataError(
                "data loader: the token shards were rebuilt since this state was saved, so its "
                "next batch no longer exists; bring the old corpus back or start a new run"
            )
        self.epoch = int(state["epoch"])
        self._window = int(state["window"])
        self._row = int(state["row"])
        self.tokens_seen = int(state["tokens_seen"])
        self._plan = None


def validation_batches(
    index_path: Path,
    language: str,
    *,
    sequence_length: int,
    sequences_per_batch: int,
    max_tokens: int,
) -> Iterator[Batch]:
    """Held-out documents of a language, the same ones in each call; the last batch may be short.

    At most `max_tokens` tokens, in whole rows, but at least one row.
    """
    store = TokenStore(index_path, f"validation-{language}")
    plan = _RowPlan(store, sequence_length + 1, seed=0, epoch=0, window=0)
    num_rows = min(plan.num_rows, max(1, max_tokens // (sequence_length + 1)))
    for first in range(0, num_rows, sequences_per_batch):
        shape = (min(sequences_per_batch, num_rows - first), sequence_length + 1)
        tokens = np.full(shape, store.index.pad_token_id, np.int32)  # [B, T + 1]
        document_idx = np.full(shape, -1, np.int32)  # [B, T + 1]
        for row in range(shape[0]):
            plan.fill(first + row, tokens[row], document_idx[row])
        yield Batch(tokens, document_idx)
