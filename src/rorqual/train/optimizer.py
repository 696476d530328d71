"""AdamW as V3 uses it, or Muon for the hidden matrices with AdamW for everything else.

Moments are kept by parameter name, so they survive a change of order or of process count.
Weight decay acts on matrices only; norms have none.
"""

from typing import Any, Literal, Protocol

import torch
from torch import Tensor
from torch.optim import AdamW, Optimizer

from rorqual.errors import CheckpointError
from rorqual.model import Transformer
from rorqual.train.muon import Muon


class OptimizerSettings(Protocol):
    """The fields that [train], [sft] and [rl] share."""

    @property
    def optimizer(self) -> Literal["adamw", "muon"]: ...
    @property
    def learning_rate(self) -> float: ...
    @property
    def beta1(self) -> float: ...
    @property
    def beta2(self) -> float: ...
    @property
    def adam_eps(self) -> float: ...
    @property
    def weight_decay(self) -> float: ...


def _is_hidden_matrix(name: str, parameter: Tensor) -> bool:
    """Weights between hidden layers, experts too: not the embedding, the head or the router."""
    outside = ("embed_tokens", "lm_head", "mlp.gate.weight")
    return parameter.ndim >= 2 and not any(part in name for part in outside)


def mtp_prefixes(model: Transformer) -> tuple[str, ...]:
    """What the names of the MTP modules' parameters begin with."""
    first = model.config.num_hidden_layers
    depths = range(first, first + model.config.num_nextn_predict_layers)
    return tuple(f"model.layers.{layer_idx}." for layer_idx in depths)


class RunOptimizer:
    """One or two torch optimizers stepped as one, with named state."""

    def __init__(self, model: Transformer, config: OptimizerSettings, *, with_mtp: bool = True):
        """with_mtp: whether the MTP modules are trained too."""
        self.keep_gradients = False  # a CUDA graph adds to them where they are
        untouched = () if with_mtp else mtp_prefixes(model)
        self.names: dict[Tensor, str] = {
            parameter: name
            for name, parameter in model.named_parameters()
            if not name.startswith(untouched)
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
        """Drop the gradients, or empty them where they are."""
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=not self.keep_gradients)

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
