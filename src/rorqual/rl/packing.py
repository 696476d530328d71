"""Prompts and completions as packed rows, and the model's log-probabilities of what was written."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from rorqual.data.packing import pack_whole
from rorqual.model import PackedTokens, RoutingStatistics, Transformer


@dataclass(frozen=True, slots=True)
class PackedSequences:
    """Some of a step's sequences in rows.

    rows: PackedTokens of [B, T+1]; position [M]: where in the flattened [B, T] the token before
    each completion token stands; target [M]: that completion token; sequence [M]: which sequence
    it belongs to; order [M]: its place inside the completion.
    """

    rows: PackedTokens
    position: Tensor
    target: Tensor
    sequence: Tensor
    order: Tensor


def pack_sequences(
    prompts: Sequence[Sequence[int]],
    completions: Sequence[Sequence[int]],
    *,
    row_tokens: int,
    rows_per_batch: int,
    pad_token_id: int,
) -> Iterator[PackedSequences]:
    """Micro-batches of packed rows; every sequence is in exactly one."""
    lengths = [len(p) + len(c) for p, c in zip(prompts, completions, strict=True)]
    longest = max(lengths, default=0)
    rows = pack_whole(np.array(lengths, np.int64), max(row_tokens, longest))
    for begin in range(0, len(rows), rows_per_batch):
        yield _pack(prompts, completions, rows[begin : begin + rows_per_batch], pad_token_id)


def _pack(
    prompts: Sequence[Sequence[int]],
    completions: Sequence[Sequence[int]],
    rows: list[list[int]],
    pad_token_id: int,
) -> PackedSequences:
    width = max(sum(len(prompts[i]) + len(completions[i]) for i in row) for row in rows)
    tokens = torch.full((len(rows), width), pad_token_id)  # [B, T+1]
    document_idx = torch.full((len(rows), width), -1, dtype=torch.int32)
    position, target, sequence, order = [], [], [], []
    for row, members in enumerate(rows):
        column = 0
        for number, index in enumerate(members):
            ids = [*prompts[index], *completions[index]]
            tokens[row, column : column + len(ids)] = torch.tensor(ids)
            document_idx[row, column : column + len(ids)] = number
            first = column + len(prompts[index])
            for place in range(len(completions[index])):
                position.append(row * (width - 1) + first + place - 1)
            target += completions[index]
            sequence += [index] * len(completions[index])
            order += range(len(completions[index]))
            column += len(ids)
    found = (
        torch.tensor(column, dtype=torch.long) for column in (position, target, sequence, order)
    )
    return PackedSequences(PackedTokens(tokens, document_idx), *found)


@dataclass(frozen=True, slots=True)
class ScoredTokens:
    """logp [M] fp32 with gradient, routing of the layers that ran."""

    logp: Tensor
    routing: tuple[RoutingStatistics, ...]


def score_tokens(model: Transformer, batch: PackedSequences, dtype: torch.dtype) -> ScoredTokens:
    """Log-probabilities of the completion tokens under the model, at temperature 1, in fp32."""
    out = model(batch.rows.tokens[:, :-1], batch.rows.document_start(), dtype=dtype)
    hidden = out.hidden.flatten(0, 1)[batch.position]  # [M, H]
    logits = model.lm_head(hidden).float()  # [M, V] fp32
    log_probabilities = F.log_softmax(logits, dim=-1)  # [M, V]
    logp = log_probabilities.gather(1, batch.target[:, None])[:, 0]  # [M]
    return ScoredTokens(logp, out.routing)
