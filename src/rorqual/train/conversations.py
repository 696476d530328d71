"""Encoded conversations, packed whole into rows, in an order that a seed fixes.

Rows are isolated by document masks, so a packed conversation trains exactly as it would alone (V3
section 5.1: samples stay mutually invisible). The stream of rows over all epochs is a function of
the conversations and the seed: its position is one number, which a resumed run goes on from.
"""

import hashlib
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch

from rorqual.config.sft import LossOn
from rorqual.data.loader import shuffled
from rorqual.data.packing import pack_whole
from rorqual.model import PackedTokens
from rorqual.tokenizer import Tokenizer
from rorqual.train.samples import Sample

_BATCH_CONVERSATIONS = 1024
_ORDER_STREAM, _ROW_STREAM, _PHASE_STREAM = 0, 1, 2


@dataclass(frozen=True, slots=True)
class Conversation:
    """ids [tokens] int32; learn [tokens] bool: which of them are targets; weight as in Sample."""

    ids: np.ndarray
    learn: np.ndarray
    weight: float

    @property
    def digest(self) -> bytes:
        """Equal for equal conversations."""
        return hashlib.blake2b(self.ids.tobytes(), digest_size=16).digest()


@dataclass(slots=True)
class Encoded:
    """Conversations that fit, and how many did not: too long, nothing to learn, not to be used."""

    conversations: list[Conversation]
    too_long: int = 0
    nothing_to_learn: int = 0
    unused: int = 0


def encode_samples(
    tokenizer: Tokenizer, samples: Iterable[Sample], loss_on: LossOn, row_tokens: int
) -> Encoded:
    """Through the chat template, with the role mask; what exceeds a row is left out."""
    encoded = Encoded([])
    stream = iter(samples)
    while batch := list(islice(stream, _BATCH_CONVERSATIONS)):
        wanted = [sample for sample in batch if sample.weight > 0]
        encoded.unused += len(batch) - len(wanted)
        found = tokenizer.encode_conversations([sample.messages for sample in wanted])
        for sample, (ids, written) in zip(wanted, found, strict=True):
            learn = np.array(written, bool) if loss_on == "assistant" else np.ones(len(ids), bool)
            if len(ids) > row_tokens:
                encoded.too_long += 1
            elif not learn[1:].any():  # the first token has nothing to be predicted from
                encoded.nothing_to_learn += 1
            else:
                conversation = Conversation(np.array(ids, np.int32), learn, sample.weight)
                encoded.conversations.append(conversation)
    return encoded


def split_held_out(
    conversations: Sequence[Conversation], fraction: float
) -> tuple[list[Conversation], list[Conversation]]:
    """(training, held-out): by content, so that equal conversations stay on one side.

    The held-out part is without repetitions, and there is one if there are two to choose from.
    """
    distinct = {conversation.digest: conversation for conversation in conversations}
    count = math.ceil(fraction * len(distinct)) if len(distinct) > 1 else 0
    chosen = sorted(distinct)[:count]
    kept_apart = set(chosen)
    train = [item for item in conversations if item.digest not in kept_apart]
    return train, [distinct[digest] for digest in chosen]


