"""Native sampling against its numpy twin, its distribution, and its independence of neighbours."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from rorqual.errors import ConfigError
from rorqual.kernels.library import Library
from rorqual.kernels.sampling import SamplingRows, sample
from rorqual.kernels.sampling_twin import sample_twin

VOCABULARY = 1000


def rows_of(count: int, vocabulary: int = VOCABULARY, **changes: Any) -> SamplingRows:
    """Plain sampling at temperature 1, with the named arrays or numbers changed."""
    fields: dict[str, Any] = {
        "temperature": np.float32(1),
        "top_k": np.int32(0),
        "top_p": np.float32(1),
        "min_p": np.float32(0),
        "uniform": np.float64(0.5),
        "allowed_row": np.int32(-1),
    }
    arrays = {
        name: np.ascontiguousarray(
            np.broadcast_to(np.asarray(changes.pop(name, value), value.dtype), count)
        )
        for name, value in fields.items()
    }
    allowed = changes.pop("allowed", np.zeros((0, (vocabulary + 31) // 32), np.uint32))
    return SamplingRows(**arrays, allowed=allowed)


def random_rows(count: int, rng: np.random.Generator) -> SamplingRows:
    """Every setting at random, masks included."""
    words = (VOCABULARY + 31) // 32
    allowed = rng.integers(0, 2**32, (4, words), dtype=np.uint64).astype(np.uint32)
    return rows_of(
        count,
        temperature=rng.choice([0.0, 0.3, 0.7, 1.0, 2.0], count),
        top_k=rng.choice([0, 0, 1, 5, 40, 999, 5000], count),
        top_p=rng.choice([1.0, 1.0, 0.95, 0.5, 0.01], count),
        min_p=rng.choice([0.0, 0.0, 0.02, 0.3], count),
        uniform=rng.random(count),
        allowed_row=rng.choice([-1, -1, 0, 1, 2, 3], count),
        allowed=allowed,
    )


def random_logits(count: int, rng: np.random.Generator) -> NDArray[np.float32]:
    logits = rng.normal(0, 3, (count, VOCABULARY)).astype(np.float32)
    logits[::3] = np.round(logits[::3])  # ties
    return logits


def test_picks_what_the_twin_picks(library: Library) -> None:
    rng = np.random.default_rng(0)
    for isa in library.instruction_sets():
        logits, rows = random_logits(400, rng), random_rows(400, rng)
        ours, twin = sample(library.using(isa=isa), logits, rows), sample_twin(logits, rows)
        same = ours.ids == twin.ids
        assert same.mean() >= 0.995
        np.testing.assert_allclose(ours.logprobs[same], twin.logprobs[same], atol=2e-5)
        np.testing.assert_allclose(ours.drawn_logprobs[same], twin.drawn_logprobs[same], atol=2e-4)


@pytest.mark.parametrize("spread", [0.0, 0.01, 0.3, 8.0, 60.0])
def test_edges_lie_where_the_twin_has_them(library: Library, spread: float) -> None:
    """Nearly equal weights need every digit of a weight, steep ones leave most digits empty."""
    rng = np.random.default_rng(2)
    count, vocabulary = 60, 5000
    logits = rng.normal(0, spread, (count, vocabulary)).astype(np.float32)
    logits[::4] = np.round(logits[::4], 2)
    rows = rows_of(
        count, vocabulary,
        top_k=rng.choice([0, 1, 2, 700, 4999], count),
        top_p=rng.choice([1.0, 1e-9, 0.3, 0.95, 1 - 2**-24], count),
        min_p=rng.choice([0.0, 0.0, 0.5, 1.0], count),
        uniform=rng.choice([0.0, 0.2, 0.999999], count),
    )  # fmt: skip
    twin = sample_twin(logits, rows)
    for isa in library.instruction_sets():
        ours = sample(library.using(isa=isa), logits, rows)
        same = ours.ids == twin.ids
        assert same.mean() >= 0.95
        np.testing.assert_allclose(ours.drawn_logprobs[same], twin.drawn_logprobs[same], atol=1e-3)


def test_the_largest_uniform_number_picks_the_last_that_is_kept(library: Library) -> None:
    """Sums taken in another order may fall short of their own total by a rounding."""
    rng = np.random.default_rng(3)
    count, vocabulary = 500, 1000
    logits = rng.uniform(-30, 0, (count, vocabulary)).astype(np.float32)
    logits[:, 0] = -30.0
    logits[:, 500:] = -30.0005  # behind the last that is kept come many that are not
    rows = rows_of(count, vocabulary, top_k=np.int32(500), uniform=np.nextafter(1.0, 0.0))
    np.testing.assert_array_equal(sample(library, logits, rows).ids, 499)


def test_rows_do_not_see_their_neighbours_or_the_threads(library: Library) -> None:
    rng = np.random.default_rng(1)
    logits, rows = random_logits(64, rng), random_rows(64, rng)
    together = sample(library.using(num_threads=3), logits, rows)
    order = rng.permutation(64)
    fields = ("temperature", "top_k", "top_p", "min_p", "uniform", "allowed_row")
    shuffled = SamplingRows(
        **{name: getattr(rows, name)[order] for name in fields}, allowed=rows.allowed
    )
    apart = sample(library.using(num_threads=1), logits[order], shuffled)
    np.testing.assert_array_equal(apart.ids, together.ids[order])
    np.testing.assert_array_equal(apart.logprobs, together.logprobs[order])


def test_picks_follow_the_distribution(library: Library) -> None:
    count = 20_000
    row = np.array([2.0, 1.0, 0.0, -1.0, -9.0], np.float32)
    logits = np.repeat(row[None], count, axis=0)
    uniform = (np.arange(count) + 0.5) / count
    rows = rows_of(count, 5, temperature=0.5, uniform=uniform)
    shares = np.bincount(sample(library, logits, rows).ids, minlength=5) / count
    expected = np.exp(row / 0.5) / np.exp(row / 0.5).sum()
    np.testing.assert_allclose(shares, expected, atol=1e-4)


@pytest.mark.parametrize("draw", [lambda library, *rest: sample(library, *rest),
                                  lambda library, *rest: sample_twin(*rest)])  # fmt: skip
def test_filters_keep_what_they_say(library: Library, draw: Any) -> None:
    probabilities = np.array([0.1, 0.4, 0.1, 0.3, 0.1])
    logits = np.repeat(np.log(probabilities).astype(np.float32)[None], 200, axis=0)
    uniform = (np.arange(200) + 0.5) / 200

    def picked(**changes: Any) -> set[int]:
        rows = rows_of(200, 5, uniform=uniform, **changes)
        return set(draw(library, logits, rows).ids.tolist())

    assert picked() == {0, 1, 2, 3, 4}
    assert picked(temperature=0.0) == {1}
    assert picked(top_k=1) == {1}
    assert picked(top_k=3) == {0, 1, 3}  # of equals the first
    assert picked(top_p=0.69) == {1, 3}
    assert picked(top_p=0.75) == {0, 1, 3}
    assert picked(top_p=1e-6) == {1}
    assert picked(min_p=0.5) == {1, 3}
    assert picked(top_k=2, top_p=0.5) == {1}  # top-p is of what top-k left
    only = np.array([[0b10001]], np.uint32)
    assert picked(allowed=only, allowed_row=0) == {0, 4}
    assert picked(allowed=only, allowed_row=0, temperature=0.0) == {0}


@pytest.mark.parametrize("native", [True, False])
def test_rows_without_a_pick_say_so(library: Library, native: bool) -> None:
    logits = np.zeros((3, 40), np.float32)
    logits[1, 7] = np.nan
    logits[2] = -np.inf
    rows = rows_of(3, 40, allowed=np.zeros((1, 2), np.uint32), allowed_row=[0, -1, -1])
    found = sample(library, logits, rows) if native else sample_twin(logits, rows)
    np.testing.assert_array_equal(found.ids, [-1, -1, -1])
    assert np.isnan(found.logprobs).all()


def test_infinite_logits_forbid_a_token(library: Library) -> None:
    logits = np.full((100, 50), -np.inf, np.float32)
    logits[:, [3, 30]] = 0.0
    rows = rows_of(100, 50, uniform=np.linspace(0, 0.999, 100))
    assert set(sample(library, logits, rows).ids.tolist()) == {3, 30}


def test_arrays_that_do_not_fit_are_named(library: Library) -> None:
    logits = np.zeros((2, 40), np.float32)
    with pytest.raises(ConfigError, match="temperature is float32"):
        sample(library, logits, rows_of(3, 40))
    with pytest.raises(ConfigError, match="allowed is uint32"):
        sample(library, logits, rows_of(2, 100))
    with pytest.raises(ConfigError, match="allowed_row names row 0 of 0"):
        sample(library, logits, rows_of(2, 40, allowed_row=0))
