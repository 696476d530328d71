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
IDS = st.lists(st.integers(2, 99), min_size=1, max_size=9)
GROUPS = st.lists(
    st.tuples(IDS, st.lists(IDS, min_size=1, max_size=4)), min_size=1, max_size=8
)  # prompts, each with its completions


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


def seen_by(batch: PackedSequences, position: int) -> tuple[list[int], list[int]]:
    """What the token at a place of the flattened rows sees, itself last: ids and their places."""
    row, column = divmod(position, batch.tokens.shape[1])
    gap_start, gap_end = (int(t[row, column]) for t in batch.branches.gap)
    columns = [
        c
        for c in range(int(batch.document_start[row, column]), column + 1)
        if not gap_start <= c < gap_end
    ]
    return batch.tokens[row, columns].tolist(), batch.branches.position[row, columns].tolist()


@settings(max_examples=60)
@given(GROUPS, st.integers(2, 40), st.integers(1, 3))
def test_every_completion_token_is_a_target_once_behind_its_own_past(
    groups: list[tuple[list[int], list[list[int]]]], row_tokens: int, rows_per_batch: int
) -> None:
    prompts = [prompt for prompt, written in groups for _ in written]
    completions = [ids for _, written in groups for ids in written]
    batches = list(
        pack_sequences(
            prompts, completions, row_tokens=row_tokens, rows_per_batch=rows_per_batch,
            pad_token_id=1,
        )
    )  # fmt: skip
    seen: list[tuple[int, int]] = []
    for batch in batches:
        assert len(batch.tokens) <= rows_per_batch
        for position, target, sequence, order in zip(
            batch.position.tolist(), batch.target.tolist(), batch.sequence.tolist(),
            batch.order.tolist(), strict=True,
        ):  # fmt: skip
            whole = prompts[sequence] + completions[sequence]
            place = len(prompts[sequence]) + order
            assert target == whole[place]
            assert seen_by(batch, position) == (whole[:place], list(range(place)))
            seen.append((sequence, order))
    assert sorted(seen) == [(i, k) for i, ids in enumerate(completions) for k in range(len(ids))]


def test_a_prompt_is_fed_once_for_the_completions_that_fit_its_row() -> None:
    prompts, completions = [[5] * 10] * 5, [[7] * 6] * 5
    (batch,) = pack_sequences(prompts, completions, row_tokens=25, rows_per_batch=9, pad_token_id=1)
    # 10 + 3 x 5 fill a row; the other two completions need the prompt again.
    assert batch.tokens.shape == (2, 25)
    assert batch.num_fed == (10 + 15) + (10 + 10)


def test_a_packed_sequence_scores_as_it_does_alone(model_path: Path) -> None:
    model = load_model(model_path, dtype=torch.float32)
    prompts = [[5, 6, 7], [9], [9], [9], [20, 21, 22, 23, 24]]
    completions = [[30, 31], [40, 41, 42, 43], [44, 45], [46], [50]]
    (batch,) = pack_sequences(prompts, completions, row_tokens=64, rows_per_batch=4, pad_token_id=1)
    assert batch.tokens.shape == (1, 3 + 1 + 1 + 3 + 1 + 0 + 5 + 0)
    with torch.no_grad():
        logp = score_tokens(model, batch, torch.float32).logp
        for index, (prompt, completion) in enumerate(zip(prompts, completions, strict=True)):
            alone = model.logits(torch.tensor([prompt + completion])).log_softmax(-1)[0]  # [T, V]
            places = torch.arange(len(prompt) - 1, len(prompt) + len(completion) - 1)
            wanted = alone[places, torch.tensor(completion)]
            found = logp[batch.sequence == index]
            assert found.tolist() == pytest.approx(wanted.tolist(), abs=1e-5)
