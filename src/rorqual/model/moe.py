"""DeepSeekMoE: fine-grained routed experts beside shared ones (V3 section 2.1.2).

Expert weights are stacked, [E, 2F, H] (gate rows, then up rows) and [E, H, F]; on disk they are
split under the published names by `checkpoint/hf.py`. No token is ever dropped.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rorqual.config import ModelConfig
from rorqual.kernels.ops import Ops
from rorqual.model.layers import MLP
from rorqual.model.router import Router, Routing, balance_loss, count_tokens


@dataclass(frozen=True, slots=True)
class RoutingStatistics:
    """What one MoE layer did in one forward.

    tokens_per_expert [E] int64 counts assignments; balance_loss is a scalar that carries gradient;
    routing holds the decisions themselves.
    """

    layer_idx: int
    tokens_per_expert: Tensor
    balance_loss: Tensor
    routing: Routing


class Experts(nn.Module):
    """The stacked routed experts of a layer."""

    def __init__(self, config: ModelConfig, ops: Ops):
        super().__init__()
        self.ops = ops
        experts, width = config.num_experts, config.moe_intermediate_size
        self.gate_up_proj = nn.Parameter(torch.empty(experts, 2 * width, config.hidden_size))
        self.down_proj = nn.Parameter(torch.empty(experts, config.hidden_size, width))

    def forward(self, x: Tensor, routing: Routing) -> Tensor:
        """x [M, H] -> weighted sum of the chosen experts' outputs [M, H]"""
        return self.ops.moe_experts(
            x,
            routing.expert_idx,
            routing.expert_weight,
            self.gate_up_proj.to(x.dtype),
            self.down_proj.to(x.dtype),
        )


class MoE(nn.Module):
    """Shared experts on every token plus K routed ones (V3 eq. 12)."""

    def __init__(self, config: ModelConfig, layer_idx: int, ops: Ops):
        super().__init__()
        self.config, self.layer_idx = config, layer_idx
        self.gate = Router(config)
        self.experts = Experts(config, ops)
        self.shared_experts = (
            MLP(config.hidden_size, config.shared_intermediate_size, ops)
            if config.shared_intermediate_size
            else None
        )

    def forward(self, x: Tensor) -> tuple[Tensor, RoutingStatistics]:
        """x [B, T, H] -> ([B, T, H], statistics)"""
        out, routing = self.mix(x)
        statistics = RoutingStatistics(
            layer_idx=self.layer_idx,
            tokens_per_expert=count_tokens(routing, self.config.num_experts),
            balance_loss=balance_loss(routing, x.shape[0], self.config),
            routing=routing,
        )
        return out, statistics

    def mix(self, x: Tensor) -> tuple[Tensor, Routing]:
        """What decoding needs of a layer: x [B, T, H] -> ([B, T, H], decisions)"""
        tokens = x.flatten(0, 1)  # [M, H]
        routing = self.gate(tokens)
        out = self.experts(tokens, routing).view_as(x)
        if self.shared_experts is not None:
            out = out + self.shared_experts(x)
        return out, routing
