"""From a model directory to a Transformer (torch)."""

from pathlib import Path

import torch
from torch import Tensor

from rorqual.checkpoint.atomic import resolve_directory
from rorqual.checkpoint.dtypes import WEIGHT_DTYPES
from rorqual.checkpoint.hf import EMBEDDING, HEAD, Placement, required_placements
from rorqual.checkpoint.reading import FP8, CheckpointReader
from rorqual.checkpoint.tensors import DTYPES, read_tensor
from rorqual.config import read_model_config
from rorqual.errors import CheckpointError
from rorqual.kernels.ops import Ops
from rorqual.model import Transformer


def load_model(
    path: Path, *, dtype: torch.dtype | None = None, ops: Ops | None = None, with_mtp: bool = True
) -> Transformer:
    """The model of a directory, on the CPU.

    dtype: of the weights (None: as stored, FP8 as bfloat16); the router's selection bias stays
    fp32. with_mtp: false leaves the MTP modules out, and their absence from the directory is fine.
    """
    directory = resolve_directory(path)
    config = read_model_config(directory)
    reader = CheckpointReader(directory)
    wanted = required_placements(config, reader, with_mtp=with_mtp)
    if not with_mtp:
        config = config.model_copy(update={"num_nextn_predict_layers": 0})
    with torch.device("meta"):
        model = Transformer(config, ops)
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    state = _read_state(wanted, reader, shapes, dtype)
    if config.tie_word_embeddings:
        state[HEAD] = state[EMBEDDING]
    model.load_state_dict(state, assign=True)
    if config.tie_word_embeddings:
        model.lm_head.weight = model.model.embed_tokens.weight
    return model


def _read_state(
    wanted: list[Placement],
    reader: CheckpointReader,
    shapes: dict[str, torch.Size],
    dtype: torch.dtype | None,
) -> dict[str, Tensor]:
    """Every parameter and persistent buffer; parts of stacked parameters go to their place."""
    state: dict[str, Tensor] = {}
    for placement in wanted:
        if placement.copy:
            _check_copy(placement, reader)
            continue
        target = torch.float32 if placement.keep_fp32 else dtype
        part = _read_weight(reader, placement.name)
        part = part if target is None else part.to(target)
        if not placement.index:
            state[placement.parameter] = part
            continue
        stack = state.get(placement.parameter)
        if stack is None:
            stack = torch.empty(shapes[placement.parameter], dtype=part.dtype)
            state[placement.parameter] = stack
        if stack.dtype != part.dtype:
            raise CheckpointError(
                f"{reader.where(placement.name)} is {part.dtype}, the layer's other experts are "
                f"{stack.dtype}; give the dtype to load in"
            )
        stack[placement.index].copy_(part)
    return state


def _read_weight(reader: CheckpointReader, name: str) -> Tensor:
    dtype = reader.dtype(name)
    if dtype not in WEIGHT_DTYPES:
        raise CheckpointError(
            f"{reader.where(name)} has dtype {dtype}, expected one of {', '.join(WEIGHT_DTYPES)}; "
            "convert the checkpoint or fetch it again"
        )
    if dtype == FP8:
        return torch.from_numpy(reader.read(name)).to(DTYPES["BF16"])
    return read_tensor(reader, name)


def _check_copy(placement: Placement, reader: CheckpointReader) -> None:
    """A copy of a shared tensor must say what the tensor itself says."""
    copy, original = _read_weight(reader, placement.name), _read_weight(reader, placement.parameter)
    if not torch.equal(copy.float(), original.float()):
        raise CheckpointError(
            f"{reader.where(placement.name)} differs from {placement.parameter}, which this "
            "architecture shares; the checkpoint was trained with another one or is corrupt"
        )
