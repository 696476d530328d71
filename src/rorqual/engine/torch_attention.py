"""Attention over the paged cache in torch: MLA in absorbed form, and grouped-query attention.

Both write one entry per token and key-value head into the cache, [C+R] or a key and a value, and
read the entries of a sequence through its block table. What is cached and what was just fed are
one thing here: a step writes first, then attends.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from rorqual.config import DenseConfig, ModelConfig
from rorqual.engine.torch_weights import GroupedAttention, LatentAttention
from rorqual.kernels.step import BLOCK_TOKENS, StepBatch
from rorqual.kernels.twins_norm import rms_norm
from rorqual.model.attention import LATENT_NORM_EPS
from rorqual.model.rope import rope_tables, rotate_pairs


@dataclass(frozen=True, slots=True)
class _Share:
    """Sequences of a step that attend together: B of them, T tokens each.

    rows [B*T] of the step; entries [B, S] where their tokens lie in the cache; seen [B, T, S].
    """

    rows: Tensor
    entries: Tensor
    seen: Tensor


class Feeding:
    """Where a step's tokens stand: positions and cache entries of all [T], who sees what."""

    def __init__(self, batch: StepBatch, device: torch.device):
        first, cached = batch.first_rows.astype(np.int64), batch.num_cached.astype(np.int64)
        counts = np.diff(first)  # [S]
        sequence = np.repeat(np.arange(len(counts)), counts)  # [T]
        positions = np.arange(len(sequence)) - first[sequence] + cached[sequence]  # [T]
        blocks = batch.block_tables[sequence, positions // BLOCK_TOKENS].astype(np.int64)
        entries = blocks * BLOCK_TOKENS + positions % BLOCK_TOKENS  # [T]
        self.device = device
        self.positions = torch.from_numpy(positions).to(device)
        self.entries = torch.from_numpy(entries).to(device)
        single = np.flatnonzero(counts == 1)
        together = [single] if len(single) else []
        together += [np.array([index]) for index in np.flatnonzero(counts > 1)]
        self.shares = [self._share(batch, index, counts, cached, first) for index in together]

    def _share(
        self,
        batch: StepBatch,
        index: np.ndarray,
        counts: np.ndarray,
        cached: np.ndarray,
        first: np.ndarray,
    ) -> _Share:
        num_tokens = int(counts[index[0]])
        width = -(-int((cached[index] + num_tokens).max()) // BLOCK_TOKENS)
        blocks = np.maximum(batch.block_tables[index, :width], 0).astype(np.int64)  # [B, width]
        entries = blocks[..., None] * BLOCK_TOKENS + np.arange(BLOCK_TOKENS)
        entries = entries.reshape(len(index), -1)  # [B, S]
        steps = np.arange(num_tokens)
        positions = cached[index, None] + steps  # [B, T]
        seen = np.arange(entries.shape[1]) <= positions[..., None]  # [B, T, S]
        rows = (first[index, None] + steps).reshape(-1)  # [B*T]
        return _Share(*(torch.from_numpy(a).to(self.device) for a in (rows, entries, seen)))


def attend(query: Tensor, cache: Tensor, feeding: Feeding, key: slice, value: slice, scale: float
) -> Tensor:  # fmt: skip
    """Every fed token over its sequence so far.

    query [T, N, W], cache [entries, G, .] of one layer, whose parts `key` and `value` are read;
    each of the G cached heads serves N/G query heads. -> [T, N, width of value]
    """
    num_heads, num_cached_heads = query.shape[1], cache.shape[1]
    out: Tensor | None = None
    for share in feeding.shares:
        batch, num_tokens, num_entries = share.seen.shape
        rows = cache[share.entries].transpose(1, 2)  # [B, G, S, .]
        q = query[share.rows].unflatten(0, (batch, num_tokens))  # [B, T, N, W]
        q = q.unflatten(2, (num_cached_heads, -1)).permute(0, 2, 3, 1, 4)  # [B, G, N/G, T, W]
        per_head = num_heads // num_cached_heads
        seen = share.seen[:, None, None].expand(-1, -1, per_head, -1, -1)
        mixed = F.scaled_dot_product_attention(
            q.flatten(2, 3),
            rows[..., key],
            rows[..., value],
            attn_mask=seen.reshape(batch, 1, per_head * num_tokens, num_entries),
            scale=scale,
        )  # [B, G, N/G*T, .]
        mixed = mixed.unflatten(2, (per_head, num_tokens)).permute(0, 3, 1, 2, 4)
        mixed = mixed.reshape(batch * num_tokens, num_heads, -1)  # [B*T, N, .]
        if out is None:
            out = mixed.new_empty(query.shape[0], num_heads, mixed.shape[-1])
        out[share.rows] = mixed
    assert out is not None, "a step feeds no token"
    return out


class LatentForm:
    """MLA, absorbed: W_UK folded into the query, W_UV into the output (V2 section 2.1.2)."""

    def __init__(self, config: ModelConfig, device: torch.device):
        self.config = config
        cos, sin = rope_tables(config, config.max_position_embeddings)  # 2 x [P, R/2]
        self._rotations = torch.complex(cos, sin).to(device)  # [P, R/2]
        self.cached_heads, self.width = 1, config.kv_lora_rank + config.qk_rope_head_dim

    def __call__(
        self, x: Tensor, weights: LatentAttention, cache: Tensor, feeding: Feeding
    ) -> Tensor:
        """x [T, H] normed -> [T, H]; writes the tokens' entries into cache [entries, 1, C+R]."""
        config, rank = self.config, self.config.kv_lora_rank
        rotation = self._rotations[feeding.positions][:, None]  # [T, 1, R/2]
        q = self._queries(x, weights).unflatten(-1, (config.num_attention_heads, -1))
        q_nope, q_rope = q.split((config.qk_nope_head_dim, config.qk_rope_head_dim), dim=-1)
        latent, k_rope = F.linear(x, weights.latent_down).split(
            (rank, config.qk_rope_head_dim), dim=-1
        )
        latent = rms_norm(latent.contiguous(), weights.latent_norm, LATENT_NORM_EPS)  # [T, C]
        both = torch.cat((q_rope, k_rope[:, None]), dim=1)  # [T, N+1, R]
        rotated = rotate_pairs(both.contiguous(), rotation)  # [T, N+1, R]
        entry = torch.cat((latent, rotated[:, -1]), dim=-1)  # [T, C+R]
        cache[feeding.entries, 0] = entry
        q_latent = torch.einsum("tnd,ndc->tnc", q_nope, weights.expand_key)  # [T, N, C]
        query = torch.cat((q_latent, rotated[:, :-1]), dim=-1)  # [T, N, C+R]
        whole = slice(None)  # keys and values are one: the rotary part of the sum is dropped
        mixed = attend(query, cache, feeding, whole, whole, config.softmax_scale)[..., :rank]
        out = torch.einsum("tnc,nvc->tnv", mixed, weights.expand_value)  # [T, N, Dv]
        return F.linear(out.flatten(-2), weights.output)

    @staticmethod
    def _queries(x: Tensor, weights: LatentAttention) -> Tensor:
        """x [T, H] -> [T, N(D+R)]"""
        if weights.query is not None:
            return F.linear(x, weights.query)
        assert weights.query_down is not None
        assert weights.query_norm is not None and weights.query_up is not None
        down = rms_norm(F.linear(x, weights.query_down), weights.query_norm, LATENT_NORM_EPS)
        return F.linear(down, weights.query_up)


class GroupedForm:
    """Grouped-query attention with half-split rotation (Llama, Qwen2, Qwen3)."""

    def __init__(self, config: DenseConfig, device: torch.device):
        self.config = config
        positions = torch.arange(config.max_position_embeddings, dtype=torch.float32)
        frequencies = torch.tensor(config.rope_frequencies(), dtype=torch.float32)  # [D/2]
        angles = torch.outer(positions, frequencies)  # [P, D/2]
        factor = config.rope_attention_factor
        self._cos = (angles.cos() * factor).to(device)
        self._sin = (angles.sin() * factor).to(device)
        self.cached_heads, self.width = config.num_key_value_heads, 2 * config.head_dim

    def __call__(
        self, x: Tensor, weights: GroupedAttention, cache: Tensor, feeding: Feeding
    ) -> Tensor:
        """x [T, H] normed -> [T, H]; writes keys and values into cache [entries, G, 2D]."""
        config, dim = self.config, self.config.head_dim
        groups, heads = config.num_key_value_heads, config.num_attention_heads
        stacked = F.linear(x, weights.query_key_value, weights.bias).unflatten(-1, (-1, dim))
        q, k, v = stacked.split((heads, groups, groups), dim=1)  # [T, ., D] each
        if weights.query_norm is not None and weights.key_norm is not None:
            q = rms_norm(q.contiguous(), weights.query_norm, config.rms_norm_eps)
            k = rms_norm(k.contiguous(), weights.key_norm, config.rms_norm_eps)
        cos = self._cos[feeding.positions][:, None]  # [T, 1, D/2]
        sin = self._sin[feeding.positions][:, None]
        q, k = _rotate_halves(q, cos, sin), _rotate_halves(k, cos, sin)
        cache[feeding.entries] = torch.cat((k, v), dim=-1)  # [T, G, 2D]
        keys, values = slice(0, dim), slice(dim, 2 * dim)
        out = attend(q, cache, feeding, keys, values, config.softmax_scale)  # [T, N, D]
        return F.linear(out.flatten(-2), weights.output)


def _rotate_halves(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate channel i against i + D/2: x [T, N, D], cos and sin [T, 1, D/2]; x's dtype."""
    first, second = x.float().chunk(2, dim=-1)  # [T, N, D/2]
    turned = (first * cos - second * sin, second * cos + first * sin)
    return torch.cat(turned, dim=-1).to(x.dtype)
