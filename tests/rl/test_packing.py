"""Rows hold whole sequences, and every completion token is scored exactly once."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rorqual.checkpoint import load_model
from rorqual.data.packing import pack_whole
from rorqual.rl.packing import PackedSequences, pack_sequences, score_tokens

LENGTHS = st.lists(st.integers(1, 40), min_size=1, max_size=40)
PAIRS = st.lists(
    st.tuples(
        st.lists(st.integers(2, 99), min_size=1, max_size=9),
        st.lists(st.integers(2, 99), min_size=1, max_size=9),
    ),
    min_size=1,
    max_size=12,
)


@given(LENGTHS, st.integers(0, 30))
def test_rows_hold_every_sequence_once_and_are_not_over_full(
    lengths: list[int], spare: int
) -> None:
    row_tokens = max(lengths) + spare
    rows = pack_whole(np.array(lengths, np.int64), row_tokens)
    assert sorted(index for row in rows for index in row) == list(range(len(lengths)))
    filled = [sum(lengths[index] for index in row) for row in rows]
    assert max(filled) <= row_tokens
    # The shortest sequence of a later row had no room in any earlier one.
    for earlier in range(len(rows) - 1):
        shortest = min(lengths[index] for row in rows[earlier + 1 :] for index in row)
        assert filled[earlier] + shortest > row_tokens


def test_sequences_fill_gaps_that_longer_ones_leave() -> None:
    rows = pack_whole(np.array([6, 5, 4, 3, 2], np.int64), 10)
    assert sorted(map(sorted, rows)) == [[0, 2], [1, 3, 4]]


def unpack(batch: PackedSequences) -> list[list[int]]:
    """The documents of all rows."""
    found: list[list[int]] = []
    for tokens, documents in zip(batch.rows.tokens, batch.rows.document_idx, strict=True):
        for number in range(int(documents.max()) + 1):
            found.append(tokens[documents == number].tolist())
    return found


@settings(max_examples=60)
@given(PAIRS, st.integers(2, 40), st.integers(1, 3))
def test_every_completion_token_is_a_target_once(
    pairs: list[tuple[list[int], list[int]]], row_tokens: int, rows_per_batch: int
) -> None:
    prompts, completions = [p for p, _ in pairs], [c for _, c in pairs]
    batches = list(
        pack_sequences(
            prompts, completions, row_tokens=row_tokens, rows_per_batch=rows_per_batch,
            pad_token_id=1,
        )
    )  # fmt: skip
    seen: list[tuple[int, int]] = []
    for batch in batches:
        assert len(batch.rows.tokens) <= rows_per_batch
        inputs = batch.rows.tokens[:, :-1].flatten()
        starts = batch.rows.document_start()
        assert starts is not None
        columns = torch.arange(starts.shape[1]).expand_as(starts)
        depth = (columns - starts).flatten()  # tokens of the own document before this one
        for position, target, sequence, order in zip(
            batch.position.tolist(), batch.target.tolist(), batch.sequence.tolist(),
            batch.order.tolist(), strict=True,
        ):  # fmt: skip
            whole = prompts[sequence] + completions[sequence]
            place = len(prompts[sequence]) + order
            assert target == whole[place]
            assert inputs[position] == whole[place - 1]
            assert depth[position] == place - 1
            seen.append((sequence, order))
    assert sorted(seen) == [(i, k) for i, ids in enumerate(completions) for k in range(len(ids))]
    documents = [document for batch in batches for document in unpack(batch)]
    assert sorted(documents) == sorted(p + c for p, c in pairs)


def test_a_packed_sequence_scores_as_it_does_alone(model_path: Path) -> None:
    model = load_model(model_path, dtype=torch.float32)
    prompts = [[5, 6, 7], [9], [20, 21, 22, 23, 24]]
    completions = [[30, 31], [40, 41, 42, 43], [50]]
    (batch,) = pack_sequences(prompts, completions, row_tokens=64, rows_per_batch=4, pad_token_id=1)
    assert len(batch.rows.tokens) == 1
    with torch.no_grad():
        logp = score_tokens(model, batch, torch.float32).logp
        for index, (prompt, completion) in enumerate(zip(prompts, completions, strict=True)):
            alone = model.logits(torch.tensor([prompt + completion])).log_softmax(-1)[0]  # [T, V]
            places = torch.arange(len(prompt) - 1, len(prompt) + len(completion) - 1)
            wanted = alone[places, torch.tensor(completion)]
            found = logp[batch.sequence == index]
            assert found.tolist() == pytest.approx(wanted.tolist(), abs=1e-5)
