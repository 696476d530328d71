"""What a resumed run needs beside the weights: optimizer moments, RNG states, counters, cursors.

Tensors go to safetensors and plain values to JSON, never to pickle, so opening a checkpoint runs
no code. Both files lie in the model directory, written inside the same `atomic_directory`.
"""

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from rorqual.checkpoint.atomic import resolve_directory
from rorqual.checkpoint.reading import CheckpointReader
from rorqual.checkpoint.tensors import dtype_name, read_tensor, tensor_bytes
from rorqual.checkpoint.writing import TensorSource, write_safetensors
from rorqual.errors import CheckpointError

TENSORS_FILE = "training_state.safetensors"
VALUES_FILE = "training_state.json"


def save_training_state(
    path: Path, tensors: Mapping[str, Tensor], values: Mapping[str, Any]
) -> None:
    """Write both files into the existing directory `path`.

    tensors: whole, on the CPU (see `full_tensors`). values: what JSON holds, so tuples come back
    as lists and keys as strings.
    """
    sources = [
        TensorSource(
            name, dtype_name(tensor.dtype, name), tuple(tensor.shape), partial(tensor_bytes, tensor)
        )
        for name, tensor in tensors.items()
    ]
    write_safetensors(path / TENSORS_FILE, sources, {"format": "pt"})
    (path / VALUES_FILE).write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")


def load_training_state(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and values as they were saved, bit for bit."""
    directory = resolve_directory(path)
    for file in (TENSORS_FILE, VALUES_FILE):
        if not (directory / file).is_file():
            raise CheckpointError(
                f"{directory}: holds no {file}; it is a model without the state of its training, "
                "start a new run from it instead of resuming"
            )
    try:
        values: dict[str, Any] = json.loads((directory / VALUES_FILE).read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(
            f"{directory / VALUES_FILE}: not valid JSON ({error}); resume from another checkpoint"
        ) from error
    reader = CheckpointReader(directory / TENSORS_FILE)
    return {name: read_tensor(reader, name) for name in reader.names()}, values
