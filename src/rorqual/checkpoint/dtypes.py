"""safetensors dtypes as numpy sees them.

numpy has neither bfloat16 nor float8, so those are read as their bits (uint16, uint8) and converted
here: bfloat16 is the upper half of a float32, and float8 has only 256 values, hence a table.
"""

import numpy as np
from numpy.typing import NDArray

from rorqual.errors import CheckpointError

# The array type that holds the values of a safetensors dtype, or their bits.
CONTAINERS: dict[str, np.dtype[np.generic]] = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),
    "F8_E4M3": np.dtype("u1"),
    "F8_E5M2": np.dtype("u1"),
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "I16": np.dtype("<i2"),
    "I8": np.dtype("i1"),
    "U64": np.dtype("<u8"),
    "U32": np.dtype("<u4"),
    "U16": np.dtype("<u2"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype("?"),
}
# What a weight may be stored as; FP8 needs its scales beside it.
WEIGHT_DTYPES = ("F32", "F16", "BF16", "F8_E4M3")


def _e4m3_values() -> NDArray[np.float32]:
    """Value of each byte as float8_e4m3fn: 4 exponent bits of bias 7, no infinity. [256]"""
    byte = np.arange(256)
    exponent, mantissa = (byte >> 3) & 15, byte & 7
    normal = np.ldexp(1 + mantissa / 8, exponent - 7)
    subnormal = np.ldexp(mantissa / 8, -6)
    magnitude = np.where(exponent == 0, subnormal, normal)
    magnitude[(byte & 127) == 127] = np.nan
    values = np.where(byte < 128, magnitude, -magnitude).astype(np.float32)
    values.setflags(write=False)
    return values


_E4M3 = _e4m3_values()


def to_float32(raw: NDArray[np.generic], dtype: str, what: str) -> NDArray[np.float32]:
    """Values or bits `raw` of safetensors dtype `dtype` as float32; `what` names them in errors."""
    if dtype == "F32":
        return raw.view(np.float32)
    if dtype == "F16":
        return raw.astype(np.float32)
    if dtype == "BF16":
        return (raw.astype(np.uint32) << 16).view(np.float32)
    if dtype == "F8_E4M3":
        return _E4M3[raw.view(np.uint8)]
    raise CheckpointError(
        f"{what}: dtype {dtype}, expected one of {', '.join(WEIGHT_DTYPES)}; convert the tensor "
        "and save the checkpoint again"
    )
