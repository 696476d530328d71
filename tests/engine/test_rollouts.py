"""Rollouts on the engine: the trainer's own sampler is the oracle."""

import pytest
import torch

from rorqual.config.run import load_run_config
from rorqual.engine.rollouts import EngineSampler
from rorqual.kernels.library import native_library
from rorqual.model import Completion, Transformer, initialize, sample_completions

pytestmark = pytest.mark.skipif(native_library() is None, reason="needs the native kernels")
PROMPTS = [[5, 6, 7], [5, 6, 7], [9, 4], list(range(3, 60)), [8]] * 3
SEEDS = list(range(len(PROMPTS)))


@pytest.fixture(scope="module")
def model() -> Transformer:
    config = load_run_config("tiny").model
    model = Transformer(config.model_copy(update={"initializer_range": 0.2}))
    initialize(model, 3)
    return model.eval()


def assert_alike(found: list[Completion], expected: list[Completion]) -> None:
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.ids == theirs.ids and ours.ended == theirs.ended
        assert ours.logprobs == pytest.approx(theirs.logprobs, abs=1e-4)
        assert ours.entropy == pytest.approx(theirs.entropy, abs=1e-4)


@pytest.mark.parametrize("temperature", [1.0, 0.7, 0.0])
def test_draws_what_the_twin_draws(model: Transformer, temperature: float) -> None:
    asked = {"seeds": SEEDS, "max_new_tokens": 40, "temperature": temperature}
    expected = sample_completions(model, PROMPTS, **asked)
    assert len({len(completion.ids) for completion in expected}) > 1 or temperature == 0.0
    for max_rows in (4, 256):
        assert_alike(EngineSampler()(model, PROMPTS, max_rows=max_rows, **asked), expected)


def test_routes_are_the_twins(model: Transformer) -> None:
    asked = {"seeds": SEEDS, "max_new_tokens": 20, "record_routes": True}
    found = EngineSampler()(model, PROMPTS, **asked)
    for ours, theirs in zip(found, sample_completions(model, PROMPTS, **asked), strict=True):
        assert ours.routes is not None and theirs.routes is not None
        fed = len(ours.ids) - 1
        assert ours.routes.shape[0] == theirs.routes.shape[0] == fed
        assert torch.equal(ours.routes.sort(-1).values, theirs.routes.sort(-1).values)


def test_new_weights_are_used_at_the_next_call(model: Transformer) -> None:
    asked = {"seeds": SEEDS, "max_new_tokens": 20}
    sampler, changed = EngineSampler(), Transformer(model.config)
    changed.load_state_dict(model.state_dict())
    before = sampler(changed, PROMPTS, **asked)
    with torch.no_grad():
        for parameter in changed.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    after = sampler(changed, PROMPTS, **asked)
    assert [c.ids for c in after] != [c.ids for c in before]
    assert_alike(after, sample_completions(changed, PROMPTS, **asked))


def test_stopping_gives_back_what_there_is(model: Transformer) -> None:
    calls: list[None] = []

    def should_stop() -> bool:
        calls.append(None)
        return len(calls) > 5

    found = EngineSampler()(
        model, PROMPTS, seeds=SEEDS, max_new_tokens=400, should_stop=should_stop
    )
    assert len(found) == len(PROMPTS)
    assert 0 < max(len(completion.ids) for completion in found) < 20
