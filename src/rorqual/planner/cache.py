"""Bytes of key-value cache per token.

MLA keeps one latent and one rope key per layer for all heads (DeepSeek-V2 section 2.1.2);
grouped-query attention keeps a key and a value per key-value head, multi-head attention a pair
per head.
Published figures: table 1 of arXiv 2505.09343, in BF16.
"""

from rorqual.config import ModelConfig
from rorqual.planner.flops import DenseShape


def mla_cache_bytes_per_token(config: ModelConfig, element_bytes: float = 2) -> float:
    """(kv_lora_rank + qk_rope_head_dim) * layers * bytes."""
    width = config.kv_lora_rank + config.qk_rope_head_dim
    return width * config.num_hidden_layers * element_bytes


def mha_cache_bytes_per_token(config: ModelConfig, element_bytes: float = 2) -> float:
    """What the same heads would keep without compression: every head's key and value."""
    width = config.num_attention_heads * (config.qk_head_dim + config.v_head_dim)
    return width * config.num_hidden_layers * element_bytes


def gqa_cache_bytes_per_token(shape: DenseShape, element_bytes: float = 2) -> float:
    """2 * key-value heads * head_dim * layers * bytes."""
    width = 2 * shape.num_key_value_heads * shape.head_dim
    return width * shape.num_hidden_layers * element_bytes
