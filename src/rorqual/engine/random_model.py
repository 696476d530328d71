"""Random weights in published shapes, for measuring speed where no trained model is at hand.

A tensor is cut out of one buffer of normal numbers at a place that its name decides, so a model of
any size takes one tensor of memory at a time and is the same wherever it is made. Matrices are
scaled by the root of their input width, which keeps activations near 1; biases are zero, so routing
is as even as random routers make it.
"""

import math
import zlib
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from rorqual.config import DenseConfig, ModelConfig, find_preset
from rorqual.config.plan import read_plan
from rorqual.kernels.runtime_layout import published_tensors

_BUFFER_VALUES: Final = 1 << 24
_MOE: Final = {
    "num_hidden_layers": 8, "num_attention_heads": 8, "n_shared_experts": 1,
    "num_experts_per_tok": 4, "first_k_dense_replace": 1, "max_position_embeddings": 8192,
}  # fmt: skip
SHAPES: Final[dict[str, dict[str, Any]]] = {
    "m_small": _MOE | {
        "vocab_size": 8192, "hidden_size": 512, "intermediate_size": 1536, "q_lora_rank": 192,
        "kv_lora_rank": 128, "qk_nope_head_dim": 64, "qk_rope_head_dim": 32, "v_head_dim": 64,
        "moe_intermediate_size": 256, "n_routed_experts": 32,
    },
    "m_tiny": _MOE | {
        "num_hidden_layers": 6, "vocab_size": 4096, "hidden_size": 256, "intermediate_size": 768,
        "q_lora_rank": 96, "kv_lora_rank": 64, "qk_nope_head_dim": 32, "qk_rope_head_dim": 16,
        "v_head_dim": 32, "moe_intermediate_size": 128, "n_routed_experts": 16,
    },
    "hidden96": _MOE | {
        "num_hidden_layers": 4, "vocab_size": 512, "hidden_size": 96, "intermediate_size": 256,
        "num_attention_heads": 4, "q_lora_rank": None, "kv_lora_rank": 32, "qk_nope_head_dim": 16,
        "qk_rope_head_dim": 8, "v_head_dim": 16, "moe_intermediate_size": 64,
        "n_routed_experts": 8, "num_experts_per_tok": 2,
    },
    "smollm2-shape": {
        "model_type": "llama", "vocab_size": 49152, "hidden_size": 576, "intermediate_size": 1536,
        "num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3,
        "head_dim": 64, "rope_theta": 100000.0, "tie_word_embeddings": True,
        "max_position_embeddings": 8192,
    },
    "r1-qwen-1.5b": {
        "model_type": "qwen2", "attention_bias": True, "vocab_size": 151936, "hidden_size": 1536,
        "intermediate_size": 8960, "num_hidden_layers": 28, "num_attention_heads": 12,
        "num_key_value_heads": 2, "head_dim": 128, "rope_theta": 10000.0, "rms_norm_eps": 1e-6,
        "max_position_embeddings": 8192,
    },
}  # fmt: skip
"""Shapes that benchmarks are run on; a preset's name (v2-lite) means its published shape."""


def random_config(name: str) -> ModelConfig | DenseConfig:
    """The network of a shape or a preset; ConfigError names what there is."""
    fields = SHAPES.get(name)
    if fields is None:
        return read_plan(find_preset(name))[0]
    family = DenseConfig if "model_type" in fields else ModelConfig
    return family.model_validate(fields)


class RandomWeights:
    """The published tensors of a config, random but the same for the same seed."""

    def __init__(self, config: ModelConfig | DenseConfig, seed: int = 0):
        self.config = config
        self._shapes = {tensor.name: tensor.shape for tensor in published_tensors(config)}
        self._values = np.random.default_rng(seed).standard_normal(_BUFFER_VALUES, np.float32)

    def names(self) -> list[str]:
        """Every tensor, in the order of the network."""
        return list(self._shapes)

    def shape(self, name: str) -> tuple[int, ...]:
        """A tensor's shape: [out, in]."""
        return self._shapes[name]

    def read(self, name: str) -> NDArray[np.float32]:
        """The tensor; larger than the buffer, it repeats itself."""
        shape = self._shapes[name]
        if len(shape) == 1:
            return np.full(shape, float("norm" in name), np.float32)
        begin = zlib.crc32(name.encode()) % _BUFFER_VALUES
        values = np.take(
            self._values, np.arange(begin, begin + math.prod(shape)), mode="wrap"
        )  # [out * in] fp32
        values *= np.float32(shape[-1] ** -0.5)
        return values.reshape(shape)

    def generation(self) -> dict[str, Any]:
        """Nothing is recommended."""
        return {}
