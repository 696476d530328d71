"""MLA attention in plain torch: the specification of `fused_attention`, and its fallback.

DeepSeek-V2 section 2.1, V3 equations 4 and 7-10: each head's key is its own un-rotated part next to
one rotary part that all heads share. Rotation pairs the elements (2i, 2i+1), as DeepSeek's code
does. Query t sees the keys document_start[t] <= s <= t but for its gap; one that sees none yields
zeros.

Two forms compute the same thing. The explicit form writes the equations down. The SDPA form is the
fastest that torch offers without our kernels, on CPU and GPU.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from rorqual.errors import ConfigError

Gap = tuple[Tensor, Tensor]


def check_attention_shapes(
    q: Tensor,
    kv: Tensor,
    k_rope: Tensor,
    cos: Tensor,
    sin: Tensor,
    document_start: Tensor | None,
    nope_head_dim: int,
    gap: Gap | None,
) -> None:
    """Raises ConfigError unless the operands of `mla_attention` fit each other."""
    if q.ndim != 4 or kv.ndim != 4 or k_rope.ndim != 3:
        raise ConfigError(
            f"mla_attention takes q [B, T, N, D+R], kv [B, T, N, D+Dv], k_rope [B, T, R]; got "
            f"{list(q.shape)}, {list(kv.shape)}, {list(k_rope.shape)}"
        )
    rope = q.shape[3] - nope_head_dim
    if nope_head_dim < 0 or rope < 0 or rope % 2 or kv.shape[3] <= nope_head_dim:
        raise ConfigError(
            f"mla_attention: nope_head_dim={nope_head_dim} must leave an even rotary width in q "
            f"{list(q.shape)} and a value width in kv {list(kv.shape)}"
        )
    if kv.shape[:3] != q.shape[:3] or k_rope.shape != (*q.shape[:2], rope):
        raise ConfigError(
            f"mla_attention: kv {list(kv.shape)} and k_rope {list(k_rope.shape)} must share B, T, "
            f"N and R = {rope} with q {list(q.shape)}"
        )
    angles = (q.shape[1], rope // 2)
    if cos.shape not in (angles, (q.shape[0], *angles)) or sin.shape != cos.shape:
        raise ConfigError(
            f"mla_attention: cos {list(cos.shape)} and sin {list(sin.shape)} must be "
            f"{list(angles)}, or that for each of {q.shape[0]} rows"
        )
    for tensor in (document_start, *(gap or ())):
        if tensor is not None and tensor.shape != q.shape[:2]:
            raise ConfigError(
                f"mla_attention: document_start and gap {list(tensor.shape)} must be "
                f"{list(q.shape[:2])}, one key per query"
            )


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turns the pairs (2i, 2i+1) of the last axis by angle i, in fp32 or better."""
    even, odd = x.to(torch.promote_types(x.dtype, cos.dtype)).unflatten(-1, (-1, 2)).unbind(-1)
    rotated = torch.stack((even * cos - odd * sin, even * sin + odd * cos), dim=-1)
    return rotated.flatten(-2).to(x.dtype)


def _rotated_heads(
    q: Tensor, kv: Tensor, k_rope: Tensor, cos: Tensor, sin: Tensor, nope_head_dim: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Queries and keys [B, N, T, D+R] and values [B, N, T, Dv] as the scores want them."""
    q_nope, q_rope = q.split((nope_head_dim, q.shape[-1] - nope_head_dim), dim=-1)
    k_nope, value = kv.split((nope_head_dim, kv.shape[-1] - nope_head_dim), dim=-1)
    turned = _rotate(q_rope, cos.unsqueeze(-2), sin.unsqueeze(-2))  # [B, T, N, R]
    query = torch.cat((q_nope, turned), dim=-1)
    shared = _rotate(k_rope, cos, sin).unsqueeze(2).expand(-1, -1, q.shape[2], -1)  # [B, T, N, R]
    key = torch.cat((k_nope, shared), dim=-1)  # [B, T, N, D+R]
    return query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)


def visible_keys(
    num_tokens: int, document_start: Tensor | None, gap: Gap | None, device: torch.device
) -> Tensor:
    """Whether query t sees key s: [B or 1, 1, T, S] bool; operands as in `mla_attention`."""
    position = torch.arange(num_tokens, device=device)
    visible = (position[None, :] <= position[:, None])[None]  # [1, T, S]
    if document_start is not None:
        visible = visible & (document_start[:, :, None] <= position)
    if gap is not None:
        start, end = gap
        visible = visible & ((position < start[:, :, None]) | (end[:, :, None] <= position))
    return visible.unsqueeze(1)


def mla_attention_explicit(
    q: Tensor,
    kv: Tensor,
    k_rope: Tensor,
    cos: Tensor,
    sin: Tensor,
    document_start: Tensor | None,
    softmax_scale: float,
    nope_head_dim: int,
    gap: Gap | None = None,
) -> Tensor:
    """Every score written out. Shapes as `mla_attention`."""
    check_attention_shapes(q, kv, k_rope, cos, sin, document_start, nope_head_dim, gap)
    query, key, value = _rotated_heads(q, kv, k_rope, cos, sin, nope_head_dim)
    visible = visible_keys(q.shape[1], document_start, gap, q.device)
    dtype = torch.promote_types(q.dtype, torch.float32)
    scores = (query @ key.transpose(-1, -2)).to(dtype) * softmax_scale  # [B, N, T, S]
    # The lowest number, not -inf: a row without a visible key stays free of NaN.
    scores = scores.masked_fill(~visible, torch.finfo(dtype).min)
    weights = scores.softmax(dim=-1).masked_fill(~visible, 0).to(q.dtype)
    return (weights @ value).transpose(1, 2)  # [B, T, N, Dv]


def mla_attention(
    q: Tensor,
    kv: Tensor,
    k_rope: Tensor,
    cos: Tensor,
    sin: Tensor,
    document_start: Tensor | None,
    softmax_scale: float,
    nope_head_dim: int,
    gap: Gap | None = None,
) -> Tensor:
    """Causal attention of un-rotated queries over per-head keys and one shared rotary key.

    q [B, T, N, D+R], kv [B, T, N, D+Dv], k_rope [B, T, R], cos and sin [T, R/2] or [B, T, R/2]
    fp32, document_start [B, T] int32 or None (one document a row), nope_head_dim = D,
    gap 2 x [B, T] int32 (start, end: of the other answers to a prompt, say) or None
    -> [B, T, N, Dv].
    """
    check_attention_shapes(q, kv, k_rope, cos, sin, document_start, nope_head_dim, gap)
    query, key, value = _rotated_heads(q, kv, k_rope, cos, sin, nope_head_dim)
    width = value.shape[-1]
    if width < query.shape[-1]:  # SDPA's fast paths want one width for keys and values
        value = F.pad(value, (0, query.shape[-1] - width))
    if document_start is None and gap is None:
        out = F.scaled_dot_product_attention(query, key, value, is_causal=True, scale=softmax_scale)
        return out[..., :width].transpose(1, 2)  # [B, T, N, Dv]
    visible = visible_keys(q.shape[1], document_start, gap, q.device)  # [B, 1, T, S]
    blind = ~visible.any(dim=-1, keepdim=True)  # [B, 1, T, 1]
    out = F.scaled_dot_product_attention(
        query, key, value, attn_mask=visible | blind, scale=softmax_scale
    )
    return out[..., :width].masked_fill(blind, 0).transpose(1, 2)  # [B, T, N, Dv]
