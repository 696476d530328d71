"""Packing: every token once, rows full, documents whole where they can be."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rorqual.data.packing import PackedRows, pack_rows


def covered(rows: PackedRows, lengths: np.ndarray) -> list[np.ndarray]:
    """How often each token of each document occurs."""
    counts = [np.zeros(length, int) for length in lengths]
    for document, start, length in zip(rows.documents, rows.starts, rows.lengths, strict=True):
        counts[document][start : start + length] += 1
    return counts


def row_sums(rows: PackedRows) -> np.ndarray:
    return np.add.reduceat(rows.lengths, rows.offsets[:-1])


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 300), min_size=1, max_size=120),
    row_tokens=st.sampled_from([2, 9, 33, 129]),
)
def test_every_token_is_packed_exactly_once(lengths: list[int], row_tokens: int) -> None:
    sizes = np.array(lengths)
    rows = pack_rows(sizes, row_tokens)
    assert all((counts == 1).all() for counts in covered(rows, sizes))
    assert (row_sums(rows) <= row_tokens).all()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 900), min_size=1, max_size=200))
def test_padding_is_small_but_for_the_last_row(lengths: list[int]) -> None:
    rows = pack_rows(np.array(lengths), 257)
    gaps = 257 - row_sums(rows)
    assert (np.sort(gaps)[:-1] <= 257 // 128).all()


def test_less_than_two_percent_is_padded_on_mixed_lengths() -> None:
    lengths = np.random.default_rng(0).lognormal(5, 1.5, 5000).astype(np.int64) + 2
    for row_tokens in (129, 513, 2049):
        rows = pack_rows(lengths, row_tokens)
        assert 1 - lengths.sum() / (rows.num_rows * row_tokens) < 0.002


def test_documents_that_fit_together_are_not_cut() -> None:
    rows = pack_rows(np.array([7, 3, 6, 4, 5, 5]), 10)
    assert rows.num_rows == 3
    assert sorted(rows.documents.tolist()) == [0, 1, 2, 3, 4, 5]


def test_a_long_document_is_cut_into_full_rows_and_a_rest() -> None:
    rows = pack_rows(np.array([25, 5]), 10)
    assert row_sums(rows).tolist() == [10, 10, 10]
    assert rows.starts.tolist() == [0, 10, 0, 20]  # the last row begins at document 1's start


def test_the_longest_piece_is_cut_when_nothing_fits() -> None:
    rows = pack_rows(np.array([600, 600, 600]), 1000)
    assert row_sums(rows).tolist() == [1000, 800]


def test_a_gap_of_a_few_tokens_is_padded_rather_than_filled_by_cutting() -> None:
    rows = pack_rows(np.array([999, 999]), 1000)
    assert row_sums(rows).tolist() == [999, 999]


@pytest.mark.soak
def test_a_million_documents_pack_in_seconds_per_window() -> None:
    lengths = np.random.default_rng(1).lognormal(5, 1.5, 1_000_000).astype(np.int64) + 2
    rows = pack_rows(lengths, 4097)
    assert rows.lengths.sum() == lengths.sum()
