"""The torch runner against transformers, and against itself in other batches."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from numpy.typing import NDArray

from rorqual.checkpoint.weights import Weights, open_weights
from rorqual.config import YarnConfig, model_config_to_hf
from rorqual.engine.torch_runner import TorchRunner
from rorqual.errors import ConfigError
from rorqual.kernels.step import BLOCK_TOKENS, StepBatch, StepOutput
from tests.conftest import small_config

TOLERANCE = 1e-4
YARN = YarnConfig(
    factor=8.0, original_max_position_embeddings=16, mscale=1.0, mscale_all_dim=1.0, beta_fast=4
)
V2 = {
    "model_type": "deepseek_v2",
    "scoring_func": "softmax",
    "topk_method": "greedy",
    "norm_topk_prob": False,
    "n_group": 1,
    "topk_group": 1,
}
DENSE: dict[str, Any] = {
    "vocab_size": 300,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 512,
    "initializer_range": 0.2,
    "tie_word_embeddings": False,
    "bos_token_id": 0,
    "eos_token_id": 1,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500_000.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}


def deepseek(**fields: Any) -> dict[str, Any]:
    return model_config_to_hf(small_config(**fields), dtype="float32")


CASES: dict[str, dict[str, Any]] = {
    "v3": deepseek(),
    "v3_yarn_direct_q": deepseek(q_lora_rank=None, rope_scaling=YARN),
    "v2": deepseek(**V2),
    "v2_groups": deepseek(
        **{**V2, "topk_method": "group_limited_greedy", "n_group": 4, "topk_group": 2}
    ),
    "llama": {"model_type": "llama", **DENSE},
    "llama3_tied": {
        "model_type": "llama", **DENSE, "tie_word_embeddings": True, "rope_parameters": LLAMA3,
    },
    "qwen2": {"model_type": "qwen2", **DENSE, "head_dim": None},
    "qwen3": {"model_type": "qwen3", **DENSE, "head_dim": 24},
}  # fmt: skip


@pytest.fixture(autouse=True, scope="module")
def _quiet() -> Iterator[None]:
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    yield


def random_peer(raw: dict[str, Any], path: Path) -> tuple[Any, Weights]:
    """A random model in transformers, and what it saves as we open it."""
    raw = {key: value for key, value in raw.items() if value is not None or key != "head_dim"}
    path.mkdir(exist_ok=True)
    (path / "config.json").write_text(json.dumps(raw))
    torch.manual_seed(5)
    config = transformers.AutoConfig.from_pretrained(path)
    peer = transformers.AutoModelForCausalLM.from_config(config).eval().float()
    with torch.no_grad():
        for name, tensor in peer.state_dict().items():
            if name.endswith("e_score_correction_bias"):
                tensor.normal_(0.0, 0.1)
            elif name.endswith("norm.weight"):
                tensor.uniform_(0.5, 1.5)
            elif name.endswith(".bias"):
                tensor.normal_(0.0, 0.5)
    peer.save_pretrained(path / "saved")
    return peer, open_weights(path / "saved")


def runner_of(weights: Weights, num_blocks: int = 16, **fields: Any) -> TorchRunner:
    values: dict[str, Any] = {"precision": "fp32", "num_blocks": num_blocks, **fields}
    return TorchRunner(weights.config, weights.read, **values)


def feed(
    runner: TorchRunner, pieces: list[tuple[NDArray[np.int32], int, list[int]]], **options: Any
) -> StepOutput:
    """A step of (tokens, how many are cached, blocks) with the logits of every row."""
    counts = [len(tokens) for tokens, _, _ in pieces]
    tables = np.full((len(pieces), max(len(b) for _, _, b in pieces) + 1), -1, dtype=np.int32)
    for row, (_, _, blocks) in enumerate(pieces):
        tables[row, : len(blocks)] = blocks
    return runner.step(
        StepBatch(
            token_ids=np.concatenate([tokens for tokens, _, _ in pieces]),
            first_rows=np.concatenate(([0], np.cumsum(counts))).astype(np.int32),
            num_cached=np.array([cached for _, cached, _ in pieces], dtype=np.int32),
            block_tables=tables,
            output_rows=np.arange(sum(counts), dtype=np.int32),
        ),
        **options,
    )


def tokens_of(length: int, seed: int = 0) -> NDArray[np.int32]:
    return np.random.default_rng(seed).integers(0, 300, length).astype(np.int32)


@pytest.mark.parametrize("name", CASES)
def test_equals_transformers_in_pieces_over_scattered_blocks(name: str, tmp_path: Path) -> None:
    peer, weights = random_peer(CASES[name], tmp_path / "m")
    runner = runner_of(weights)
    first, second = tokens_of(90), tokens_of(41, 1)
    with torch.no_grad():
        expected = [peer(torch.from_numpy(t[None].astype(np.int64))).logits[0].numpy()
                    for t in (first, second)]  # fmt: skip
    blocks, others = [5, 2, 11], [7, 0]
    found = [feed(runner, [(first[:50], 0, blocks)]).logits]
    both = feed(runner, [(first[50:89], 50, blocks), (second[:40], 0, others)]).logits
    found.append(both[:39])
    last = feed(runner, [(first[89:], 89, blocks), (second[40:], 40, others)]).logits
    found.append(last[:1])
    for mine, theirs in (
        (np.concatenate(found), expected[0]),
        (np.concatenate((both[39:], last[1:])), expected[1]),
    ):
        assert np.abs(mine - theirs).max() <= TOLERANCE * np.abs(theirs).max()


@pytest.fixture(scope="module")
def v3(tmp_path_factory: pytest.TempPathFactory) -> Weights:
    return random_peer(CASES["v3"], tmp_path_factory.mktemp("v3"))[1]


def test_recorded_routes_replayed_give_the_same(v3: Weights) -> None:
    runner = runner_of(v3)
    tokens = tokens_of(40)
    first = feed(runner, [(tokens, 0, [1, 2])], record_routes=True, want_hidden=True)
    assert first.routes is not None and first.routes.shape == (40, 2, 2)
    assert first.hidden is not None and first.hidden.shape == (40, 64)
    again = feed(runner, [(tokens, 0, [3, 4])], replay_routes=first.routes)
    assert np.array_equal(first.logits, again.logits)
    other = np.where(np.arange(40)[:, None, None] == 20, (first.routes + 1) % 8, -1)
    changed = feed(runner, [(tokens, 0, [5, 6])], replay_routes=other.astype(np.int16)).logits
    difference = np.abs(changed - first.logits).max(axis=1)
    assert difference[:20].max() < 1e-5 < difference[20]


def test_a_copied_block_goes_on_like_the_original(v3: Weights) -> None:
    runner = runner_of(v3)
    tokens = tokens_of(BLOCK_TOKENS + 9)
    feed(runner, [(tokens[:-1], 0, [4, 9])])
    runner.copy_block(9, 0)
    one = feed(runner, [(tokens[-1:], len(tokens) - 1, [4, 9])]).logits
    other = feed(runner, [(tokens[-1:], len(tokens) - 1, [4, 0])]).logits
    assert np.array_equal(one, other)


def test_bf16_is_near_fp32_and_new_weights_are_taken(v3: Weights) -> None:
    exact, rounded = runner_of(v3), runner_of(v3, precision="bf16")
    tokens = tokens_of(40)
    a = feed(exact, [(tokens, 0, [1, 2])], record_routes=True)
    b = feed(rounded, [(tokens, 0, [1, 2])], replay_routes=a.routes)
    assert 0 < np.abs(a.logits - b.logits).mean() < 0.02 * np.abs(a.logits).max()
    assert rounded.weight_bytes < 0.6 * exact.weight_bytes
    exact.update(lambda name: v3.read(name) * (0.5 if name == "lm_head.weight" else 1.0))
    halved = feed(exact, [(tokens, 0, [1, 2])]).logits
    assert np.allclose(halved, a.logits / 2, rtol=1e-5, atol=1e-6)


def test_other_precisions_are_refused(v3: Weights) -> None:
    with pytest.raises(ConfigError, match="precision='int8' has no torch path"):
        runner_of(v3, precision="int8")
