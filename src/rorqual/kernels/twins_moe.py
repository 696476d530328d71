"""Routed experts in plain torch: the specification of `fused_moe.moe_experts`, and its fallback.

DeepSeekMoE, V3 paper section 2.1.2: y = sum_k w_k Down_e(SiLU(Gate_e x) * Up_e x) with e the k-th
expert of the token. Tokens are sorted by expert and multiplied in groups; expert weights are never
gathered, no token is dropped, and an expert without tokens costs nothing.

Two forms compute the same thing. The loop runs anywhere. The grouped form (one `grouped_mm` per
matrix) saves the launches of the loop where there are many experts; it needs rows that are
multiples of 16 bytes.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from rorqual.errors import ConfigError


def check_moe_shapes(
    x: Tensor, expert_idx: Tensor, expert_weight: Tensor, gate_up: Tensor, down: Tensor
) -> None:
    """Raises ConfigError unless the five operands fit each other."""
    if gate_up.ndim != 3 or down.ndim != 3 or x.ndim != 2:
        raise ConfigError(
            f"moe_experts takes x [M, H], gate_up [E, 2F, H], down [E, H, F]; got "
            f"{list(x.shape)}, {list(gate_up.shape)}, {list(down.shape)}"
        )
    num_experts, width, hidden_size = down.shape[0], down.shape[2], x.shape[1]
    if gate_up.shape != (num_experts, 2 * width, hidden_size) or down.shape[1] != hidden_size:
        raise ConfigError(
            f"moe_experts: gate_up {list(gate_up.shape)} and down {list(down.shape)} must be "
            f"[E, 2F, H] and [E, H, F] with H = {hidden_size} as in x"
        )
    if expert_idx.shape != expert_weight.shape or expert_idx.shape[:-1] != x.shape[:1]:
        raise ConfigError(
            f"moe_experts: expert_idx {list(expert_idx.shape)} and expert_weight "
            f"{list(expert_weight.shape)} must both be [M, K] with M = {x.shape[0]} as in x"
        )


def moe_experts_loop(
    x: Tensor, expert_idx: Tensor, expert_weight: Tensor, gate_up: Tensor, down: Tensor
) -> Tensor:
    """One product per expert. Shapes as `moe_experts`."""
    order = expert_idx.flatten().argsort(stable=True)  # [M * K] slots, by expert
    token = order // expert_idx.shape[1]  # [M * K]
    counts = torch.bincount(expert_idx.flatten(), minlength=down.shape[0]).tolist()
    outputs = []
    for rows, expert_gate_up, expert_down in zip(
        x[token].split(counts), gate_up.unbind(0), down.unbind(0), strict=True
    ):
        gate, up = F.linear(rows, expert_gate_up).chunk(2, dim=-1)  # [rows, F]
        outputs.append(F.linear(F.silu(gate) * up, expert_down))  # [rows, H]
    return _combine(torch.cat(outputs), order, expert_weight)


def moe_experts_grouped(
    x: Tensor, expert_idx: Tensor, expert_weight: Tensor, gate_up: Tensor, down: Tensor
) -> Tensor:
    """One `grouped_mm` per matrix. Shapes as `moe_experts`."""
    by_expert, order = expert_idx.flatten().sort(stable=True)  # 2 x [M * K], slots by expert
    token = order // expert_idx.shape[1]  # [M * K]
    # Where each expert's rows end, without asking a GPU how many there are.
    experts = torch.arange(down.shape[0], device=x.device)
    ends = torch.searchsorted(by_expert, experts, right=True, out_int32=True)  # [E]
    gate, up = F.grouped_mm(x[token], gate_up.transpose(1, 2), offs=ends).chunk(2, dim=-1)
    hidden = F.silu(gate) * up  # [M * K, F]
    rows = F.grouped_mm(hidden, down.transpose(1, 2), offs=ends)  # [M * K, H]
    return _combine(rows, order, expert_weight)


def _combine(rows: Tensor, order: Tensor, expert_weight: Tensor) -> Tensor:
    """Undoes the sort and adds each token's K rows in the order of its expert_idx."""
    num_tokens, num_chosen = expert_weight.shape
    slots = torch.empty_like(rows).index_copy(0, order, rows)  # [M * K, H]
    weighted = slots.view(num_tokens, num_chosen, rows.shape[-1])
    weighted = weighted * expert_weight.unsqueeze(-1).to(rows.dtype)  # [M, K, H]
    return weighted.sum(dim=1)  # [M, H]


def moe_experts(
    x: Tensor, expert_idx: Tensor, expert_weight: Tensor, gate_up: Tensor, down: Tensor
) -> Tensor:
    """Weighted sum of each token's experts, in the form that is faster for the operands.

    x [M, H], expert_idx [M, K] int64, expert_weight [M, K] fp32, gate_up [E, 2F, H] (F rows of
    gate, then F of up), down [E, H, F] -> [M, H] in x's dtype.
    """
    check_moe_shapes(x, expert_idx, expert_weight, gate_up, down)
    form = moe_experts_grouped if _grouped_runs(x, gate_up, down) else moe_experts_loop
    return form(x, expert_idx, expert_weight, gate_up, down)


def runs_grouped(dtype: torch.dtype, device: torch.device, *widths: int) -> bool:
    """Whether `grouped_mm` takes matrices of this dtype and these widths, in whole 16 bytes a row.

    The loop asks the device how many rows each expert has; the grouped form never waits for it.
    """
    dtypes = (torch.bfloat16, torch.float32) if device.type == "cpu" else (torch.bfloat16,)
    return dtype in dtypes and all(width * dtype.itemsize % 16 == 0 for width in widths)


def _grouped_runs(x: Tensor, gate_up: Tensor, down: Tensor) -> bool:
    """Whether these operands can take the grouped form."""
    one_dtype = gate_up.dtype == down.dtype == x.dtype
    fits = runs_grouped(x.dtype, x.device, x.shape[1], down.shape[2])
    return one_dtype and fits and len(x) > 0
