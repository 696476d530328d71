"""Drawing tokens: distributions, truncation, figures; penalties and biases."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from rorqual.engine.adjust import LogitAdjuster
from rorqual.engine.requests import SamplingParams
from rorqual.engine.sampler import Draws, draw_tokens, likeliest, log_normalizers
from rorqual.engine.sequence import Uniforms
from rorqual.errors import RequestError
from rorqual.kernels.library import native_library
from rorqual.kernels.sampling import SamplingRows


def draw(
    logits: NDArray[np.float32],
    uniform: NDArray[np.float64],
    *,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    min_p: float = 0.0,
    policy_stats: bool = False,
) -> Draws:
    """One row of logits [V], drawn with every number in uniform [S]."""
    count = len(uniform)
    rows = SamplingRows(
        np.full(count, temperature, np.float32),
        np.full(count, top_k, np.int32),
        np.full(count, top_p, np.float32),
        np.full(count, min_p, np.float32),
        uniform,
        *no_masks(count, len(logits)),
    )
    tiled = np.tile(logits, (count, 1))
    return draw_tokens(native_library(), tiled, rows, policy_stats=policy_stats)


def no_masks(count: int, size: int) -> tuple[NDArray[np.uint32], NDArray[np.int32]]:
    return np.zeros((0, (size + 31) // 32), np.uint32), np.full(count, -1, np.int32)


def even(count: int) -> NDArray[np.float64]:
    return (np.arange(count) + 0.5) / count


def random_logits(size: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(0, 3, size).astype(np.float32)


@pytest.mark.parametrize("size", [3, 127, 128, 129, 300, 1280])
@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_frequencies_are_the_probabilities(size: int, temperature: float) -> None:
    logits = random_logits(size)
    drawn = draw(logits, even(4000), temperature=temperature)
    counts = np.bincount(drawn.token_ids, minlength=size) / 4000
    expected = torch.tensor(logits / temperature).double().softmax(0).numpy()
    assert np.abs(counts - expected).max() <= 1.5 / 4000  # stratified: no sampling noise


@given(
    seed=st.integers(0, 1000),
    size=st.sampled_from([5, 200, 3000]),
    top_k=st.integers(0, 6),
    top_p=st.floats(0.05, 1.0),
    min_p=st.floats(0.0, 0.5),
)
@settings(max_examples=40, deadline=None)
def test_truncation_keeps_what_it_should(
    seed: int, size: int, top_k: int, top_p: float, min_p: float
) -> None:
    logits = random_logits(size, seed)
    p = torch.tensor(logits).double().softmax(0).numpy()
    order = np.argsort(-p, kind="stable")
    kept = [i for i in order if p[i] >= min_p * p.max()]
    kept = kept[:top_k] if top_k else kept
    mass = np.cumsum(p[kept]) / p[kept].sum()
    kept = [i for i, before in zip(kept, [0.0, *mass[:-1]], strict=True) if before < top_p]
    drawn = draw(logits, even(500), top_k=top_k, top_p=top_p, min_p=min_p).token_ids
    assert set(drawn.tolist()) <= set(kept)
    assert order[0] in drawn
    expected = p[kept] / p[kept].sum()
    counts = np.array([np.count_nonzero(drawn == i) for i in kept]) / 500
    assert np.abs(counts - expected).max() < 0.02


def test_a_nucleus_wider_than_a_thousand_tokens() -> None:
    logits = np.zeros(5000, dtype=np.float32)
    logits[7] = 1.0
    drawn = draw(logits, even(3000), top_p=0.9).token_ids
    assert 0.88 * 5000 <= drawn.max() <= 0.92 * 5000  # equal probabilities stay by id


def test_figures_are_those_of_the_distribution_drawn_from() -> None:
    logits = random_logits(700)
    drawn = draw(logits, even(64), temperature=0.8, policy_stats=True)
    logp = (torch.tensor(logits).double() / 0.8).log_softmax(0)
    assert drawn.logprobs is not None and drawn.entropies is not None
    assert np.allclose(drawn.logprobs, logp[drawn.token_ids].numpy(), atol=1e-5)
    assert np.allclose(drawn.entropies, -float((logp.exp() * logp).sum()), atol=1e-4)


def test_temperature_zero_takes_the_likeliest_beside_drawn_rows() -> None:
    logits = np.stack([random_logits(300, seed) for seed in range(3)])
    rows = SamplingRows(
        np.array([0, 1, 0], np.float32), np.zeros(3, np.int32), np.ones(3, np.float32),
        np.zeros(3, np.float32), np.array([0.9, 0.999, 0.9]), *no_masks(3, 300),
    )  # fmt: skip
    picked = draw_tokens(native_library(), logits, rows).token_ids
    assert np.array_equal(picked, draw_tokens(None, logits, rows).token_ids)
    assert picked[0] == logits[0].argmax() and picked[2] == logits[2].argmax()


def test_forbidden_tokens_are_never_drawn_even_at_the_edges() -> None:
    for size in (64, 128, 200, 256):
        logits = np.full(size, -np.inf, dtype=np.float32)
        logits[3], logits[size // 2] = 1.0, 0.0
        uniform = np.array([0.0, np.nextafter(1.0, 0.0), 0.5])
        assert set(draw(logits, uniform, policy_stats=True).token_ids) <= {3, size // 2}


def test_logprobs_of_the_likeliest() -> None:
    logits = random_logits(500)
    (normalizer,) = log_normalizers(logits[None])
    expected = torch.tensor(logits).double().log_softmax(0).sort(descending=True)
    found = likeliest(logits, float(normalizer), 5)
    assert [token for token, _ in found] == expected.indices[:5].tolist()
    assert np.allclose([value for _, value in found], expected.values[:5], atol=1e-5)
    assert likeliest(logits, float(normalizer), 0) == ()


def test_uniform_numbers_are_the_ones_that_training_draws() -> None:
    stream = Uniforms(2**64 - 3, 0)
    expected = np.random.Generator(np.random.Philox(key=2**64 - 3)).random(200)
    assert [stream.at(number) for number in range(200)] == expected.tolist()
    assert Uniforms(5, 1).at(0) != Uniforms(5, 0).at(0)


def adjusted(params: SamplingParams, prompt: list[int], written: list[int]) -> NDArray[np.float32]:
    adjuster = LogitAdjuster(params, np.array(prompt, np.int32), 8, (1,), None)
    for token in written:
        adjuster.advance(token, thinking=False)
    logits = np.array([1, 1, 1, 1, -1, -1, -1, -1], dtype=np.float32)
    adjuster.apply(logits)
    return logits


def test_penalties_as_defined() -> None:
    repeated = adjusted(SamplingParams(repetition_penalty=2.0), [0, 4], [1, 5, 5])
    assert repeated.tolist() == [0.5, 0.5, 1, 1, -2, -2, -1, -1]
    counted = adjusted(SamplingParams(frequency_penalty=0.5), [0, 4], [1, 5, 5])
    assert counted.tolist() == [1, 0.5, 1, 1, -1, -2, -1, -1]
    present = adjusted(SamplingParams(presence_penalty=0.5), [0, 4], [1, 5, 5])
    assert present.tolist() == [1, 0.5, 1, 1, -1, -1.5, -1, -1]


def test_bias_and_minimum_length() -> None:
    biased = adjusted(SamplingParams(logit_bias={2: 3.0, 7: -100.0}), [0], [])
    assert biased.tolist() == [1, 1, 4, 1, -1, -1, -1, -101]
    assert adjusted(SamplingParams(min_tokens=2), [0], [3])[1] == -np.inf
    assert adjusted(SamplingParams(min_tokens=2), [0], [3, 3])[1] == 1


@pytest.mark.parametrize(
    "fields",
    [
        {"top_p": 0.0},
        {"min_p": 1.5},
        {"presence_penalty": 3.0},
        {"repetition_penalty": 0.0},
        {"max_tokens": -1},
        {"logprobs": 21},
        {"seed": 2**64},
        {"stop": ("",)},
        {"logit_bias": {3: float("nan")}},
        {"policy_stats": True, "top_p": 0.9},
    ],
)
def test_parameters_out_of_range_are_refused_by_name(fields: dict[str, object]) -> None:
    with pytest.raises(RequestError) as caught:
        SamplingParams(**fields)  # type: ignore[arg-type]
    assert caught.value.param == next(iter(fields))