class ConversationLoader:
    """The rows of all epochs, one after the other; `rows_seen` is the position in them."""

    def __init__(
        self,
        conversations: Sequence[Conversation],
        *,
        row_tokens: int,
        pad_token_id: int,
        seed: int,
        epochs: int,
    ):
        self.conversations, self.seed = conversations, seed
        self.row_tokens, self.pad_token_id = row_tokens, pad_token_id
        self.rows_seen = 0
        self._lengths = np.array([len(item.ids) for item in conversations], np.int64)
        self._weights = np.array([item.weight for item in conversations], np.float64)
        phases = shuffled(len(conversations), seed, 0, _PHASE_STREAM)
        self._phases = phases / max(len(conversations), 1)  # [conversations] in [0, 1)
        self._ends = np.cumsum([len(self._rows_of(epoch)) for epoch in range(epochs)])
        self._epoch, self._rows = -1, list[list[int]]()

    @property
    def num_rows(self) -> int:
        """Rows of all epochs."""
        return int(self._ends[-1])

    @property
    def fingerprint(self) -> str:
        """Names the conversations, their masks and their order."""
        digest = hashlib.blake2b(f"{self.seed} {self.row_tokens}".encode(), digest_size=16)
        for item in self.conversations:
            digest.update(item.ids.tobytes() + item.learn.tobytes() + str(item.weight).encode())
        return digest.hexdigest()

    def next_batch(self, num_rows: int, rank: int = 0, world_size: int = 1) -> PackedTokens:
        """This rank's part of the next `num_rows` rows, filled up with blank ones at the end."""
        first, self.rows_seen = self.rows_seen, min(self.rows_seen + num_rows, self.num_rows)
        rows = [self._row(number) for number in range(first + rank, self.rows_seen, world_size)]
        count = -(-(self.rows_seen - first) // world_size)
        return fill_rows(rows, count, self.row_tokens, self.pad_token_id)

    def _row(self, number: int) -> list[Conversation]:
        epoch = int(np.searchsorted(self._ends, number, side="right"))
        if epoch != self._epoch:
            self._epoch, self._rows = epoch, self._rows_of(epoch)
        start = int(self._ends[epoch - 1]) if epoch else 0
        return [self.conversations[index] for index in self._rows[number - start]]

    def _rows_of(self, epoch: int) -> list[list[int]]:
        """The rows of an epoch as numbers of conversations."""
        # A weight of 0.5 is due in every other epoch; where it starts is the conversation's phase.
        due = [np.floor(e * self._weights + self._phases) for e in (epoch, epoch + 1)]
        copies = (due[1] - due[0]).astype(np.int64)  # [conversations]
        chosen = np.repeat(np.arange(len(copies)), copies)
        chosen = chosen[shuffled(len(chosen), self.seed, epoch, _ORDER_STREAM)]
        rows = pack_whole(self._lengths[chosen], self.row_tokens)
        order = shuffled(len(rows), self.seed, epoch, _ROW_STREAM)
        return [[int(chosen[place]) for place in rows[number]] for number in order]


def fill_rows(
    rows: Sequence[Sequence[Conversation]], num_rows: int, row_tokens: int, pad_token_id: int
) -> PackedTokens:
    """Rows of conversations as tensors [num_rows, row_tokens]; those beyond `rows` are blank."""
    shape = (num_rows, row_tokens)
    tokens = np.full(shape, pad_token_id, np.int64)
    document_idx = np.full(shape, -1, np.int32)
    learn = np.zeros(shape, bool)
    for row, conversations in enumerate(rows):
        begin = 0
        for number, conversation in enumerate(conversations):
            end = begin + len(conversation.ids)
            tokens[row, begin:end] = conversation.ids
            document_idx[row, begin:end] = number
            learn[row, begin:end] = conversation.learn
            begin = end
    parts = (torch.from_numpy(array) for array in (tokens, document_idx, learn))
    return PackedTokens(*parts)


def validation_batches(
    held_out: Sequence[Conversation],
    *,
    row_tokens: int,
    pad_token_id: int,
    max_tokens: int,
    rows_per_batch: int,
) -> Iterator[PackedTokens]:
    """The held-out conversations: `max_tokens` in whole rows, but at least one row."""
    packed = pack_whole(np.array([len(item.ids) for item in held_out], np.int64), row_tokens)
    rows = [[held_out[index] for index in row] for row in packed]
    rows = rows[: max(1, max_tokens // row_tokens)]
    for first in range(0, len(rows), rows_per_batch):
        batch = rows[first : first + rows_per_batch]
        yield fill_rows(batch, len(batch), row_tokens, pad_token_id)
