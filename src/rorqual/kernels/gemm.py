"""The native matrix product as a function of tensors, for kernels that are written in Python."""

from ctypes import c_int, c_int64, c_void_p
from typing import Final, Literal

from torch import Tensor

from rorqual.errors import ConfigError
from rorqual.kernels.library import Library
from rorqual.kernels.tensors import DTYPE_CODES, runs_natively

Layout = Literal["NN", "NT", "TN"]

_LAYOUT_CODES: Final[dict[Layout, int]] = {"NN": 0, "NT": 1, "TN": 2}
_GEMM: Final = (*(c_int,) * 3, *(c_int64,) * 3, *(c_void_p, c_int64) * 3, c_int)


def gemm(
    library: Library, layout: Layout, a: Tensor, b: Tensor, out: Tensor, accumulate: bool = False
) -> None:
    """out (+)= A B with fp32 sums: NN a [M, K] b [K, N], NT b [N, K], TN a [K, M]; out [M, N].

    a and b are both fp32 or both bf16, out either. Rows may be strided, their elements not.
    """
    _check(layout, a, b, out)
    depth = a.shape[0] if layout == "TN" else a.shape[1]
    operands = [value for t in (a, b, out) for value in (t.data_ptr(), t.stride(0))]
    library.call(
        "rq_gemm", _GEMM, DTYPE_CODES[a.dtype], DTYPE_CODES[out.dtype], _LAYOUT_CODES[layout],
        *out.shape, depth, *operands, int(accumulate),
    )  # fmt: skip


def _check(layout: Layout, a: Tensor, b: Tensor, out: Tensor) -> None:
    if not (a.ndim == b.ndim == out.ndim == 2 and runs_natively(a, b) and runs_natively(out)):
        raise ConfigError("gemm takes CPU matrices, a and b both fp32 or both bf16")
    (rows, depth) = a.shape[::-1] if layout == "TN" else a.shape
    (depth_of_b, columns) = b.shape[::-1] if layout == "NT" else b.shape
    if depth != depth_of_b or out.shape != (rows, columns):
        raise ConfigError(
            f"gemm {layout}: a {list(a.shape)} and b {list(b.shape)} do not make out "
            f"{list(out.shape)}"
        )
    if any(t.stride(1) != 1 and t.shape[1] > 1 for t in (a, b, out)):
        raise ConfigError("gemm needs adjacent elements in each row; pass a contiguous tensor")
