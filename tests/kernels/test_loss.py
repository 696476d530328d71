"""Linear + cross entropy: the native kernel against its twin, and its memory."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from rorqual.errors import ConfigError, DataError
from rorqual.kernels import fused_loss, twins_loss
from rorqual.kernels.library import Library

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]
# M, H, V: one row, tails of every width, and several chunks of logits.
SHAPES = [(1, 8, 16), (7, 33, 19), (70, 16, 8193), (3000, 24, 4099)]


def native(library: Library) -> Loss:
    return lambda hidden, head, targets: fused_loss.linear_cross_entropy(
        library, hidden, head, targets
    )


def operands(shape: tuple[int, int, int]) -> tuple[Tensor, Tensor, Tensor]:
    rows, width, vocab_size = shape
    torch.manual_seed(0)
    targets = torch.randint(0, vocab_size, (rows,))
    targets[1::3] = twins_loss.IGNORED_TARGET
    return torch.randn(rows, width), torch.randn(vocab_size, width) * 0.3, targets


def run(loss: Loss, hidden: Tensor, head: Tensor, targets: Tensor) -> list[Tensor]:
    """Loss and the gradients of hidden and head, for an upstream gradient other than 1."""
    leaves = [hidden.detach().clone().requires_grad_(), head.detach().clone().requires_grad_()]
    total = loss(*leaves, targets)
    return [total.detach(), *torch.autograd.grad(total * 0.37, leaves)]


@pytest.mark.parametrize("shape", SHAPES)
def test_native_matches_fp64_twin_on_every_instruction_set(
    library: Library, shape: tuple[int, int, int]
) -> None:
    hidden, head, targets = operands(shape)
    expected = run(twins_loss.linear_cross_entropy, hidden.double(), head.double(), targets)
    for isa in library.instruction_sets():
        actual = run(native(library.using(isa=isa)), hidden, head, targets)
        for a, e in zip(actual, expected, strict=True):
            assert a.dtype == torch.float32
            assert (a.double() - e).abs().max() <= 1e-5 * e.abs().max(), isa


@pytest.mark.parametrize("shape", SHAPES[1:])
def test_bf16_is_as_close_to_fp32_as_the_twin(
    library: Library, shape: tuple[int, int, int]
) -> None:
    hidden, head, targets = operands(shape)
    hidden, head = hidden.bfloat16(), head.bfloat16()
    exact = run(twins_loss.linear_cross_entropy, hidden.float(), head.float(), targets)
    twin = run(twins_loss.linear_cross_entropy, hidden, head, targets)
    for isa in library.instruction_sets():
        actual = run(native(library.using(isa=isa)), hidden, head, targets)
        assert [t.dtype for t in actual] == [torch.float32, torch.bfloat16, torch.bfloat16]
        for a, t, e in zip(actual, twin, exact, strict=True):
            assert (a.float() - e).norm() <= 1.2 * (t.float() - e).norm(), isa


class LargestTensor(TorchDispatchMode):
    """Records the size of the largest tensor that any operation returns."""

    elements = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else (result,):
            if isinstance(tensor, Tensor):
                self.elements = max(self.elements, tensor.numel())
        return result


def test_all_logits_are_never_held(library: Library) -> None:
    hidden, head, targets = operands((3000, 24, 4099))
    sizes = []
    for loss in (native(library), twins_loss.linear_cross_entropy):
        with LargestTensor() as mode:
            run(loss, hidden, head, targets)
        sizes.append(mode.elements)
    assert sizes[0] < sizes[1] / 2
    assert sizes[1] == 3000 * 4099


def test_ignored_rows_count_for_nothing(library: Library) -> None:
    hidden, head, targets = operands((70, 16, 100))
    kept = targets != twins_loss.IGNORED_TARGET
    loss, grad_hidden, grad_head = run(native(library), hidden, head, targets)
    alone = run(native(library), hidden[kept], head, targets[kept])
    assert torch.count_nonzero(grad_hidden[~kept]) == 0
    assert torch.allclose(loss, alone[0], rtol=1e-6)
    assert torch.allclose(grad_hidden[kept], alone[1], atol=1e-6)
    assert torch.allclose(grad_head, alone[2], atol=1e-5)


def test_all_ignored_gives_zero_loss_and_zero_gradients(library: Library) -> None:
    hidden, head, targets = operands((10, 16, 40))
    for result in run(native(library), hidden, head, torch.full_like(targets, -100)):
        assert torch.count_nonzero(result) == 0


def test_no_rows_give_zero_loss(library: Library) -> None:
    hidden, head, targets = operands((10, 16, 40))
    loss, grad_hidden, grad_head = run(native(library), hidden[:0], head, targets[:0])
    assert loss == 0 and grad_hidden.shape == (0, 16) and torch.count_nonzero(grad_head) == 0


def test_uniform_logits_cost_log_vocabulary_per_token(library: Library) -> None:
    loss = native(library)(torch.zeros(5, 8), torch.randn(300, 8), torch.arange(5))
    assert loss.item() == pytest.approx(5 * math.log(300), rel=1e-6)


def test_large_logits_do_not_overflow(library: Library) -> None:
    hidden, head, targets = operands((40, 16, 50))
    expected = run(twins_loss.linear_cross_entropy, hidden.double() * 1e3, head.double(), targets)
    actual = run(native(library), hidden * 1e3, head, targets)
    assert torch.allclose(actual[0].double(), expected[0], rtol=1e-5)
    assert all(tensor.isfinite().all() for tensor in actual)


def test_loss_without_gradients_equals_loss_with(library: Library) -> None:
    hidden, head, targets = operands((70, 16, 100))
    with torch.no_grad():
        alone = native(library)(hidden, head.clone().requires_grad_(), targets)
    assert not alone.requires_grad
    assert torch.equal(alone, run(native(library), hidden, head, targets)[0])


def test_repetition_is_bitwise_equal(library: Library) -> None:
    hidden, head, targets = operands((3000, 24, 4099))
    first = run(native(library), hidden, head, targets)
    for num_threads in (library.num_threads, 1, 3):
        again = run(native(library.using(num_threads=num_threads)), hidden, head, targets)
        assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


def test_nan_is_not_hidden(library: Library) -> None:
    hidden, head, targets = operands((7, 16, 40))
    hidden[0, 3] = torch.nan
    assert native(library)(hidden, head, targets).isnan()


def test_strided_and_fp64_operands_are_served(library: Library) -> None:
    hidden, head, targets = operands((40, 16, 50))
    expected = run(native(library), hidden, head, targets)
    strided = run(native(library), hidden.t().contiguous().t(), head.t().contiguous().t(), targets)
    for a, e in zip(strided, expected, strict=True):
        assert torch.allclose(a, e, rtol=1e-5, atol=1e-6)
    wide = run(native(library), hidden.double(), head.double(), targets)
    twin = run(twins_loss.linear_cross_entropy, hidden.double(), head.double(), targets)
    assert all(torch.equal(a, b) for a, b in zip(wide, twin, strict=True))


def test_target_outside_the_vocabulary_is_named(library: Library) -> None:
    hidden, head, targets = operands((7, 16, 40))
    targets[4] = 40
    with pytest.raises(DataError, match="target 40 is outside the vocabulary of 40"):
        native(library)(hidden, head, targets)
    targets[4] = -3
    with pytest.raises(DataError, match="target -3"):
        native(library)(hidden, head, targets)
    with pytest.raises(ConfigError, match="targets"):
        native(library)(hidden, head, targets[:-1])
