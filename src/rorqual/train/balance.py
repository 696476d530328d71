"""Loss-free load balancing: the selection bias of every router (V3 section 2.1.2).

Counts are gathered over all micro-batches and processes of an optimizer step, MTP layers included,
and the bias moves once per step: by +gamma where an expert had less than its share, by -gamma where
it had more. Its mean is taken out, since only differences select and a common drift would grow.
"""

import torch
from torch import Tensor

from rorqual.model import MoE, RoutingStatistics, Transformer
from rorqual.parallel import Processes


class LoadCounter:
    """Token assignments of one optimizer step. counts [num MoE layers, E] int64"""

    def __init__(self, model: Transformer):
        self.layers: dict[int, MoE] = {
            index: layer.mlp
            for index, layer in enumerate(model.model.layers)
            if isinstance(layer.mlp, MoE)
        }
        self._row = {layer_idx: row for row, layer_idx in enumerate(self.layers)}
        device = model.lm_head.weight.device
        shape = (len(self.layers), model.config.num_experts)
        self.counts = torch.zeros(shape, dtype=torch.long, device=device)

    def of(self, routing: tuple[RoutingStatistics, ...]) -> Tensor:
        """The counts of one forward, of which MTP layers may be missing. [num MoE layers, E]"""
        counts = torch.zeros_like(self.counts)
        for one in routing:
            counts[self._row[one.layer_idx]] = one.tokens_per_expert
        return counts

    def add(self, counts: Tensor) -> None:
        """Count one micro-batch. [num MoE layers, E]"""
        self.counts = self.counts + counts

    def gather(self, processes: Processes) -> Tensor:
        """The step's counts over all processes, and start anew. [num MoE layers, E]"""
        total = processes.sum(self.counts).cpu()
        self.counts = torch.zeros_like(self.counts)
        return total

    @torch.no_grad()
    def update_biases(self, counts: Tensor, gamma: float) -> None:
        """Move each router's bias by one step of size gamma from the gathered counts."""
        if gamma == 0:
            return
        for row, layer in enumerate(self.layers.values()):
            move_bias(layer.gate.e_score_correction_bias, counts[row], gamma)


def move_bias(bias: Tensor, counts: Tensor, gamma: float) -> None:
    """bias [E] += gamma * sign(mean load - load), centred, in place; counts [E]."""
    load = counts.to(device=bias.device, dtype=torch.float64)
    bias += gamma * (load.mean() - load).sign().to(bias.dtype)
    bias -= bias.mean()


def max_violation(counts: Tensor) -> float:
    """MaxVio: the largest relative overload of an expert, the worst layer's. 0 is even."""
    if counts.numel() == 0:
        return 0.0
    load = counts.double()
    mean = load.mean(dim=-1, keepdim=True).clamp(min=1e-9)
    return float((load / mean).max() - 1)
