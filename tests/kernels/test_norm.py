"""RMSNorm and SwiGLU: the native kernels against their twins."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from rorqual.errors import ConfigError
from rorqual.kernels import fused_norm, twins_norm
from rorqual.kernels.library import Library

SHAPES = [(1, 3), (3, 5, 33), (7, 512), (300, 64), (1025, 192), (0, 16)]
EPS = 1e-5


def run(op: Callable[..., Tensor], inputs: list[Tensor], grad_out: Tensor) -> list[Tensor]:
    """Output and the gradients of the inputs."""
    leaves = [tensor.detach().clone().requires_grad_() for tensor in inputs]
    out = op(*leaves)
    return [out.detach(), *torch.autograd.grad(out, leaves, grad_out.to(out.dtype))]


def native_norm(library: Library) -> Callable[..., Tensor]:
    return lambda x, weight: fused_norm.rms_norm(library, x, weight, EPS)


def twin_norm(x: Tensor, weight: Tensor) -> Tensor:
    return twins_norm.rms_norm(x, weight, EPS)


def native_swiglu(library: Library) -> Callable[..., Tensor]:
    return lambda gate, up: fused_norm.swiglu(library, gate, up)


def operands(kind: str, shape: tuple[int, ...]) -> tuple[list[Tensor], Tensor]:
    """The two inputs of an op, and an upstream gradient."""
    torch.manual_seed(0)
    x, grad_out = torch.randn(shape) * 3, torch.randn(shape)
    second = torch.randn(shape[-1]) if kind == "rms_norm" else torch.randn(shape)
    return [x, second], grad_out


def pair(kind: str, library: Library) -> tuple[Callable[..., Tensor], Callable[..., Tensor]]:
    """Native op and twin."""
    if kind == "rms_norm":
        return native_norm(library), twin_norm
    return native_swiglu(library), twins_norm.swiglu


@pytest.mark.parametrize("kind", ["rms_norm", "swiglu"])
@pytest.mark.parametrize("shape", SHAPES)
def test_native_matches_fp64_twin_on_every_instruction_set(
    library: Library, kind: str, shape: tuple[int, ...]
) -> None:
    inputs, grad_out = operands(kind, shape)
    expected = run(pair(kind, library)[1], [t.double() for t in inputs], grad_out.double())
    for isa in library.instruction_sets():
        actual = run(pair(kind, library.using(isa=isa))[0], inputs, grad_out)
        for a, e in zip(actual, expected, strict=True):
            assert a.dtype == torch.float32 and a.shape == e.shape
            scale = e.abs().max().item() if e.numel() else 1.0
            assert torch.allclose(a.double(), e, rtol=0, atol=1e-5 * scale), isa


@pytest.mark.parametrize("kind", ["rms_norm", "swiglu"])
def test_bf16_is_as_close_to_fp32_as_the_twin(library: Library, kind: str) -> None:
    inputs, grad_out = operands(kind, (130, 200))
    inputs, grad_out = [t.bfloat16() for t in inputs], grad_out.bfloat16()
    twin = pair(kind, library)[1]
    exact = run(twin, [t.float() for t in inputs], grad_out)
    rough = run(twin, inputs, grad_out)
    allowed = [(t.float() - e).norm() for t, e in zip(rough, exact, strict=True)]
    for isa in library.instruction_sets():
        actual = run(pair(kind, library.using(isa=isa))[0], inputs, grad_out)
        for a, e, limit in zip(actual, exact, allowed, strict=True):
            assert a.dtype == torch.bfloat16
            assert (a.float() - e).norm() <= 1.2 * limit, isa


def test_bf16_forwards_round_where_the_twin_rounds(library: Library) -> None:
    for kind in ("rms_norm", "swiglu"):
        inputs, _ = operands(kind, (64, 96))
        inputs = [tensor.bfloat16() for tensor in inputs]
        op, twin = pair(kind, library)
        different = (op(*inputs) != twin(*inputs)).float().mean()
        assert different < 0.01  # a sum in another order may round the other way


@pytest.mark.parametrize("kind", ["rms_norm", "swiglu"])
def test_result_is_bitwise_equal_on_repetition_and_for_any_thread_count(
    library: Library, kind: str
) -> None:
    inputs, grad_out = operands(kind, (1500, 130))
    first = run(pair(kind, library.using(num_threads=1))[0], inputs, grad_out)
    for num_threads in (1, 2, 3, 5):
        again = run(pair(kind, library.using(num_threads=num_threads))[0], inputs, grad_out)
        assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


def test_swiglu_saturates_without_nan(library: Library) -> None:
    gate = torch.tensor([-1e4, -200.0, -89.0, 0.0, 89.0, 200.0, 1e4])
    inputs = [gate, torch.ones_like(gate)]
    for isa in library.instruction_sets():
        out, grad_gate, _ = run(native_swiglu(library.using(isa=isa)), inputs, inputs[1])
        assert torch.equal(out[:3].abs() < 1e-30, torch.ones(3, dtype=torch.bool))
        assert torch.equal(out[3:], gate[3:])
        assert torch.allclose(grad_gate, torch.tensor([0, 0, 0, 0.5, 1, 1, 1]), atol=1e-30)


@pytest.mark.parametrize("kind", ["rms_norm", "swiglu"])
def test_nan_is_not_hidden(library: Library, kind: str) -> None:
    inputs, _ = operands(kind, (3, 40))
    inputs[0][1, 37] = torch.nan
    out = pair(kind, library)[0](*inputs)
    assert out[1, 37].isnan()
    assert not out[0].isnan().any()


@pytest.mark.parametrize("kind", ["rms_norm", "swiglu"])
def test_strided_inputs_give_the_contiguous_result(library: Library, kind: str) -> None:
    inputs, grad_out = operands(kind, (40, 24))
    op = pair(kind, library)[0]
    strided = [torch.stack((t, t), dim=-1)[..., 0] for t in inputs]
    assert not strided[0].is_contiguous()
    results = op(*strided), op(*inputs)
    assert torch.equal(*results)
    transposed = grad_out.t().contiguous().t()
    for a, b in zip(run(op, inputs, transposed), run(op, inputs, grad_out), strict=True):
        assert torch.equal(a, b)


def test_what_the_kernel_cannot_read_takes_the_twin(library: Library) -> None:
    for kind in ("rms_norm", "swiglu"):
        op, twin = pair(kind, library)
        inputs, _ = operands(kind, (4, 8))
        for others in ([t.double() for t in inputs], [inputs[0].bfloat16(), inputs[1]]):
            assert torch.equal(op(*others), twin(*others))


def test_operands_that_do_not_fit_are_named(library: Library) -> None:
    with pytest.raises(ConfigError, match="weight"):
        native_norm(library)(torch.ones(2, 8), torch.ones(7))
    with pytest.raises(ConfigError, match="gate"):
        native_swiglu(library)(torch.ones(2, 8), torch.ones(2, 7))
