"""Tiny networks of every family with random weights, and batches to feed them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rorqual.config import DenseConfig, DenseYarnConfig, Llama3RopeConfig, ModelConfig
from rorqual.kernels.library import Library
from rorqual.kernels.runtime import Runtime
from rorqual.kernels.runtime_layout import Precision, published_tensors
from rorqual.kernels.step import BLOCK_TOKENS, StepBatch
from tests.conftest import YARN, small_config

DENSE: dict[str, Any] = {
    "vocab_size": 300,
    "hidden_size": 48,
    "intermediate_size": 104,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 10,
    "max_position_embeddings": 640,
}


def dense_config(family: str, **changes: Any) -> DenseConfig:
    """A dense network whose every dimension differs."""
    fields = DENSE | {"model_type": family, "attention_bias": family == "qwen2"} | changes
    return DenseConfig(**fields)


V2: dict[str, Any] = {
    "model_type": "deepseek_v2",
    "scoring_func": "softmax",
    "norm_topk_prob": False,
    "max_position_embeddings": 640,
}
CONFIGS: dict[str, ModelConfig | DenseConfig] = {
    "v3": small_config(max_position_embeddings=640),
    "v3 yarn, no q-lora": small_config(q_lora_rank=None, rope_scaling=YARN),
    "v3 odd sizes": small_config(
        hidden_size=50, q_lora_rank=21, kv_lora_rank=19, n_group=1, topk_group=1
    ),
    "v3 two experts kept, unnormed": small_config(norm_topk_prob=False, topk_group=1, n_group=2),
    "v3 all routed, tied": small_config(
        first_k_dense_replace=0, n_shared_experts=None, tie_word_embeddings=True
    ),
    "v3 dense": small_config(n_routed_experts=None),
    "v2 grouped": small_config(**V2, topk_method="group_limited_greedy"),
    "v2 lite": small_config(**V2, topk_method="greedy", n_group=1, topk_group=1, q_lora_rank=None),
    "v2 normed": small_config(**V2 | {"norm_topk_prob": True}, topk_method="greedy"),
    "llama": dense_config("llama"),
    "llama3 rope, tied": dense_config(
        "llama",
        tie_word_embeddings=True,
        num_key_value_heads=6,
        rope_scaling=Llama3RopeConfig(
            rope_type="llama3",
            factor=8,
            low_freq_factor=1,
            high_freq_factor=4,
            original_max_position_embeddings=64,
        ),
    ),
    "qwen2": dense_config("qwen2", num_key_value_heads=1),
    "qwen3 yarn": dense_config(
        "qwen3",
        rope_scaling=DenseYarnConfig.model_validate(
            {"factor": 4, "original_max_position_embeddings": 64}
        ),
    ),
}


@dataclass(frozen=True)
class Model:
    """A config with the tensors that a checkpoint of it would hold."""

    config: ModelConfig | DenseConfig
    tensors: dict[str, NDArray[np.float32]]

    def read(self, name: str) -> NDArray[np.float32]:
        return self.tensors[name]

    def runtime(
        self,
        library: Library,
        precision: Precision = "fp32",
        num_blocks: int = 64,
        max_batch_tokens: int = 2048,
    ) -> Runtime:
        return Runtime(
            self.config,
            self.read,
            precision=precision,
            num_blocks=num_blocks,
            library=library,
            max_batch_tokens=max_batch_tokens,
        )


def random_model(config: ModelConfig | DenseConfig, seed: int = 0) -> Model:
    """Random weights, large enough that every one shows in the logits."""
    rng = np.random.default_rng(seed)
    tensors = {}
    for tensor in published_tensors(config):
        if len(tensor.shape) == 2:
            value = rng.normal(0, tensor.shape[1] ** -0.5, tensor.shape)
        elif "norm" in tensor.name:
            value = rng.uniform(0.5, 1.5, tensor.shape)
        else:
            value = rng.normal(0, 0.2, tensor.shape)
        tensors[tensor.name] = value.astype(np.float32)
    return Model(config, tensors)


def random_tokens(count: int, seed: int = 0, vocabulary: int = 300) -> NDArray[np.int32]:
    return np.random.default_rng(seed).integers(0, vocabulary, count, dtype=np.int32)


def batch_of(
    fed: Sequence[NDArray[np.int32]],
    num_cached: Sequence[int],
    blocks: Sequence[Sequence[int]],
    output_rows: Sequence[int] | None = None,
) -> StepBatch:
    """A step over sequences: their tokens, what they have cached, their physical blocks."""
    first_rows = np.cumsum([0, *(len(tokens) for tokens in fed)]).astype(np.int32)
    width = max(len(row) for row in blocks)
    tables = np.full((len(fed), width), -1, np.int32)
    for table, row in zip(tables, blocks, strict=True):
        table[: len(row)] = row
    rows = range(int(first_rows[-1])) if output_rows is None else output_rows
    return StepBatch(
        np.concatenate(fed).astype(np.int32),
        first_rows,
        np.asarray(num_cached, np.int32),
        tables,
        np.asarray(rows, np.int32),
    )


def blocks_for(num_tokens: int, first: int = 0) -> list[int]:
    """Consecutive blocks for a sequence of that length."""
    return list(range(first, first + (num_tokens + BLOCK_TOKENS - 1) // BLOCK_TOKENS))


def one_layer(config: ModelConfig | DenseConfig) -> ModelConfig | DenseConfig:
    """The same network with its first layer only, which has experts if any layer has."""
    changes = {"num_hidden_layers": 1}
    if isinstance(config, ModelConfig):
        changes["first_k_dense_replace"] = 0
    return config.model_copy(update=changes)


def distance(ours: NDArray[np.float32], reference: NDArray[np.float32]) -> float:
    """max |difference| over max |reference|."""
    return float(np.abs(ours - reference).max() / np.abs(reference).max())
