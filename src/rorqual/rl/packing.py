"""Prompts and completions as packed rows, and the model's log-probabilities of what was written.

Completions of one prompt stand behind it and share it: it is fed once for as many of them as fit a
row, and each sees the prompt and itself. What a token sees, and how far it is from what it sees, is
as if every completion followed a prompt of its own.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from rorqual.data.packing import pack_whole
from rorqual.model import Branches, Output, RoutingStatistics, Transformer

Ids = Sequence[int]


@dataclass(frozen=True, slots=True)
class PackedSequences:
    """Some of a step's sequences in rows; the last token of a completion is a target alone.

    tokens [B, T]: inputs; document_start [B, T] int32 and branches: what sees what; position [M]:
    where in the flattened [B, T] the token before each completion token stands; target [M]: that
    completion token; sequence [M]: which sequence it belongs to; order [M]: its place inside the
    completion; num_fed: inputs that are not padding.
    """

    tokens: Tensor
    document_start: Tensor
    branches: Branches
    position: Tensor
    target: Tensor
    sequence: Tensor
    order: Tensor
    num_fed: int

    def run(self, model: Transformer, dtype: torch.dtype) -> Output:
        """The model over all rows."""
        return model(self.tokens, self.document_start, self.branches, dtype=dtype)

    def select(self, hidden: Tensor) -> Tensor:
        """States [B, T, H] before each completion token: [M, H]"""
        return hidden.flatten(0, 1)[self.position]


@dataclass(frozen=True, slots=True)
class _Tree:
    """A prompt and those of its completions, by number, that share it."""

    prompt: Ids
    members: list[int]
    length: int


def pack_sequences(
    prompts: Sequence[Ids],
    completions: Sequence[Ids],
    *,
    row_tokens: int,
    rows_per_batch: int,
    pad_token_id: int,
) -> Iterator[PackedSequences]:
    """Micro-batches of packed rows; every sequence is in exactly one.

    Neighbours with the same prompt share it. Rows are as wide as the longest sequence if that is
    more than `row_tokens`.
    """
    alone = [len(p) + _num_fed(c) for p, c in zip(prompts, completions, strict=True)]
    row_tokens = max(row_tokens, *alone) if alone else row_tokens
    trees = list(_trees(prompts, completions, row_tokens))
    rows = pack_whole(np.array([tree.length for tree in trees], np.int64), row_tokens)
    for begin in range(0, len(rows), rows_per_batch):
        chosen = [[trees[i] for i in row] for row in rows[begin : begin + rows_per_batch]]
        yield _pack(chosen, completions, pad_token_id)


def _num_fed(completion: Ids) -> int:
    return max(len(completion) - 1, 0)


def _trees(prompts: Sequence[Ids], completions: Sequence[Ids], row_tokens: int) -> Iterator[_Tree]:
    for prompt, numbers in groupby(range(len(prompts)), key=lambda i: tuple(prompts[i])):
        members, length = list[int](), len(prompt)
        for number in numbers:
            more = _num_fed(completions[number])
            if members and length + more > row_tokens:
                yield _Tree(prompt, members, length)
                members, length = [], len(prompt)
            members.append(number)
            length += more
        yield _Tree(prompt, members, length)


@dataclass(slots=True)
class _Row:
    """Columns of one row; before: where each completion token is predicted."""

    tokens: list[int] = field(default_factory=list)
    start: list[int] = field(default_factory=list)
    place: list[int] = field(default_factory=list)
    gap_start: list[int] = field(default_factory=list)
    gap_end: list[int] = field(default_factory=list)
    before: list[int] = field(default_factory=list)

    def add(self, tree: _Tree, completions: Sequence[Ids]) -> None:
        """Append a tree: the prompt, then each completion but its last token."""
        start, width = len(self.tokens), len(tree.prompt)
        self._extend(tree.prompt, start, 0, 0)
        for number in tree.members:
            ids, own = completions[number], len(self.tokens)
            self._extend(ids[:-1], start, width, own)
            if ids:
                self.before += [start + width - 1, *range(own, len(self.tokens))]

    def _extend(self, ids: Ids, start: int, place: int, own: int) -> None:
        """Tokens from `place` of their sequence on; own: where they stand, if behind a prompt."""
        self.tokens += ids
        self.start += [start] * len(ids)
        self.place += range(place, place + len(ids))
        self.gap_start += [start + place if own else 0] * len(ids)
        self.gap_end += [own] * len(ids)

    def pad(self, width: int, pad_token_id: int) -> None:
        """Fill up to `width` with tokens that see themselves alone."""
        missing = width - len(self.tokens)
        self.start += range(len(self.tokens), width)
        self.tokens += [pad_token_id] * missing
        for column in (self.place, self.gap_start, self.gap_end):
            column += [0] * missing


def _pack(
    trees: list[list[_Tree]], completions: Sequence[Ids], pad_token_id: int
) -> PackedSequences:
    rows = [_Row() for _ in trees]
    for row, members in zip(rows, trees, strict=True):
        for tree in members:
            row.add(tree, completions)
    num_fed, width = sum(len(row.tokens) for row in rows), max(len(row.tokens) for row in rows)
    for row in rows:
        row.pad(width, pad_token_id)
    written = [number for members in trees for tree in members for number in tree.members]

    def grid(columns: list[list[int]], dtype: torch.dtype = torch.int32) -> Tensor:
        return torch.tensor(columns, dtype=dtype)

    def joined(parts: Sequence[Sequence[int]]) -> Tensor:
        return torch.tensor([x for part in parts for x in part], dtype=torch.long)

    return PackedSequences(
        tokens=grid([row.tokens for row in rows], torch.long),
        document_start=grid([row.start for row in rows]),
        branches=Branches(
            grid([row.place for row in rows], torch.long),
            (grid([row.gap_start for row in rows]), grid([row.gap_end for row in rows])),
        ),
        position=joined([[i * width + c for c in row.before] for i, row in enumerate(rows)]),
        target=joined([completions[number] for number in written]),
        sequence=joined([[number] * len(completions[number]) for number in written]),
        order=joined([range(len(completions[number])) for number in written]),
        num_fed=num_fed,
    )


@dataclass(frozen=True, slots=True)
class ScoredTokens:
    """logp [M] fp32 with gradient, routing of the layers that ran."""

    logp: Tensor
    routing: tuple[RoutingStatistics, ...]


def score_tokens(model: Transformer, batch: PackedSequences, dtype: torch.dtype) -> ScoredTokens:
    """Log-probabilities of the completion tokens under the model, at temperature 1, in fp32."""
    out = batch.run(model, dtype)
    logits = model.lm_head(batch.select(out.hidden)).float()  # [M, V] fp32
    log_probabilities = F.log_softmax(logits, dim=-1)  # [M, V]
    logp = log_probabilities.gather(1, batch.target[:, None])[:, 0]  # [M]
    return ScoredTokens(logp, out.routing)
