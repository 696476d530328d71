"""The native matrix product on every instruction set of this machine, against fp64."""

import itertools

import pytest
import torch
from torch import Tensor

from rorqual.errors import ConfigError
from rorqual.kernels import fused_linear
from rorqual.kernels.gemm import Layout, gemm
from rorqual.kernels.library import Library

LAYOUTS: tuple[Layout, ...] = ("NN", "NT", "TN")
# Tails of every block: rows, columns, depth, and depths of more than one block.
SIZES = [(1, 1, 1), (13, 33, 7), (29, 63, 385), (100, 70, 500), (15, 32, 800), (65, 300, 33)]


def operands(
    layout: Layout, size: tuple[int, int, int], dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    m, n, k = size
    generator = torch.Generator().manual_seed(m * n * k)
    a = torch.randn((k, m) if layout == "TN" else (m, k), generator=generator)
    b = torch.randn((n, k) if layout == "NT" else (k, n), generator=generator)
    return a.to(dtype), b.to(dtype)


def exact(layout: Layout, a: Tensor, b: Tensor) -> Tensor:
    left = a.double().T if layout == "TN" else a.double()
    return left @ (b.double().T if layout == "NT" else b.double())


def error(got: Tensor, expected: Tensor) -> float:
    return ((got.double() - expected).abs().max() / expected.abs().max()).item()


def every_set(library: Library) -> list[Library]:
    return [library.using(isa=isa) for isa in library.instruction_sets()]


@pytest.mark.parametrize("out_dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gemm_matches_fp64(library: Library, dtype: torch.dtype, out_dtype: torch.dtype) -> None:
    limit = 2e-6 if out_dtype == torch.float32 else 4e-3
    for layout, size, threads in itertools.product(LAYOUTS, SIZES, (1, 3)):
        a, b = operands(layout, size, dtype)
        for native in every_set(library):
            out = torch.full(size[:2], float("nan"), dtype=out_dtype)
            gemm(native.using(num_threads=threads), layout, a, b, out)
            assert error(out, exact(layout, a, b)) < limit, (native.isa, layout, size, threads)


def test_gemm_reads_and_writes_strided_rows_only_inside(library: Library) -> None:
    for layout, native in itertools.product(LAYOUTS, every_set(library)):
        a, b = operands(layout, (21, 45, 50), torch.float32)
        wide_a = torch.full((a.shape[0], a.shape[1] + 9), float("nan"))
        wide_b = torch.full((b.shape[0], b.shape[1] + 5), float("nan"))
        wide_a[:, 4:-5], wide_b[:, 2:-3] = a, b
        frame = torch.full((21, 60), 7.0)
        gemm(native, layout, wide_a[:, 4:-5], wide_b[:, 2:-3], frame[:, 3:48])
        assert error(frame[:, 3:48], exact(layout, a, b)) < 2e-6
        assert (frame[:, :3] == 7).all() and (frame[:, 48:] == 7).all()


@pytest.mark.parametrize("out_dtype", [torch.float32, torch.bfloat16])
def test_gemm_accumulates(library: Library, out_dtype: torch.dtype) -> None:
    limit = 2e-6 if out_dtype == torch.float32 else 4e-3
    for layout, native in itertools.product(LAYOUTS, every_set(library)):
        a, b = operands(layout, (30, 70, 400), torch.bfloat16)
        before = torch.randn(30, 70).to(out_dtype)
        out = before.clone()
        gemm(native, layout, a, b, out, accumulate=True)
        assert error(out, before.double() + exact(layout, a, b)) < limit


def test_gemm_keeps_nan_and_infinity_in_their_row(library: Library) -> None:
    for native in every_set(library):
        a, b = operands("NT", (40, 40, 40), torch.float32)
        a[3, 5], a[20, 0] = float("nan"), float("inf")
        out = torch.empty(40, 40)
        gemm(native, "NT", a, b, out)
        finite = torch.isfinite(out).all(dim=1)
        assert not finite[3] and not finite[20] and finite.sum() == 38


def test_gemm_repeats_bit_for_bit(library: Library) -> None:
    a, b = operands("TN", (200, 130, 900), torch.float32)
    first, again = torch.empty(200, 130), torch.empty(200, 130)
    for threads in (1, 2, 5):
        gemm(library.using(num_threads=threads), "TN", a, b, first)
        gemm(library.using(num_threads=threads), "TN", a, b, again)
        assert torch.equal(first, again)


def test_gemm_names_what_does_not_fit(library: Library) -> None:
    a, out = torch.zeros(3, 4), torch.zeros(3, 5)
    with pytest.raises(ConfigError, match=r"gemm NN: a \[3, 4\] and b \[5, 5\]"):
        gemm(library, "NN", a, torch.zeros(5, 5), out)
    with pytest.raises(ConfigError, match="both fp32 or both bf16"):
        gemm(library, "NN", a, torch.zeros(4, 5, dtype=torch.bfloat16), out)
    with pytest.raises(ConfigError, match="contiguous"):
        gemm(library, "NN", a, torch.zeros(5, 4).T, out)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_linear_matches_torch_forward_and_backward(library: Library, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    # A transposed batch: rows are not adjacent in memory.
    x = torch.randn(5, 2, 48).to(dtype).transpose(0, 1).requires_grad_()
    weight = torch.randn(37, 48).to(dtype).requires_grad_()
    grad_out = torch.randn(2, 5, 37).to(dtype)
    out = fused_linear.linear(library, x, weight)
    grads = torch.autograd.grad(out, (x, weight), grad_out)
    expected = torch.nn.functional.linear(x.double(), weight.double())
    expected_grads = torch.autograd.grad(expected, (x, weight), grad_out.double())
    limit = 2e-6 if dtype == torch.float32 else 5e-3
    for got, wanted in zip((out, *grads), (expected, *expected_grads), strict=True):
        assert got.dtype == dtype
        assert error(got.detach(), wanted.detach().double()) < limit


def test_linear_names_what_does_not_fit(library: Library) -> None:
    with pytest.raises(ConfigError, match=r"linear: x \[2, 3\] does not fit weight \[4, 5\]"):
        fused_linear.linear(library, torch.zeros(2, 3), torch.zeros(4, 5))
