"""Grouped-query attention (arXiv 2305.13245) in the place of MLA, for the claim that compares them.

As Llama has it: every key head is rotated over its whole width, each cached head serves equally
many query heads; as many cached heads as query heads is MHA, one is MQA. Such a network has no
published form here, so its checkpoints serve to go on with, and nothing else.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rorqual.config import ModelConfig
from rorqual.errors import ConfigError
from rorqual.kernels.ops import Ops, select_ops
from rorqual.kernels.twins_attention import visible_keys
from rorqual.model import Transformer
from rorqual.model.attention import Attention, Sight
from rorqual.model.layers import Linear
from rorqual.model.rope import rope_tables, rotate_pairs
from rorqual.train.run_loop import flops_per_token


class GroupedQueryAttention(nn.Module):
    """The attention of one layer; heads are `v_head_dim` wide."""

    def __init__(self, config: ModelConfig, num_key_value_heads: int, ops: Ops):
        super().__init__()
        self.num_heads, self.num_cached = config.num_attention_heads, num_key_value_heads
        self.head_dim = config.v_head_dim
        cached_width = num_key_value_heads * self.head_dim
        self.q_proj = Linear(config.hidden_size, self.num_heads * self.head_dim, ops)
        self.k_proj = Linear(config.hidden_size, cached_width, ops)
        self.v_proj = Linear(config.hidden_size, cached_width, ops)
        self.o_proj = Linear(self.num_heads * self.head_dim, config.hidden_size, ops)
        rotated = config.model_copy(update={"qk_rope_head_dim": self.head_dim})
        cos, sin = rope_tables(rotated, config.max_position_embeddings)  # 2 x [P, D/2]
        self.register_buffer("rotation", torch.complex(cos, sin), persistent=False)

    rotation: Tensor

    def forward(self, x: Tensor, sight: Sight) -> Tensor:
        """x [B, T, H] -> [B, T, H]; the angles are MLA's and not used, nor can rows branch"""
        assert sight.gap is None
        length = x.shape[1]
        turn = self.rotation[:length, None]  # [T, 1, D/2]
        q = rotate_pairs(self.q_proj(x).unflatten(-1, (self.num_heads, -1)), turn)  # [B, T, N, D]
        k = rotate_pairs(self.k_proj(x).unflatten(-1, (self.num_cached, -1)), turn)  # [B, T, G, D]
        v = self.v_proj(x).unflatten(-1, (self.num_cached, -1))  # [B, T, G, D]
        visible = visible_keys(length, sight.document_start, None, x.device)  # [B, 1, T, S]
        out = F.scaled_dot_product_attention(
            q.transpose(1, 2),
            k.transpose(1, 2),
            v.transpose(1, 2),
            attn_mask=visible,
            enable_gqa=self.num_cached < self.num_heads,
        )  # [B, N, T, D]
        return self.o_proj(out.transpose(1, 2).flatten(-2))


def check_heads(config: ModelConfig, num_key_value_heads: int) -> None:
    """ConfigError if the heads cannot share the cached ones equally."""
    if num_key_value_heads < 1 or config.num_attention_heads % num_key_value_heads:
        raise ConfigError(
            f"num_key_value_heads={num_key_value_heads} does not divide num_attention_heads="
            f"{config.num_attention_heads}; choose a divisor"
        )


class GroupedQueryTransformer(Transformer):
    """V3's network but for its attention."""

    has_published_form = False

    def __init__(self, config: ModelConfig, ops: Ops | None, num_key_value_heads: int):
        check_heads(config, num_key_value_heads)
        super().__init__(config, ops)
        for layer in self.model.layers:
            layer.self_attn = GroupedQueryAttention(config, num_key_value_heads, self.ops)


def arm_flops_per_token(
    config: ModelConfig, sequence_length: int, num_key_value_heads: int | None
) -> float:
    """`train.run_loop.flops_per_token`, of a network with this attention in every layer."""
    with_mla = flops_per_token(config, sequence_length)
    if num_key_value_heads is None:
        return with_mla
    num_layers = config.num_hidden_layers + config.num_nextn_predict_layers
    with torch.device("meta"):
        ops = select_ops("twin")
        grouped = _matrix_weights(GroupedQueryAttention(config, num_key_value_heads, ops))
        latent = _matrix_weights(Attention(config, 0, ops))
    # Scores and sums of values take 2 FLOP a product, over half the square.
    widths = 2 * config.v_head_dim - (config.qk_head_dim + config.v_head_dim)
    scores = sequence_length * config.num_attention_heads * widths
    return with_mla + 3.0 * num_layers * (2 * (grouped - latent) + scores)


def _matrix_weights(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters() if p.ndim == 2)
