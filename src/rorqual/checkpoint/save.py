"""From a Transformer to a model directory that other engines load (torch).

In memory experts are stacked, on disk they are split (`hf.py`); the tensors are cast and sliced as
they are written. The directory appears whole or not at all (`atomic.py`).
"""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist

from rorqual.checkpoint.atomic import atomic_directory
from rorqual.checkpoint.hf import HEAD, Placement, placements
from rorqual.checkpoint.tensors import dtype_name, full_tensors, tensor_bytes
from rorqual.checkpoint.writing import MAX_SHARD_BYTES, TensorSource, write_json, write_shards
from rorqual.config import ModelConfig, model_config_to_hf
from rorqual.errors import CheckpointError, RorqualError
from rorqual.model import Transformer
from rorqual.tokenizer import Tokenizer


def save_model(
    model: Transformer,
    tokenizer: Tokenizer | None,
    path: Path,
    *,
    dtype: torch.dtype = torch.float32,
    max_shard_bytes: int = MAX_SHARD_BYTES,
    generation: dict[str, Any] | None = None,
) -> None:
    """Save a model directory at `path`, replacing what is there only once it is complete.

    generation: entries of generation_config.json (temperature, top_p, ...) beside the token ids.
    Under torch.distributed all processes call this; the first one writes.
    """
    state = full_state_dict(model)

    def write() -> None:
        with atomic_directory(path) as directory:
            write_model(
                directory,
                model.config,
                state,
                tokenizer,
                dtype=dtype,
                max_shard_bytes=max_shard_bytes,
                generation=generation,
            )

    on_first_process(write)


def full_state_dict(model: Transformer) -> dict[str, Tensor]:
    """Parameters and persistent buffers as `full_tensors` gives them; all processes call it."""
    return full_tensors(model.state_dict())


def on_first_process(write: Callable[[], None]) -> None:
    """Run `write` on rank 0 alone; all processes return when it is done, or raise if it failed."""
    if not (dist.is_available() and dist.is_initialized()):
        write()
        return
    message: list[str | None] = [None]
    if dist.get_rank() != 0:
        dist.broadcast_object_list(message, src=0)
        if message[0] is not None:
            raise CheckpointError(f"rank 0 could not save: {message[0]}")
        return
    message = ["it stopped, see its own output"]
    try:
        write()
        message = [None]
    except RorqualError as error:
        message = [str(error)]
        raise
    finally:  # whatever happened, or the others would wait for ever
        dist.broadcast_object_list(message, src=0)


def write_model(
    directory: Path,
    config: ModelConfig,
    state: Mapping[str, Tensor],
    tokenizer: Tokenizer | None,
    *,
    dtype: torch.dtype = torch.float32,
    max_shard_bytes: int = MAX_SHARD_BYTES,
    generation: dict[str, Any] | None = None,
) -> None:
    """Write the files of a model into an existing directory, as a part of a larger checkpoint.

    state is a `full_state_dict`. Not atomic by itself: see `atomic_directory`.
    """
    table = placements(config)
    expected = {placement.parameter for placement in table} | {HEAD}
    assert state.keys() == expected, f"not of this config: {sorted(state.keys() ^ expected)[:3]}"
    dtype_text = str(dtype).removeprefix("torch.")
    write_json(directory / "config.json", model_config_to_hf(config, dtype=dtype_text))
    tokens = {"bos_token_id": config.bos_token_id, "eos_token_id": config.eos_token_id}
    write_json(directory / "generation_config.json", {**tokens, **(generation or {})})
    if tokenizer is not None:
        tokenizer.save(directory)
    sources = [_source(p, state[p.parameter], dtype) for p in table if p.written]
    write_shards(directory, sources, max_shard_bytes)


def _source(placement: Placement, parameter: Tensor, dtype: torch.dtype) -> TensorSource:
    stored = torch.float32 if placement.keep_fp32 else dtype
    assert parameter[placement.index].shape == placement.shape, f"{placement.name}: wrong shape"
    return TensorSource(
        placement.name,
        dtype_name(stored, placement.name),
        placement.shape,
        partial(_part_bytes, parameter, placement.index, stored),
    )


def _part_bytes(
    parameter: Tensor, index: tuple[int | slice, ...], dtype: torch.dtype
) -> memoryview:
    return tensor_bytes(parameter[index].to(dtype))
