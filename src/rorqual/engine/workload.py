"""What a step must read and compute, counted from published shapes: the bounds of its speed.

Bytes are those of the weights that a decoding step touches and of the cache that it reads. FLOPs
count multiplications and additions of the network as published, expanded attention over the causal
half included; a kernel that computes more (padding, absorbed attention) gains nothing by it.
"""

from typing import Final

import numpy as np

from rorqual.config import DenseConfig, ModelConfig
from rorqual.kernels.runtime_layout import Precision, Slot, Tensor, published_tensors

BYTES_PER_WEIGHT: Final[dict[Precision, float]] = {
    "fp32": 4.0,
    "bf16": 2.0,
    "int8": 1.0,
    "int4": 0.5625,
}
_SPARSE: Final = (Slot.EXPERT_GATE, Slot.EXPERT_UP, Slot.EXPERT_DOWN)


def main_tensors(config: ModelConfig | DenseConfig) -> list[Tensor]:
    """The published tensors of the model itself, MTP modules left out."""
    num_layers = config.num_hidden_layers
    return [tensor for tensor in published_tensors(config) if tensor.layer < num_layers]


def touched_weight_bytes(
    config: ModelConfig | DenseConfig, precision: Precision, experts_touched: float
) -> float:
    """Bytes of weights that a step reads, if `experts_touched` experts of each layer have rows."""
    total = 0.0
    for tensor in main_tensors(config):
        if tensor.slot == Slot.EMBEDDING and not config.tie_word_embeddings:
            continue  # a row a token
        size = float(np.prod(tensor.shape))
        if tensor.slot in _SPARSE:
            assert isinstance(config, ModelConfig)
            size *= experts_touched / config.num_experts
        total += size * _stored_bytes(tensor, precision)
    return total


def _stored_bytes(tensor: Tensor, precision: Precision) -> float:
    """Bytes of one weight in the runtime's memory."""
    if len(tensor.shape) == 1 or tensor.slot == Slot.ROUTER:
        return 4.0
    if precision in ("int8", "int4"):
        # What quantised models keep wider: the absorbed halves of kv_b, and int4's head.
        if tensor.slot == Slot.KEY_VALUE:
            return 2.0
        if tensor.slot in (Slot.HEAD, Slot.EMBEDDING):
            return 1.0
    return BYTES_PER_WEIGHT[precision]


def step_flops(
    config: ModelConfig | DenseConfig, sequences: int, fed_tokens: int, cached_tokens: int
) -> float:
    """FLOPs of feeding `fed_tokens` to each sequence after `cached_tokens`; one row of logits each.

    Peers count a fused multiplication and addition as two, and so does this.
    """
    per_token = head = 0.0
    for tensor in main_tensors(config):
        size = float(np.prod(tensor.shape))
        if tensor.slot == Slot.HEAD or (
            tensor.slot == Slot.EMBEDDING and config.tie_word_embeddings
        ):
            head = size
        elif len(tensor.shape) == 2 and tensor.slot != Slot.EMBEDDING:
            if tensor.slot in _SPARSE:
                assert isinstance(config, ModelConfig)
                size *= config.num_experts_per_tok / config.num_experts
            per_token += size
    if isinstance(config, DenseConfig):
        width = 2 * config.head_dim
    else:
        width = config.qk_head_dim + config.v_head_dim
    seen = fed_tokens * cached_tokens + fed_tokens * (fed_tokens + 1) / 2
    attention = config.num_hidden_layers * config.num_attention_heads * width * seen
    return 2 * sequences * (per_token * fed_tokens + head + attention)
