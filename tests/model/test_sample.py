"""Batched sampling against the plain decode loop, and what its figures mean."""

from typing import NamedTuple

import pytest
import torch

from rorqual.config import ModelConfig
from rorqual.config.run import load_run_config
from rorqual.errors import RequestError
from rorqual.model import Sampling, Transformer, generate, initialize, sample_completions


class Small(NamedTuple):
    model: Transformer
    config: ModelConfig


@pytest.fixture(scope="module")
def small() -> Small:
    config = load_run_config("tiny").model
    model = Transformer(config)
    initialize(model, seed=1)
    with torch.no_grad():
        model.lm_head.weight.mul_(30)  # peaked enough that greedy has no ties
    return Small(model, config)


PROMPTS = [[5, 6, 7], [9, 10, 11, 12, 13, 14], [5, 6, 7], [400]]


def test_greedy_equals_the_reference_decode_path(small: Small) -> None:
    wanted = generate(small.model, PROMPTS, Sampling(max_new_tokens=12, temperature=0))
    found = sample_completions(
        small.model, PROMPTS, seeds=[1, 2, 3, 4], max_new_tokens=12, temperature=0
    )
    assert [completion.ids for completion in found] == wanted


def test_logprobs_are_the_models_own(small: Small) -> None:
    found = sample_completions(small.model, PROMPTS, seeds=[1, 2, 3, 4], max_new_tokens=20)
    for prompt, completion in zip(PROMPTS, found, strict=True):
        tokens = torch.tensor([prompt + completion.ids])
        with torch.no_grad():
            logp = small.model.logits(tokens).log_softmax(-1)[0]  # [T, V]
        begin = len(prompt) - 1
        places = torch.arange(begin, begin + len(completion.ids))
        wanted = logp[places, torch.tensor(completion.ids)]
        torch.testing.assert_close(torch.tensor(completion.logprobs), wanted, rtol=0, atol=1e-4)
        entropy = -(logp.exp() * logp).sum(-1)[places].mean()
        assert completion.entropy == pytest.approx(float(entropy), abs=1e-4)


def test_a_row_depends_on_its_own_seed_alone(small: Small) -> None:
    together = sample_completions(small.model, PROMPTS, seeds=[7, 8, 9, 10], max_new_tokens=16)
    alone = [
        sample_completions(small.model, [prompt], seeds=[seed], max_new_tokens=16)[0]
        for prompt, seed in zip(PROMPTS, [7, 8, 9, 10], strict=True)
    ]
    assert [c.ids for c in together] == [c.ids for c in alone]
    assert together[0].ids != together[2].ids  # the same prompt, another seed
    split = sample_completions(
        small.model, PROMPTS, seeds=[7, 8, 9, 10], max_new_tokens=16, max_rows=2
    )
    assert [c.ids for c in split] == [c.ids for c in together]


def test_tokens_come_as_often_as_their_probability_says(small: Small) -> None:
    count = 4000
    found = sample_completions(
        small.model, [[5, 6, 7]] * count, seeds=range(count), max_new_tokens=1, max_rows=count
    )
    with torch.no_grad():
        p = small.model.logits(torch.tensor([[5, 6, 7]]))[0, -1].softmax(-1)
    seen = torch.bincount(torch.tensor([c.ids[0] for c in found]), minlength=len(p)) / count
    likely = p > 0.02
    error = (seen - p)[likely].abs() / (p * (1 - p) / count).sqrt()[likely]
    assert likely.any() and error.max() < 4.5  # standard deviations


def test_rows_end_at_the_end_token_and_at_the_context(small: Small) -> None:
    limit = small.config.max_position_embeddings
    long = [3 + i % 50 for i in range(limit - 4)]
    found = sample_completions(small.model, [long, [5]], seeds=[1, 2], max_new_tokens=300)
    assert len(found[0].ids) <= 5
    for completion in found:
        eos = small.config.eos_token_id
        assert completion.ended == (completion.ids[-1] == eos)
        assert eos not in completion.ids[:-1]


def test_a_stop_returns_what_there_is(small: Small) -> None:
    calls = iter([False, False, True])
    found = sample_completions(
        small.model, [[5, 6]], seeds=[0], max_new_tokens=50, should_stop=lambda: next(calls)
    )
    assert len(found[0].ids) == 3


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"seeds": [1]}, "seeds"),
        ({"seeds": [1, -1, 2, 3]}, "seed"),
        ({"max_new_tokens": 0}, "max_new_tokens"),
        ({"temperature": -1.0}, "temperature"),
    ],
)
def test_bad_requests_are_named(small: Small, change: dict[str, object], named: str) -> None:
    arguments = {"seeds": [1, 2, 3, 4], "max_new_tokens": 4} | change
    with pytest.raises(RequestError, match=named):
        sample_completions(small.model, PROMPTS, **arguments)
