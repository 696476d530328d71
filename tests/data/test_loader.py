"""The loader: resumes bit for bit, whatever the world size and batch size; loses no token."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import rorqual.data.loader as loader_module
from rorqual.data import Batch, PackedLoader, validation_batches
from rorqual.data.index import TokenStore, load_index
from rorqual.errors import ConfigError, DataError

SHARED = settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def make_loader(index_path: Path, **changes: Any) -> PackedLoader:
    options: dict[str, Any] = {"sequence_length": 64, "sequences_per_batch": 4, "seed": 5}
    return PackedLoader(index_path, **{**options, **changes})


def rows_of(loader: PackedLoader, batches: int) -> np.ndarray:
    """Tokens and document numbers of the next batches, [rows, 2, T + 1]."""
    taken = [loader.next_batch() for _ in range(batches)]
    return np.concatenate([np.stack([b.tokens, b.document_idx], 1) for b in taken])


def one_epoch(loader: PackedLoader) -> list[Batch]:
    batches = []
    while loader.epoch == 0:
        batches.append(loader.next_batch())
    return batches


@SHARED
@given(stop=st.integers(0, 400), after=st.integers(1, 20))
def test_resumed_equals_uninterrupted(index_path: Path, stop: int, after: int) -> None:
    straight = make_loader(index_path)
    for _ in range(stop):
        straight.next_batch()
    state = json.loads(json.dumps(straight.state_dict()))
    resumed = make_loader(index_path)
    resumed.load_state_dict(state)
    np.testing.assert_array_equal(rows_of(straight, after), rows_of(resumed, after))
    assert straight.state_dict() == resumed.state_dict()


def test_resume_holds_across_windows_and_epochs(
    index_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loader_module, "_WINDOW_DOCUMENTS", 100)
    straight = make_loader(index_path)
    seen_windows = set()
    while straight.epoch < 2:
        state = straight.state_dict()
        seen_windows.add(state["window"])
        resumed = make_loader(index_path)
        resumed.load_state_dict(state)
        np.testing.assert_array_equal(rows_of(straight, 7), rows_of(resumed, 7))
    assert len(seen_windows) > 3


@pytest.mark.parametrize("world_size", [2, 4])
def test_row_order_does_not_depend_on_world_size(index_path: Path, world_size: int) -> None:
    alone = rows_of(make_loader(index_path, sequences_per_batch=8), 12).reshape(12, 8, 2, -1)
    for rank in range(world_size):
        loader = make_loader(index_path, sequences_per_batch=8, rank=rank, world_size=world_size)
        mine = rows_of(loader, 12).reshape(12, 8 // world_size, 2, -1)
        np.testing.assert_array_equal(mine, alone[:, rank::world_size])


def test_a_state_moves_to_another_world_size(index_path: Path) -> None:
    pair = [make_loader(index_path, rank=rank, world_size=2) for rank in (0, 1)]
    for _ in range(9):
        for loader in pair:
            loader.next_batch()
    assert pair[0].state_dict() == pair[1].state_dict()
    alone = make_loader(index_path)
    alone.load_state_dict(pair[1].state_dict())
    reference = make_loader(index_path)
    rows_of(reference, 9)
    np.testing.assert_array_equal(rows_of(alone, 5), rows_of(reference, 5))


def test_a_batch_ramp_keeps_the_order_of_rows(index_path: Path) -> None:
    ramp = make_loader(index_path, sequences_per_batch=2)
    first = rows_of(ramp, 3)
    ramp.sequences_per_batch = 6
    second = rows_of(ramp, 2)
    resumed = make_loader(index_path, sequences_per_batch=3)
    resumed.load_state_dict(ramp.state_dict())
    steady = rows_of(make_loader(index_path, sequences_per_batch=3), 7)
    np.testing.assert_array_equal(np.concatenate([first, second, rows_of(resumed, 1)]), steady)


def test_seeds_and_epochs_differ_in_order_alone(index_path: Path) -> None:
    one = make_loader(index_path, sequences_per_batch=1)
    other = make_loader(index_path, sequences_per_batch=1, seed=6)
    first = [batch.tokens for batch in one_epoch(one)]
    second = [batch.tokens for batch in one_epoch(other)]
    third = [one.next_batch().tokens for _ in first]
    assert not np.array_equal(np.concatenate(first), np.concatenate(third))
    counts = [np.bincount(np.concatenate(e).ravel(), minlength=700) for e in (first, second)]
    pad = load_index(index_path).pad_token_id
    counts[0][pad] = counts[1][pad] = 0
    np.testing.assert_array_equal(counts[0], counts[1])


def test_an_epoch_holds_every_token_of_every_document_once(index_path: Path) -> None:
    loader = make_loader(index_path, sequences_per_batch=1, sequence_length=48)
    batches = one_epoch(loader)
    tokens = np.concatenate([batch.tokens[batch.document_idx >= 0] for batch in batches])
    store = TokenStore(index_path, "train")
    stored = [store.read(i, 0, int(length)) for i, length in enumerate(store.lengths)]
    expected = np.concatenate(stored)
    np.testing.assert_array_equal(np.bincount(tokens), np.bincount(expected))
    assert loader.tokens_seen == len(tokens) == load_index(index_path).splits["train"].tokens
    rows = len(batches) * 49
    assert 1 - len(tokens) / rows < 0.02


def test_each_document_number_marks_one_stretch_of_one_document(index_path: Path) -> None:
    index, store = load_index(index_path), TokenStore(index_path, "train")
    stored = [
        f" {' '.join(map(str, store.read(i, 0, int(n))))} " for i, n in enumerate(store.lengths)
    ]
    batch = make_loader(index_path, sequences_per_batch=100).next_batch()
    stretches = 0
    for tokens, document_idx in zip(batch.tokens, batch.document_idx, strict=True):
        num_filled = int((document_idx >= 0).sum())
        assert (tokens[num_filled:] == index.pad_token_id).all()
        assert (document_idx[num_filled:] == -1).all()
        numbers = document_idx[:num_filled]
        assert np.unique(numbers).tolist() == list(range(numbers[-1] + 1))
        assert (np.diff(numbers) >= 0).all()
        for number in range(numbers[-1] + 1):
            stretch = f" {' '.join(map(str, tokens[document_idx == number]))} "
            assert any(stretch in document for document in stored)
            stretches += 1
    assert stretches > 120


def test_rows_start_at_a_document_where_one_begins_in_them(index_path: Path) -> None:
    bos = load_index(index_path).bos_token_id
    batch = make_loader(index_path, sequences_per_batch=100).next_batch()
    has_beginning = (batch.tokens == bos).any(axis=1)
    assert has_beginning.sum() > 20
    assert (batch.tokens[has_beginning, 0] == bos).all()


def test_batches_have_the_promised_shape_and_type(index_path: Path) -> None:
    batch = make_loader(index_path, world_size=2, rank=1).next_batch()
    assert batch.tokens.shape == batch.document_idx.shape == (2, 65)
    assert batch.tokens.dtype == batch.document_idx.dtype == np.int32


@pytest.mark.parametrize("language", ["en", "zh", "code"])
def test_validation_is_the_same_each_time_and_within_its_budget(
    index_path: Path, language: str
) -> None:
    def run(max_tokens: int) -> list[Batch]:
        options: dict[str, Any] = {"sequence_length": 32, "sequences_per_batch": 2}
        return list(validation_batches(index_path, language, max_tokens=max_tokens, **options))

    everything = run(10**9)
    held_out = load_index(index_path).splits[f"validation-{language}"].tokens
    assert sum((batch.document_idx >= 0).sum() for batch in everything) == held_out
    some = run(4 * 33)
    assert sum(batch.tokens.shape[0] for batch in some) == min(
        4, sum(batch.tokens.shape[0] for batch in everything)
    )
    np.testing.assert_array_equal(some[0].tokens, everything[0].tokens)
    assert len(run(1)) == 1


def test_a_state_of_other_shards_or_settings_is_refused(index_path: Path) -> None:
    loader = make_loader(index_path)
    state = loader.state_dict()
    with pytest.raises(DataError, match="rebuilt"):
        loader.load_state_dict({**state, "fingerprint": "another"})
    with pytest.raises(ConfigError, match="sequence_length"):
        make_loader(index_path, sequence_length=32).load_state_dict(state)
    with pytest.raises(ConfigError, match="seed"):
        make_loader(index_path, seed=1).load_state_dict(state)


def test_a_batch_that_ranks_cannot_share_is_refused(index_path: Path) -> None:
    with pytest.raises(ConfigError, match="sequences_per_batch=4 is not a multiple"):
        make_loader(index_path, world_size=3)
    with pytest.raises(ConfigError, match="rank=2"):
        make_loader(index_path, world_size=2, rank=2)


def test_a_language_without_held_out_text_is_named(index_path: Path) -> None:
    with pytest.raises(DataError, match="no split validation-fr"):
        next(
            validation_batches(
                index_path, "fr", sequence_length=8, sequences_per_batch=1, max_tokens=99
            )
        )
