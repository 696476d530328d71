"""The model's operations in plain torch, as well as one can write them without own kernels.

Each expert's rows are padded to a multiple of 128 so that matrix shapes repeat, attention goes
through SDPA with V padded to the query's width (the CPU flash kernel wants equal widths).
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from rorqual.kernels import twins_norm
from rorqual.kernels.ops import Ops

ROW_MULTIPLE = 128


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    even, odd = x[..., 0::2], x[..., 1::2]
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), dim=-1).flatten(-2)


def sdpa_attention(
    q: Tensor,
    kv: Tensor,
    k_rope: Tensor,
    cos: Tensor,
    sin: Tensor,
    document_start: Tensor | None,
    softmax_scale: float,
    nope_head_dim: int,
    gap: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    assert document_start is None and gap is None
    cos, sin = cos.to(q.dtype), sin.to(q.dtype)
    heads, width = q.shape[2], q.shape[3]
    turned = rotate(q[..., nope_head_dim:], cos[:, None], sin[:, None])
    query = torch.cat((q[..., :nope_head_dim], turned), dim=-1).transpose(1, 2)  # [B, N, T, D+R]
    shared = rotate(k_rope, cos, sin)[:, :, None].expand(-1, -1, heads, -1)
    key = torch.cat((kv[..., :nope_head_dim], shared), dim=-1).transpose(1, 2)
    value = kv[..., nope_head_dim:].transpose(1, 2)
    value_dim = value.shape[-1]
    value = F.pad(value, (0, width - value_dim))
    out = F.scaled_dot_product_attention(query, key, value, is_causal=True, scale=softmax_scale)
    return out[..., :value_dim].transpose(1, 2)  # [B, T, N, Dv]


def padded_experts(
    x: Tensor, expert_idx: Tensor, expert_weight: Tensor, gate_up: Tensor, down: Tensor
) -> Tensor:
    num_tokens, num_chosen = expert_idx.shape
    num_experts = gate_up.shape[0]
    flat = expert_idx.flatten()
    order = flat.argsort(stable=True)
    counts = torch.bincount(flat, minlength=num_experts)
    padded = (counts + ROW_MULTIPLE - 1) // ROW_MULTIPLE * ROW_MULTIPLE
    owner = flat[order]
    within = torch.arange(owner.numel()) - (counts.cumsum(0) - counts)[owner]
    slot = (padded.cumsum(0) - padded)[owner] + within
    source = torch.zeros(int(padded.sum()), dtype=torch.long).scatter_(0, slot, order // num_chosen)
    outputs = []
    for expert, rows in enumerate(x[source].split(padded.tolist())):
        gate, up = F.linear(rows, gate_up[expert]).chunk(2, dim=-1)
        outputs.append(F.linear(F.silu(gate) * up, down[expert]))
    place = torch.empty_like(order).scatter_(0, order, slot)
    chosen = torch.cat(outputs)[place].view(num_tokens, num_chosen, -1)
    return (chosen * expert_weight.to(x.dtype)[..., None]).sum(dim=1)


def cross_entropy(hidden: Tensor, head: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(F.linear(hidden, head).float(), targets, reduction="sum")


def plain_padded_ops() -> Ops:
    return Ops(
        moe_experts=padded_experts,
        mla_attention=sdpa_attention,
        rms_norm=twins_norm.rms_norm,
        swiglu=twins_norm.swiglu,
        linear=F.linear,
        linear_cross_entropy=cross_entropy,
    )
