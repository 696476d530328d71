"""One function, several ways to compute it: naive, absorbed, cached, batched, packed."""

import pytest
import torch
from torch import Tensor

from rorqual.config import ModelConfig
from rorqual.errors import CapacityError, RequestError
from rorqual.kernels.ops import select_ops
from rorqual.model import (
    LatentCache,
    PackedTokens,
    Sampling,
    Transformer,
    generate,
    initialize,
)
from tests.conftest import YARN, small_config

CONFIGS = {
    "v3": small_config(),
    "no q-lora": small_config(q_lora_rank=None),
    "yarn": small_config(rope_scaling=YARN),
    "v2": small_config(
        model_type="deepseek_v2",
        scoring_func="softmax",
        topk_method="group_limited_greedy",
        norm_topk_prob=False,
    ),
}


def build(config: ModelConfig, kind: str = "auto") -> Transformer:
    model = Transformer(config, select_ops(kind))  # type: ignore[arg-type]
    initialize(model, seed=1)
    return model.eval()


def distance(ours: Tensor, reference: Tensor) -> float:
    return float((ours - reference).abs().max() / reference.abs().max())


def random_tokens(batch: int, length: int, seed: int = 0) -> Tensor:
    return torch.randint(2, 300, (batch, length), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", CONFIGS)
@torch.no_grad()
def test_absorbed_matches_naive(name: str) -> None:
    model, tokens = build(CONFIGS[name]), random_tokens(2, 70)
    absorbed = model.decode(tokens, LatentCache(model.config, 2, 70))
    assert distance(absorbed, model.logits(tokens)) < 1e-5


@pytest.mark.parametrize("name", CONFIGS)
@torch.no_grad()
def test_cached_decoding_matches_full_forward(name: str) -> None:
    model, tokens = build(CONFIGS[name]), random_tokens(2, 48)
    cache = LatentCache(model.config, 2, 48)
    pieces = [model.decode(tokens[:, :20], cache)]
    pieces += [model.decode(tokens[:, i : i + 1], cache) for i in range(20, 48)]
    assert distance(torch.cat(pieces, dim=1), model.logits(tokens)) < 1e-5
    assert cache.lengths.tolist() == [48, 48]


@torch.no_grad()
def test_native_and_twin_kernels_give_the_same_logits() -> None:
    tokens = random_tokens(2, 65)
    native = build(CONFIGS["v3"]).logits(tokens)
    assert distance(native, build(CONFIGS["v3"], "twin").logits(tokens)) < 1e-5


def test_batched_generation_matches_single() -> None:
    model = build(CONFIGS["v3"])
    prompts = [random_tokens(1, n, seed=n)[0].tolist() for n in (3, 11, 7)]
    sampling = Sampling(max_new_tokens=12, temperature=0.9, seed=5)
    together = generate(model, prompts, sampling)
    assert together == [generate(model, [prompt], sampling)[0] for prompt in prompts]
    assert all(len(row) == 12 or row[-1] == model.config.eos_token_id for row in together)


def test_greedy_generation_continues_with_the_likeliest_token() -> None:
    model, prompt = build(CONFIGS["v3"]), random_tokens(1, 9)[0].tolist()
    row = generate(model, [prompt], Sampling(max_new_tokens=5, temperature=0))[0]
    with torch.no_grad():
        for index, token in enumerate(row):
            logits = model.logits(torch.tensor([prompt + row[:index]]))[0, -1]
            assert token == int(logits.argmax())


def test_generation_stops_at_the_context_end_and_refuses_longer_prompts() -> None:
    model = build(small_config(max_position_embeddings=16))
    prompts = [random_tokens(1, n)[0].tolist() for n in (16, 10)]
    rows = generate(model, prompts, Sampling(max_new_tokens=50, temperature=0))
    assert [len(row) for row in rows] == [1, 7]
    with pytest.raises(RequestError, match="prompt of 17 tokens"):
        generate(model, [random_tokens(1, 17)[0].tolist()], Sampling())
    with pytest.raises(RequestError, match="prompt of 0 tokens"):
        generate(model, [[]], Sampling())


def test_sampling_refuses_nonsense_and_repeats_by_seed() -> None:
    for values in ({"temperature": -1.0}, {"top_p": 0.0}, {"max_new_tokens": 0}):
        with pytest.raises(RequestError):
            Sampling(**values)  # type: ignore[arg-type]
    model, prompt = build(CONFIGS["v3"]), [5, 6, 7]
    first = generate(model, [prompt], Sampling(max_new_tokens=20, seed=3))
    assert first == generate(model, [prompt], Sampling(max_new_tokens=20, seed=3))
    assert first != generate(model, [prompt], Sampling(max_new_tokens=20, seed=4))


@torch.no_grad()
def test_packed_documents_with_masks_match_separate_ones() -> None:
    model = build(CONFIGS["yarn"])
    documents = [random_tokens(1, n, seed=n) for n in (17, 30, 5)]
    row = torch.cat([*documents, random_tokens(1, 1)], dim=1)  # [1, 53]
    numbers = [torch.full((1, d.shape[1]), i) for i, d in enumerate(documents)]
    document_idx = torch.cat([*numbers, torch.full((1, 1), 3)], dim=1).int()
    start = PackedTokens(row, document_idx).document_start()
    packed = model.logits(row[:, :-1], start)
    separate = torch.cat([model.logits(document) for document in documents], dim=1)
    assert distance(packed, separate) < 1e-5
    unmasked = model.logits(row[:, :-1])
    assert distance(unmasked[:, 17:], separate[:, 17:]) > 1e-2


def test_cache_says_when_it_is_full() -> None:
    model = build(CONFIGS["v3"])
    cache = LatentCache(model.config, 1, 8)
    with pytest.raises(CapacityError, match="9 tokens exceeds the cache's 8"):
        model.decode(random_tokens(1, 9), cache)
