"""Published weight names, safetensors, save and resume.

Two halves. Reading needs numpy alone: serving imports it without torch. Loading into a Transformer
and saving need torch, so those names are resolved on first use (PEP 562): importing this package
never imports torch, `from rorqual.checkpoint import load_model` does.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from rorqual.checkpoint.atomic import atomic_directory, resolve_directory
from rorqual.checkpoint.hf import Placement, placements, required_placements
from rorqual.checkpoint.models import resolve_model
from rorqual.checkpoint.reading import CheckpointReader
from rorqual.checkpoint.runs import (
    checkpoint_path,
    checkpoint_steps,
    ended_by,
    forget_end,
    model_directory,
    record_end,
)
from rorqual.checkpoint.weights import Weights, open_weights

if TYPE_CHECKING:
    from rorqual.checkpoint.load import load_model
    from rorqual.checkpoint.save import (
        full_state_dict,
        on_first_process,
        save_model,
        write_model,
    )
    from rorqual.checkpoint.tensors import full_tensors
    from rorqual.checkpoint.training_state import load_training_state, save_training_state

__all__ = [
    "CheckpointReader",
    "Placement",
    "Weights",
    "atomic_directory",
    "checkpoint_path",
    "checkpoint_steps",
    "ended_by",
    "forget_end",
    "full_state_dict",
    "full_tensors",
    "load_model",
    "load_training_state",
    "model_directory",
    "on_first_process",
    "open_weights",
    "placements",
    "record_end",
    "required_placements",
    "resolve_directory",
    "resolve_model",
    "save_model",
    "save_training_state",
    "write_model",
]

_TORCH_HALF = {
    "full_state_dict": "save",
    "full_tensors": "tensors",
    "load_model": "load",
    "load_training_state": "training_state",
    "on_first_process": "save",
    "save_model": "save",
    "save_training_state": "training_state",
    "write_model": "save",
}


def __getattr__(name: str) -> Any:
    """The torch half, imported when one of its names is first asked for."""
    if name not in _TORCH_HALF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_TORCH_HALF[name]}"), name)
