"""Bytes to train and to serve a model, and what a machine of given speed can do with it.

Training keeps, per weight, a BF16 copy, an FP32 master, an FP32 gradient and two Adam moments
(V3 report section 3.3: BF16). Activations are an estimate: what autograd saves of one
micro-batch in BF16 without recomputation, rows sorted by expert.

A CPU decodes as fast as it can read the weights a token touches (bandwidth), and trains as fast as
it can multiply (compute); both are upper limits, not predictions.
"""

from dataclasses import dataclass

from rorqual.config import ModelConfig
from rorqual.planner.cache import mla_cache_bytes_per_token
from rorqual.planner.parameters import ParameterCounts

_BF16, _FP32 = 2, 4


@dataclass(frozen=True, kw_only=True)
class TrainingBytes:
    """What one training process holds, before any sharding."""

    weights: float
    master: float
    gradients: float
    moments: float
    activations: float

    @property
    def total(self) -> float:
        """Sum of the parts."""
        return self.weights + self.master + self.gradients + self.moments + self.activations


@dataclass(frozen=True, kw_only=True)
class ServingBytes:
    """What a server holds for a number of sequences."""

    weights: float
    cache: float

    @property
    def total(self) -> float:
        """Sum of the parts."""
        return self.weights + self.cache


def saved_elements_per_token(config: ModelConfig, layer_idx: int) -> int:
    """Elements one layer keeps per token for its backward pass (estimate)."""
    hidden, heads = config.hidden_size, config.num_attention_heads
    attention = (
        2 * hidden  # residual and its norm
        + 2 * (config.q_lora_rank or 0)  # query latent and its norm
        + 2 * config.kv_lora_rank
        + config.qk_rope_head_dim
        + 2 * heads * config.qk_head_dim  # query, key
        + 2 * heads * config.v_head_dim  # value, attention output
    )
    if not config.is_moe_layer(layer_idx):
        return attention + 2 * hidden + 3 * config.intermediate_size
    # Each visited expert gets its own copy of the row and keeps gate, up and product.
    rows = config.num_experts_per_tok * (2 * hidden + 3 * config.moe_intermediate_size)
    shared = 3 * config.shared_intermediate_size
    return attention + 2 * hidden + config.num_experts + rows + shared


def training_bytes(
    config: ModelConfig,
    counts: ParameterCounts,
    *,
    micro_batch_tokens: int,
    adam_moment_bytes: int = _FP32,
) -> TrainingBytes:
    """Memory of one unsharded training process, MTP modules included."""
    trained = counts.total - counts.selection_bias + counts.mtp
    num_layers = config.num_hidden_layers + config.num_nextn_predict_layers
    saved = sum(saved_elements_per_token(config, idx) for idx in range(num_layers)) * _BF16
    logits = (1 + config.num_nextn_predict_layers) * config.vocab_size * (_BF16 + _FP32)
    return TrainingBytes(
        weights=trained * _BF16,
        master=trained * _FP32,
        gradients=trained * _FP32,
        moments=2 * trained * adam_moment_bytes,
        activations=float(micro_batch_tokens * (saved + logits)),
    )


def serving_bytes(
    config: ModelConfig,
    counts: ParameterCounts,
    *,
    context_tokens: int,
    num_sequences: int,
    weight_bytes: float = _BF16,
    cache_element_bytes: float = _BF16,
) -> ServingBytes:
    """Weights (without MTP) and latent cache for `num_sequences` of `context_tokens` each."""
    per_token = mla_cache_bytes_per_token(config, cache_element_bytes)
    return ServingBytes(
        weights=counts.total * weight_bytes,
        cache=per_token * context_tokens * num_sequences,
    )


def touched_experts(config: ModelConfig, num_sequences: int) -> float:
    """Expected distinct experts that a decode step of `num_sequences` tokens reads in one layer.

    E * (1 - (1 - K/E)^n) under even routing.
    """
    if not config.num_experts:
        return 0.0
    missed = (1 - config.num_experts_per_tok / config.num_experts) ** num_sequences
    return config.num_experts * (1 - missed)


def decode_tokens_per_second_limit(
    config: ModelConfig,
    counts: ParameterCounts,
    *,
    bytes_per_second: float,
    context_tokens: int,
    num_sequences: int = 1,
    weight_bytes: float = _BF16,
    cache_element_bytes: float = _BF16,
) -> float:
    """Bandwidth bound: each step reads the touched weights once and every sequence's cache."""
    expert = 3 * config.hidden_size * config.moe_intermediate_size
    moe_layers = sum(config.is_moe_layer(idx) for idx in range(config.num_hidden_layers))
    fixed = counts.active_with_head - moe_layers * config.num_experts_per_tok * expert
    weights = fixed + moe_layers * touched_experts(config, num_sequences) * expert
    per_token = mla_cache_bytes_per_token(config, cache_element_bytes)
    step_bytes = weights * weight_bytes + per_token * context_tokens * num_sequences
    return num_sequences * bytes_per_second / step_bytes


def train_tokens_per_second_limit(flops_per_token: float, flops_per_second: float) -> float:
    """Compute bound: nothing but matrix products, at full rate."""
    return flops_per_second / flops_per_token
