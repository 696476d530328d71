"""Multi-head latent attention (DeepSeek-V2 section 2.1, V3 equations 1-11).

Two forms of the same function:
- naive (`forward`): keys and values of every head are expanded from the latent; training and
  scoring use it, through the fused attention kernel.
- absorbed (`forward_cached`): W_UK is folded into the query and W_UV into the output, so attention
  runs over the cached latents themselves; decoding uses it and reads C + R numbers a token.

NOTE: the latent norms use 1e-6 whatever `rms_norm_eps` says, as DeepSeek's published code does.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rorqual.config import ModelConfig
from rorqual.kernels.ops import Ops
from rorqual.kernels.twins_attention import Gap
from rorqual.model.cache import LatentCache, Placement
from rorqual.model.layers import Linear, RMSNorm
from rorqual.model.rope import rotate_pairs

LATENT_NORM_EPS = 1e-6


@dataclass(frozen=True, slots=True)
class Sight:
    """How the tokens of rows see each other: operands of `twins_attention.mla_attention`.

    rope: cos and sin, 2 x [T, R/2] or 2 x [B, T, R/2].
    """

    rope: tuple[Tensor, Tensor]
    document_start: Tensor | None
    gap: Gap | None


class Attention(nn.Module):
    """MLA of one layer; parameter names as published."""

    def __init__(self, config: ModelConfig, layer_idx: int, ops: Ops):
        super().__init__()
        self.ops, self.layer_idx = ops, layer_idx
        self.num_heads = config.num_attention_heads
        self.nope_dim, self.rope_dim = config.qk_nope_head_dim, config.qk_rope_head_dim
        self.value_dim, self.kv_rank = config.v_head_dim, config.kv_lora_rank
        self.softmax_scale = config.softmax_scale
        query_width = self.num_heads * config.qk_head_dim
        if config.q_lora_rank is None:
            self.q_proj = Linear(config.hidden_size, query_width, ops)
        else:
            self.q_a_proj = Linear(config.hidden_size, config.q_lora_rank, ops)
            self.q_a_layernorm = RMSNorm(config.q_lora_rank, LATENT_NORM_EPS, ops)
            self.q_b_proj = Linear(config.q_lora_rank, query_width, ops)
        self.has_query_latent = config.q_lora_rank is not None
        self.kv_a_proj_with_mqa = Linear(config.hidden_size, self.kv_rank + self.rope_dim, ops)
        self.kv_a_layernorm = RMSNorm(self.kv_rank, LATENT_NORM_EPS, ops)
        self.kv_b_proj = Linear(
            self.kv_rank, self.num_heads * (self.nope_dim + self.value_dim), ops
        )
        self.o_proj = Linear(self.num_heads * self.value_dim, config.hidden_size, ops)

    def _queries(self, x: Tensor) -> Tensor:
        """x [B, T, H] -> unrotated queries [B, T, N, D+R]"""
        if self.has_query_latent:
            q = self.q_b_proj(self.q_a_layernorm(self.q_a_proj(x)))  # eq. 6, 7
        else:
            q = self.q_proj(x)
        return q.unflatten(-1, (self.num_heads, -1))

    def _latents(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x [B, T, H] -> normed key-value latent [B, T, C], unrotated shared key [B, T, R]"""
        compressed = self.kv_a_proj_with_mqa(x)  # [B, T, C+R], eq. 1 and 3
        latent, k_rope = compressed.split((self.kv_rank, self.rope_dim), dim=-1)
        return self.kv_a_layernorm(latent.contiguous()), k_rope.contiguous()

    def forward(self, x: Tensor, sight: Sight) -> Tensor:
        """x [B, T, H] -> [B, T, H]"""
        q = self._queries(x)  # [B, T, N, D+R]
        latent, k_rope = self._latents(x)
        kv = self.kv_b_proj(latent).unflatten(-1, (self.num_heads, -1))  # [B, T, N, D+Dv], eq. 2, 5
        out = self.ops.mla_attention(
            q,
            kv,
            k_rope,
            *sight.rope,
            sight.document_start,
            self.softmax_scale,
            self.nope_dim,
            sight.gap,
        )  # [B, T, N, Dv], eq. 10
        return self.o_proj(out.flatten(-2))  # eq. 11

    def forward_cached(
        self, x: Tensor, rotation: Tensor, placement: Placement, cache: LatentCache
    ) -> Tensor:
        """The absorbed form: x [B, T, H], rotation [B, T, 1, R/2] complex -> [B, T, H]"""
        q_nope, q_rope = self._queries(x).split((self.nope_dim, self.rope_dim), dim=-1)
        latent, k_rope = self._latents(x)
        both = torch.cat((q_rope, k_rope[:, :, None]), dim=2)  # [B, T, N+1, R]
        rotated = rotate_pairs(both, rotation)  # [B, T, N+1, R]
        entry = torch.cat((latent, rotated[:, :, -1]), dim=-1)  # [B, T, C+R]
        rows = cache.append(self.layer_idx, entry, placement).to(x.dtype)  # [B, S, C+R]
        expand = self.kv_b_proj.weight.to(x.dtype).unflatten(0, (self.num_heads, -1))
        expand_key, expand_value = expand.split((self.nope_dim, self.value_dim), dim=1)
        q_latent = torch.einsum("btnd,ndc->btnc", q_nope, expand_key)  # [B, T, N, C]
        query = torch.cat((q_latent, rotated[:, :, :-1]), dim=-1)  # [B, T, N, C+R]
        mixed = self._attend(query, rows, placement.bias)[..., : self.kv_rank]  # [B, T, N, C]
        out = torch.einsum("btnc,nvc->btnv", mixed, expand_value)  # [B, T, N, Dv]
        return self.o_proj(out.flatten(-2))

    def _attend(self, query: Tensor, rows: Tensor, bias: Tensor) -> Tensor:
        """Every head over the same rows: query [B, T, N, C+R], rows [B, S, C+R] -> like query

        The rows are keys and values at once (the rotary part of the sum is not used). With one
        token a row, heads stand where tokens would: then a row's heads are one product.
        """
        single = query.shape[1] == 1
        if not single:
            query = query.transpose(1, 2)  # [B, N, T, C+R]
        keys = rows[:, None].expand(-1, query.shape[1], -1, -1)  # [B, 1 or N, S, C+R]
        mixed = F.scaled_dot_product_attention(
            query, keys, keys, attn_mask=bias[:, None], scale=self.softmax_scale
        )
        return mixed if single else mixed.transpose(1, 2)
