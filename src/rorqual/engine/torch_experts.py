"""Feed-forward layers in torch: SwiGLU, the router, the routed experts (V3 equations 12-16)."""

import torch
from torch import Tensor
from torch.nn import functional as F

from rorqual.config import ModelConfig
from rorqual.engine.torch_weights import Experts, FeedForward
from rorqual.kernels.twins_moe import moe_experts


def feed_forward(x: Tensor, weights: FeedForward) -> Tensor:
    """down(silu(gate x) * up x): x [T, H] -> [T, H]"""
    gate, up = F.linear(x, weights.gate_up).chunk(2, dim=-1)  # [T, F]
    return F.linear(F.silu(gate) * up, weights.down)


def mix_experts(
    x: Tensor, weights: Experts, config: ModelConfig, replayed: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Shared and routed experts: x [T, H] -> ([T, H], the chosen experts [T, K]).

    replayed [T, K]: experts to take instead of the router's choice, rows of -1 excepted; their
    weights are still the router's.
    """
    logits = F.linear(x.float(), weights.router)  # [T, E] fp32
    sigmoid = config.scoring_func == "sigmoid"
    scores = logits.sigmoid() if sigmoid else logits.softmax(dim=-1)  # [T, E]
    choice = scores if weights.selection_bias is None else scores + weights.selection_bias
    choice = _mask_groups(choice, config)
    chosen = choice.topk(config.num_experts_per_tok, dim=-1).indices  # [T, K]
    if replayed is not None:
        chosen = torch.where(replayed >= 0, replayed, chosen)
    weight = _scaled(scores.gather(1, chosen), config)  # [T, K]
    out = moe_experts(x, chosen, weight, weights.gate_up, weights.down)
    if weights.shared is not None:
        out = out + feed_forward(x, weights.shared)
    return out, chosen


def _mask_groups(choice: Tensor, config: ModelConfig) -> Tensor:
    """Keep the experts of the topk_group best groups, -inf elsewhere. [T, E]"""
    if config.topk_method == "greedy" or config.n_group == 1:
        return choice
    grouped = choice.unflatten(-1, (config.n_group, -1))  # [T, G, E/G]
    if config.topk_method == "noaux_tc":
        group_score = grouped.topk(2, dim=-1).values.sum(dim=-1)  # [T, G]
    else:
        group_score = grouped.amax(dim=-1)
    kept = group_score.topk(config.topk_group, dim=-1).indices  # [T, topk_group]
    dropped = torch.ones_like(group_score, dtype=torch.bool).scatter_(1, kept, False)
    return grouped.masked_fill(dropped[..., None], -torch.inf).flatten(-2)


def _scaled(weight: Tensor, config: ModelConfig) -> Tensor:
    """Output weights [T, K]; where V2's code normalises it does not scale, V3's does both."""
    if config.norm_topk_prob and config.num_experts_per_tok > 1:
        weight = weight / (weight.sum(dim=-1, keepdim=True) + 1e-20)  # eq. 13
        if config.model_type == "deepseek_v2":
            return weight
    return weight * config.routed_scaling_factor
