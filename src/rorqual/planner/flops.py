"""Floating-point operations per token: two per weight and product, three passes in training.

Forward costs 2 FLOP per active weight, the backward pass twice that, hence the familiar 6N
(Kaplan et al., arXiv 2001.08361, section 2.1). Attention scores and their product with the values
come on top and grow with the sequence. "Causal" counts only the lower triangle, half the square,
as FlashAttention computes it; the V3 hardware paper prints its MFU both ways (arXiv 2505.09343,
table 4).
"""

from dataclasses import dataclass

from rorqual.config import ModelConfig
from rorqual.planner.parameters import ParameterCounts

_TRAIN_PASSES = 3  # forward once, backward twice


@dataclass(frozen=True)
class DenseShape:
    """A dense transformer with grouped-query attention, for comparison."""

    name: str
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    vocab_size: int
    source: str

    @property
    def key(self) -> str:
        """The name as it stands in a planner key: llama_31_405b."""
        return self.name.lower().replace("-", "_").replace(".", "")

    @property
    def active_matmul(self) -> int:
        """Weights in matrix products per token: attention, gated MLP and head, no embedding."""
        query = self.num_attention_heads * self.head_dim
        key_value = 2 * self.num_key_value_heads * self.head_dim
        attention = self.hidden_size * (2 * query + key_value)
        mlp = 3 * self.hidden_size * self.intermediate_size
        return self.num_hidden_layers * (attention + mlp) + self.vocab_size * self.hidden_size


QWEN25_72B = DenseShape(
    "Qwen2.5-72B", 8192, 29568, 80, 64, 8, 128, 152064, "config.json of Qwen/Qwen2.5-72B"
)
LLAMA31_405B = DenseShape(
    "Llama-3.1-405B", 16384, 53248, 126, 128, 8, 128, 128256, "Llama 3 report, table 3"
)


def attention_flops(config: ModelConfig, sequence_tokens: int, *, causal: bool) -> float:
    """Forward FLOPs per token of scores and values in the plain (unabsorbed) form, all layers.

    2 * S * N * (qk_head_dim + v_head_dim) per layer, halved when causal.
    """
    per_key = config.num_attention_heads * (config.qk_head_dim + config.v_head_dim)
    full = 2.0 * sequence_tokens * per_key * config.num_hidden_layers
    return full / 2 if causal else full


def train_flops_per_token(
    config: ModelConfig, counts: ParameterCounts, sequence_tokens: int, *, causal: bool
) -> float:
    """6 * active weights + 3 * forward attention; MTP modules are not included."""
    attention = attention_flops(config, sequence_tokens, causal=causal)
    return _TRAIN_PASSES * (2.0 * counts.active_matmul + attention)


def mtp_train_flops_per_token(
    config: ModelConfig, counts: ParameterCounts, sequence_tokens: int
) -> float:
    """What the MTP modules add in training: their blocks, projections and a head pass each."""
    per_layer = attention_flops(config, sequence_tokens, causal=True) / config.num_hidden_layers
    attention = config.num_nextn_predict_layers * per_layer
    return _TRAIN_PASSES * (2.0 * counts.mtp_active_matmul + attention)


def prefill_flops_per_token(
    config: ModelConfig, counts: ParameterCounts, context_tokens: int
) -> float:
    """Mean over a prompt of `context_tokens`: 2 * active weights + causal attention."""
    return 2.0 * counts.active_matmul + attention_flops(config, context_tokens, causal=True)


def decode_flops_per_token(
    config: ModelConfig, counts: ParameterCounts, context_tokens: int
) -> float:
    """One new token over a cache of `context_tokens`, absorbed form (DeepSeek-V2 section 2.1.2).

    Scores run over the latent and rope key, C + R wide; values over the latent, C wide. Folding
    kv_b_proj into query and output leaves the weight products as many as before.
    """
    width = 2 * config.kv_lora_rank + config.qk_rope_head_dim
    attention = 2.0 * context_tokens * config.num_attention_heads * width
    return 2.0 * counts.active_matmul + attention * config.num_hidden_layers


def dense_train_flops_per_token(shape: DenseShape, sequence_tokens: int) -> float:
    """6 * weights + causal attention of a dense comparison model."""
    width = 2 * shape.num_attention_heads * shape.head_dim
    attention = sequence_tokens * width * shape.num_hidden_layers
    return _TRAIN_PASSES * (2.0 * shape.active_matmul + attention)
