"""The router: which experts a token visits and with what weight (V3 equations 12-20).

Affinity is a sigmoid (V3) or softmax (V2) of a linear map in fp32. V3 adds a bias to the affinities
for the selection only; output weights come from the raw affinities, so balancing never touches the
gradient. Masked groups are -inf: with 0 a negative biased score would let a masked expert win.

Where V2's published code normalises the chosen weights it does not scale them; V3's does both.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rorqual.config import ModelConfig


@dataclass(frozen=True, slots=True)
class Routing:
    """Where M tokens go. expert_idx [M, K] int64, expert_weight [M, K] fp32, scores [M, E] fp32."""

    expert_idx: Tensor
    expert_weight: Tensor
    scores: Tensor


class Router(nn.Module):
    """`mlp.gate` of a MoE layer: weight [E, H], buffer e_score_correction_bias [E] fp32."""

    e_score_correction_bias: Tensor

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config
        self.weight = nn.Parameter(torch.empty(config.num_experts, config.hidden_size))
        if config.uses_selection_bias:
            self.register_buffer(
                "e_score_correction_bias", torch.zeros(config.num_experts, dtype=torch.float32)
            )

    def forward(self, x: Tensor) -> Routing:
        """x [M, H] -> Routing"""
        config = self.config
        logits = F.linear(x.float(), self.weight.float())  # [M, E] fp32
        if config.scoring_func == "sigmoid":
            scores = logits.sigmoid()
        else:
            scores = logits.softmax(dim=-1)
        with torch.no_grad():
            choice = scores.detach()
            if config.uses_selection_bias:
                choice = choice + self.e_score_correction_bias  # eq. 16
            choice = self._mask_groups(choice)
            expert_idx = choice.topk(config.num_experts_per_tok, dim=-1).indices  # [M, K]
        weight = scores.gather(1, expert_idx)  # [M, K]
        return Routing(expert_idx, self._scale(weight), scores)

    def _mask_groups(self, choice: Tensor) -> Tensor:
        """Keep topk_group groups of experts, -inf elsewhere. [M, E] -> [M, E]"""
        config = self.config
        if config.topk_method == "greedy" or config.n_group == 1:
            return choice
        grouped = choice.unflatten(-1, (config.n_group, -1))  # [M, G, E/G]
        if config.topk_method == "noaux_tc":
            group_score = grouped.topk(2, dim=-1).values.sum(dim=-1)  # [M, G]
        else:
            group_score = grouped.amax(dim=-1)
        kept = group_score.topk(config.topk_group, dim=-1).indices  # [M, topk_group]
        dropped = torch.ones_like(group_score, dtype=torch.bool).scatter_(1, kept, False)
        return grouped.masked_fill(dropped[..., None], -torch.inf).flatten(-2)

    def _scale(self, weight: Tensor) -> Tensor:
        config = self.config
        if config.norm_topk_prob and config.num_experts_per_tok > 1:
            weight = weight / (weight.sum(dim=-1, keepdim=True) + 1e-20)  # eq. 13
            if config.model_type == "deepseek_v2":
                return weight
        return weight * config.routed_scaling_factor


def count_tokens(routing: Routing, num_experts: int) -> Tensor:
    """Token assignments per expert. [E] int64"""
    chosen = routing.expert_idx.flatten()
    counts = torch.zeros(num_experts, dtype=torch.long, device=chosen.device)
    return counts.scatter_add_(0, chosen, torch.ones_like(chosen))  # bincount would wait for a GPU


def balance_loss(routing: Routing, batch_size: int, config: ModelConfig) -> Tensor:
    """The complementary balance loss without its weight alpha (V3 eq. 17-20), mean over sequences.

    sum_e f_e P_e with f_e the share of assignments times E and P_e the mean normalised affinity;
    1.0 when perfectly even. Over the whole batch at once when `seq_aux` is false.
    """
    num_experts, num_chosen = config.num_experts, config.num_experts_per_tok
    num_groups = batch_size if config.seq_aux else 1
    scores = routing.scores
    if config.scoring_func == "sigmoid":
        scores = scores / (scores.sum(dim=-1, keepdim=True) + 1e-20)  # eq. 19
    mean_score = scores.unflatten(0, (num_groups, -1)).mean(dim=1)  # [B, E], eq. 20
    tokens = scores.shape[0] // num_groups
    chosen = routing.expert_idx.reshape(num_groups, -1)  # [B, T*K]
    counts = torch.zeros(num_groups, num_experts, device=scores.device).scatter_add_(
        1, chosen, torch.ones_like(chosen, dtype=torch.float32)
    )  # [B, E]
    share = counts * (num_experts / (num_chosen * tokens))  # eq. 18
    return (share * mean_score).sum(dim=-1).mean()
