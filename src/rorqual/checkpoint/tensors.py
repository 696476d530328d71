"""Between torch tensors and safetensors bytes (torch)."""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch import distributed as dist
from torch.distributed.tensor import DTensor

from rorqual.checkpoint.reading import CheckpointReader
from rorqual.errors import CheckpointError

DTYPES: dict[str, torch.dtype] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
NAMES = {dtype: name for name, dtype in DTYPES.items()}


def dtype_name(dtype: torch.dtype, what: str) -> str:
    """safetensors' name of a torch dtype; `what` names the tensor in the error."""
    if dtype not in NAMES:
        raise CheckpointError(
            f"{what}: {dtype} cannot be saved, expected one of {', '.join(map(str, NAMES))}; "
            "convert it"
        )
    return NAMES[dtype]


def tensor_bytes(tensor: Tensor) -> memoryview:
    """The bytes of a CPU tensor, in row-major order."""
    if tensor.numel() == 0:  # may have stride 0, which view() refuses
        return memoryview(b"")
    flat = tensor.detach().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().data


def read_tensor(reader: CheckpointReader, name: str) -> Tensor:
    """A stored tensor in its own dtype, in memory of its own."""
    dtype = reader.dtype(name)
    if dtype not in DTYPES:
        raise CheckpointError(
            f"{reader.where(name)}: dtype {dtype}, expected one of {', '.join(DTYPES)}; convert it"
        )
    # The copy gives torch memory that it may write to; the file's map is read-only.
    return torch.from_numpy(reader.read_raw(name).copy()).view(DTYPES[dtype])


def full_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Whole CPU tensors on the first process, which writes them; nothing on the others.

    Shards of a DTensor are gathered one tensor at a time, so all processes must call this. A tensor
    that is whole and on the CPU already is passed on, not copied.
    """
    keeps = not (dist.is_available() and dist.is_initialized()) or dist.get_rank() == 0
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        whole = _full(tensor.detach())
        if keeps:
            found[name] = whole.cpu()
    return found


def _full(tensor: Tensor) -> Tensor:
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
