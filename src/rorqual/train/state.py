"""What a run must remember between two processes, saved inside its checkpoint.

A checkpoint is a model directory that anything can serve, plus `training_state.*` beside it: the
optimizer's moments and a handful of counters. Restoring both continues the run bit for bit. The
weights of a network without a published form lie beside the moments, and nothing can serve it.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from rorqual.checkpoint import (
    atomic_directory,
    full_state_dict,
    full_tensors,
    load_model,
    load_training_state,
    on_first_process,
    save_training_state,
    write_model,
)
from rorqual.config import model_config_to_hf
from rorqual.errors import CheckpointError
from rorqual.model import Transformer
from rorqual.parallel import settle
from rorqual.release import sign_here
from rorqual.tokenizer import Tokenizer
from rorqual.train.step import TrainStep

_WEIGHTS = "weights/"


@dataclass(slots=True)
class RunState:
    """Counters of a run. loader is the data cursor, token_budget 0 until it is fixed."""

    step: int = 0
    tokens_seen: int = 0
    token_budget: int = 0
    elapsed_seconds: float = 0.0
    skipped_in_a_row: int = 0
    validations_done: int = 0
    samples_done: int = 0
    loader: dict[str, Any] = field(default_factory=dict)


def save(
    path: Path, model: Transformer, tokenizer: Tokenizer, step: TrainStep, state: RunState
) -> None:
    """Write a checkpoint, atomically; all processes call it, the first one writes."""
    settle(model)
    weights = full_state_dict(model)
    moments = full_tensors(step.optimizer.state())
    values = asdict(state) | {"recent_norms": list(step.recent_norms)}
    if not model.has_published_form:
        moments |= {f"{_WEIGHTS}{name}": tensor for name, tensor in weights.items()}

    def write() -> None:
        with atomic_directory(path) as directory:
            if model.has_published_form:
                write_model(directory, model.config, weights, tokenizer)
            save_training_state(directory, moments, values)
            sign_here(directory, path.name)

    on_first_process(write)


def restore(path: Path, model: Transformer, step: TrainStep) -> RunState:
    """Load a checkpoint into the (possibly sharded) model and its step."""
    moments, values = load_training_state(path)
    if model.has_published_form:
        weights = _published_weights(path, model)
    else:
        names = [name for name in moments if name.startswith(_WEIGHTS)]
        weights = {name.removeprefix(_WEIGHTS): moments.pop(name) for name in names}
    _copy_weights(weights, model)
    parameters = {name: parameter for parameter, name in step.optimizer.names.items()}
    placed = {
        key: _place_like(value, parameters.get(key.rpartition("/")[0]))
        for key, value in moments.items()
    }
    step.optimizer.load_state(placed)
    step.recent_norms.extend(values.pop("recent_norms"))
    return RunState(**values)


def _published_weights(path: Path, model: Transformer) -> dict[str, Tensor]:
    saved = load_model(path, dtype=torch.float32, ops=model.ops)
    if model_config_to_hf(saved.config, dtype="") != model_config_to_hf(model.config, dtype=""):
        raise CheckpointError(
            f"{path}: was saved from another [model] configuration; choose another --out"
        )
    return saved.state_dict()


@torch.no_grad()
def _copy_weights(source: Mapping[str, Tensor], target: Transformer) -> None:
    for name, tensor in target.state_dict().items():
        tensor.copy_(_place_like(source[name], tensor))


def _place_like(value: Tensor, like: Tensor | nn.Parameter | None) -> Tensor:
    """`value` on the device of `like`, sharded as it is where the shapes agree (step counts don't).

    NOTE: fused AdamW on CUDA wants its step counts there too.
    """
    if isinstance(like, DTensor) and value.shape == like.shape:
        return distribute_tensor(value.to(like.device), like.device_mesh, like.placements)
    return value if like is None else value.to(like.device)
