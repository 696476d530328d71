"""The tensor types of GGUF: their sizes, and between their bytes and float32.

F32, F16, BF16, Q8_0, Q4_0 and Q4_1 are done here; every other type goes through the `gguf` package
(extra `gguf`). A quantised row is a run of blocks, each with its own scale, so rows and whole
leading slices can be taken out of a tensor without reading the rest.
"""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rorqual.errors import CheckpointError

WriteType = Literal["F32", "BF16", "Q8_0"]
Bytes = NDArray[np.uint8]
_BLOCK = 32  # values that share a scale in Q4_0, Q4_1 and Q8_0


@dataclass(frozen=True, slots=True)
class TensorType:
    """One ggml type: `block_values` consecutive values take `block_bytes` bytes."""

    name: str
    number: int
    block_values: int
    block_bytes: int


# Name, ggml number, values and bytes of a block.
_TABLE = """
F32 0 1 4, F16 1 1 2, Q4_0 2 32 18, Q4_1 3 32 20, Q5_0 6 32 22, Q5_1 7 32 24, Q8_0 8 32 34,
Q2_K 10 256 84, Q3_K 11 256 110, Q4_K 12 256 144, Q5_K 13 256 176, Q6_K 14 256 210,
IQ2_XXS 16 256 66, IQ2_XS 17 256 74, IQ3_XXS 18 256 98, IQ1_S 19 256 50, IQ4_NL 20 32 18,
IQ3_S 21 256 110, IQ2_S 22 256 82, IQ4_XS 23 256 136, IQ1_M 29 256 56, BF16 30 1 2,
TQ1_0 34 256 54, TQ2_0 35 256 66, MXFP4 39 32 17, NVFP4 40 64 36
"""


def _parse_table() -> dict[int, TensorType]:
    rows = (row.split() for row in _TABLE.split(","))
    types = [TensorType(name, int(number), int(n), int(b)) for name, number, n, b in rows]
    return {kind.number: kind for kind in types}


TYPES = _parse_table()
TYPE_NAMED = {kind.name: kind for kind in TYPES.values()}


def dequantize(raw: Bytes, kind: TensorType, what: str) -> NDArray[np.float32]:
    """Values of whole blocks, in a row; `what` names file and tensor in errors. [values] fp32"""
    own = _READERS.get(kind.name)
    if own is not None:
        return own(raw)
    try:
        quants: Any = importlib.import_module("gguf.quants")
        constants: Any = importlib.import_module("gguf.constants")
    except ImportError as error:
        raise CheckpointError(
            f"{what} is stored as {kind.name}, which needs the gguf package; install "
            "`rorqual[gguf]` or convert the file to Q8_0"
        ) from error
    try:
        values = quants.dequantize(raw, constants.GGMLQuantizationType(kind.number))
    except (NotImplementedError, ValueError) as error:
        raise CheckpointError(
            f"{what} is stored as {kind.name}, which this gguf package does not read ({error}); "
            "update it"
        ) from error
    return np.asarray(values, dtype=np.float32).reshape(-1)


def encode(values: NDArray[np.float32], kind: WriteType) -> Bytes:
    """float32 values as the bytes of a type; Q8_0 takes rows that are multiples of 32."""
    flat = np.ascontiguousarray(values, dtype=np.float32).reshape(-1)
    return _WRITERS[kind](flat)


def bf16_bits(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """float32 rounded to the nearest bfloat16 (ties to even), as its 16 bits; NaN stays NaN."""
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    rounded = (bits + np.uint32(0x7FFF) + ((bits >> 16) & 1)) >> 16
    quiet = (bits >> 16) | np.uint32(0x40)
    return np.where(np.isnan(values), quiet, rounded).astype(np.uint16)


def _read_f32(raw: Bytes) -> NDArray[np.float32]:
    return raw.view("<f4")


def _read_f16(raw: Bytes) -> NDArray[np.float32]:
    return raw.view("<f2").astype(np.float32)


def _read_bf16(raw: Bytes) -> NDArray[np.float32]:
    return (raw.view("<u2").astype(np.uint32) << 16).view(np.float32)


def _read_q8_0(raw: Bytes) -> NDArray[np.float32]:
    """A block is an fp16 scale and 32 signed bytes."""
    blocks = raw.reshape(-1, 34)
    scale = np.ascontiguousarray(blocks[:, :2]).view("<f2").astype(np.float32)  # [blocks, 1]
    return (blocks[:, 2:].view(np.int8).astype(np.float32) * scale).reshape(-1)


def _nibbles(packed: Bytes) -> NDArray[np.float32]:
    """Low halves of a block's 16 bytes first, then the high halves. [blocks, 32] fp32"""
    return np.concatenate([packed & 15, packed >> 4], axis=1).astype(np.float32)


def _read_q4_0(raw: Bytes) -> NDArray[np.float32]:
    """A block is an fp16 scale and 32 values of 4 bits, offset by 8."""
    blocks = raw.reshape(-1, 18)
    scale = np.ascontiguousarray(blocks[:, :2]).view("<f2").astype(np.float32)
    return ((_nibbles(blocks[:, 2:]) - 8) * scale).reshape(-1)


def _read_q4_1(raw: Bytes) -> NDArray[np.float32]:
    """A block is an fp16 scale, an fp16 minimum and 32 values of 4 bits."""
    blocks = raw.reshape(-1, 20)
    both = np.ascontiguousarray(blocks[:, :4]).view("<f2").astype(np.float32)  # [blocks, 2]
    return (_nibbles(blocks[:, 4:]) * both[:, :1] + both[:, 1:]).reshape(-1)


def _write_f32(flat: NDArray[np.float32]) -> Bytes:
    return flat.astype("<f4", copy=False).view(np.uint8)


def _write_bf16(flat: NDArray[np.float32]) -> Bytes:
    return bf16_bits(flat).astype("<u2", copy=False).view(np.uint8)


def _write_q8_0(flat: NDArray[np.float32]) -> Bytes:
    """Scale = largest magnitude / 127, values rounded half away from zero, as ggml does."""
    blocks = flat.reshape(-1, _BLOCK)
    scale = np.abs(blocks).max(axis=1, keepdims=True) / np.float32(127)  # [blocks, 1]
    inverse = np.divide(1, scale, out=np.zeros_like(scale), where=scale != 0)
    scaled = blocks * inverse
    rounded = np.copysign(np.floor(np.abs(scaled) + np.float32(0.5)), scaled)
    halves = scale.astype("<f2").view(np.uint8)  # [blocks, 2]
    quants = rounded.astype(np.int8).view(np.uint8)
    return np.concatenate([halves, quants], axis=1).reshape(-1)


_READERS: dict[str, Callable[[Bytes], NDArray[np.float32]]] = {
    "F32": _read_f32,
    "F16": _read_f16,
    "BF16": _read_bf16,
    "Q8_0": _read_q8_0,
    "Q4_0": _read_q4_0,
    "Q4_1": _read_q4_1,
}
_WRITERS: dict[WriteType, Callable[[NDArray[np.float32]], Bytes]] = {
    "F32": _write_f32,
    "BF16": _write_bf16,
    "Q8_0": _write_q8_0,
}
