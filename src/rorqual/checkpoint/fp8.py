"""FP8 weights as DeepSeek publishes them: float8_e4m3fn values with one scale per block.

`X.weight` comes with `X.weight_scale_inv` [ceil(out/128), ceil(in/128)]; a weight is its value
times the scale of its block, despite the scale's name (V3 technical report section 3.3). The last
block of a row or column may be smaller than the others.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rorqual.errors import CheckpointError

SCALE_SUFFIX = "_scale_inv"
DEFAULT_BLOCK = (128, 128)


def weight_block_size(directory: Path) -> tuple[int, int]:
    """Rows and columns per scale as `quantization_config` in config.json says.

    The published 128 x 128 where the file or the key is absent; CheckpointError for any other
    kind of quantisation.
    """
    file = directory / "config.json"
    if not file.is_file():
        return DEFAULT_BLOCK
    try:
        raw: Any = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{file}: not valid JSON ({error}); fetch it again") from error
    if not isinstance(raw, dict):
        raise CheckpointError(f"{file}: expected a JSON object; fetch it again")
    settings: dict[str, Any] = raw.get("quantization_config") or {}
    method, fmt = settings.get("quant_method", "fp8"), settings.get("fmt", "e4m3")
    if method != "fp8" or fmt != "e4m3":
        raise CheckpointError(
            f"{file}: quantization_config has quant_method={method!r}, fmt={fmt!r}, expected "
            "'fp8' and 'e4m3'; use the checkpoint in bfloat16 or in DeepSeek's FP8"
        )
    block = settings.get("weight_block_size", DEFAULT_BLOCK)
    match block:
        case [int(rows), int(columns)] if rows > 0 and columns > 0:
            return rows, columns
        case _:
            raise CheckpointError(
                f"{file}: weight_block_size={block!r}, expected two positive numbers such as "
                "[128, 128]; correct the file"
            )


def dequantize_blocks(
    values: NDArray[np.float32], scales: NDArray[np.float32], block: tuple[int, int], what: str
) -> NDArray[np.float32]:
    """values [O, I] times the scale of each block, scales [ceil(O/b0), ceil(I/b1)] -> [O, I]

    `what` names file and tensor in errors. The result may reuse `values`.
    """
    if values.ndim != 2:
        raise CheckpointError(
            f"{what}: FP8 of shape {list(values.shape)}, expected a matrix; convert it to bfloat16"
        )
    rows, columns = block
    expected = (-(-values.shape[0] // rows), -(-values.shape[1] // columns))
    if scales.shape != expected:
        raise CheckpointError(
            f"{what}: its {SCALE_SUFFIX[1:]} has shape {list(scales.shape)}, expected "
            f"{list(expected)} for a weight of {list(values.shape)} in blocks of {list(block)}; "
            "the scales belong to another weight or weight_block_size is wrong"
        )
    wide = np.repeat(scales, columns, axis=1)[:, : values.shape[1]]  # [O/b0, I]
    for index, scale in enumerate(wide):
        values[index * rows : (index + 1) * rows] *= scale
    return values
