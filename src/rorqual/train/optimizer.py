"""AdamW as V3 uses it, or Muon for the hidden matrices with AdamW for everything else.

Moments are kept by parameter name, so they survive a change of order or of process count.
Weight decay acts on matrices only; norms have none.
"""

from typing import Any

import torch
from torch import Tensor
from torch.optim import AdamW, Optimizer

from rorqual.config import TrainConfig
from rorqual.errors import CheckpointError
from rorqual.model import Transformer
from rorqual.train.muon import Muon


def _is_hidden_matrix(name: str, parameter: Tensor) -> bool:
    """Weights between hidden layers, experts too: not the embedding, the head or the router."""
    outside = ("embed_tokens", "lm_head", "mlp.gate.weight")
    return parameter.ndim >= 2 and not any(part in name for part in outside)


class RunOptimizer:
    """One or two torch optimizers stepped as one, with named state."""

    def __init__(self, model: Transformer, config: TrainConfig):
        self.names: dict[Tensor, str] = {
            parameter: name for name, parameter in model.named_parameters()
        }
        named = [(name, parameter) for parameter, name in self.names.items()]
        muon = {n: p for n, p in named if config.optimizer == "muon" and _is_hidden_matrix(n, p)}
        rest = [(n, p) for n, p in named if n not in muon]
        groups = [
            {"params": [p for _, p in rest if p.ndim > 1], "weight_decay": config.weight_decay},
            {"params": [p for _, p in rest if p.ndim == 1], "weight_decay": 0.0},
        ]
        self.optimizers: list[Optimizer] = [
            AdamW(
                groups,
                lr=config.learning_rate,
                betas=(config.beta1, config.beta2),
                eps=config.adam_eps,
                fused=True,
            )
        ]
        if muon:
            hidden = Muon(muon.items(), lr=config.learning_rate, weight_decay=config.weight_decay)
            self.optimizers.append(hidden)

    def step(self, learning_rate: float) -> None:
        """Apply the gradients at this learning rate, then drop them."""
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = learning_rate
            optimizer.step()
        self.zero_grad()

    def zero_grad(self) -> None:
        """Drop the gradients."""
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)

    def state(self) -> dict[str, Tensor]:
        """Moments and step counts as `<parameter name>/<field>`."""
        found: dict[str, Tensor] = {}
        for optimizer in self.optimizers:
            for parameter, fields in optimizer.state.items():
                for field, value in fields.items():
                    found[f"{self.names[parameter]}/{field}"] = torch.as_tensor(value)
        return found

    def load_state(self, saved: dict[str, Tensor]) -> None:
        """Put saved moments back; CheckpointError if they are not this model's."""
        parameters = {name: parameter for parameter, name in self.names.items()}
        owner = {
            parameter: optimizer
            for optimizer in self.optimizers
            for group in optimizer.param_groups
            for parameter in group["params"]
        }
        fields_of: dict[str, dict[str, Any]] = {}
        for key, value in saved.items():
            name, _, field = key.rpartition("/")
            if name not in parameters:
                raise CheckpointError(f"optimizer state {key}: no such parameter in this model")
            fields_of.setdefault(name, {})[field] = value
        if saved and fields_of.keys() != parameters.keys():
            missing = sorted(parameters.keys() - fields_of.keys())[0]
            raise CheckpointError(
                f"optimizer state: {missing} is missing; resume from another step"
            )
        for name, fields in fields_of.items():
            parameter = parameters[name]
            owner[parameter].state[parameter] = fields
