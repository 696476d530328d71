"""Routed experts: the native kernels against their twin, and what routing can do to them."""

import itertools

import pytest
import torch
from torch import Tensor

from rorqual.errors import ConfigError
from rorqual.kernels import fused_moe, twins_moe
from rorqual.kernels.library import Library

Operands = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]
# M, H, F, E, K: odd tails, more than one block of depth, one token, more experts than rows.
SHAPES = [(64, 32, 16, 4, 2), (1, 64, 24, 8, 2), (150, 72, 40, 8, 3), (90, 520, 136, 5, 2)]


def make(
    shape: tuple[int, int, int, int, int], dtype: torch.dtype = torch.float32, skew: float = 3.0
) -> Operands:
    """Random operands; with skew the first experts starve and the last ones are crowded."""
    tokens, hidden, width, experts, chosen = shape
    generator = torch.Generator().manual_seed(sum(shape))
    x = torch.randn(tokens, hidden, generator=generator)
    scores = torch.rand(tokens, experts, generator=generator) + torch.linspace(0, skew, experts)
    expert_weight = torch.rand(tokens, chosen, generator=generator)
    gate_up = torch.randn(experts, 2 * width, hidden, generator=generator) * hidden**-0.5
    down = torch.randn(experts, hidden, width, generator=generator) * width**-0.5
    weights = gate_up.to(dtype).requires_grad_(), down.to(dtype).requires_grad_()
    chosen_idx = scores.topk(chosen).indices
    return x.to(dtype).requires_grad_(), chosen_idx, expert_weight.requires_grad_(), *weights


def differentiate(out: Tensor, operands: Operands, grad_out: Tensor) -> list[Tensor]:
    """The output, then gradients of x, expert_weight, gate_up, down."""
    x, _, expert_weight, gate_up, down = operands
    leaves = (x, expert_weight, gate_up, down)
    return [out.detach(), *torch.autograd.grad(out, leaves, grad_out.to(out.dtype))]


def error(got: Tensor, expected: Tensor) -> float:
    return ((got.double() - expected.double()).norm() / expected.double().norm()).item()


def upstream(operands: Operands) -> Tensor:
    return torch.randn(operands[0].shape, generator=torch.Generator().manual_seed(1))


def test_native_moe_matches_the_twin_on_every_instruction_set(library: Library) -> None:
    for shape, threads in itertools.product(SHAPES, (1, 2, 3)):
        operands = make(shape)
        expected = differentiate(
            twins_moe.moe_experts_loop(*operands), operands, upstream(operands)
        )
        for isa in library.instruction_sets():
            native = library.using(isa=isa, num_threads=threads)
            out = fused_moe.moe_experts(native, *operands)
            for got, wanted in zip(
                differentiate(out, operands, upstream(operands)), expected, strict=True
            ):
                assert error(got, wanted) < 1e-5, (isa, shape, threads)


def test_bf16_moe_is_as_close_to_fp32_as_the_twin(library: Library) -> None:
    operands = make((200, 128, 64, 8, 4), torch.bfloat16)
    exact = tuple(
        t.detach().double().requires_grad_() if t.is_floating_point() else t for t in operands
    )
    grad_out = upstream(operands).bfloat16()
    reference = differentiate(twins_moe.moe_experts_loop(*exact), exact, grad_out)
    twin = differentiate(twins_moe.moe_experts_loop(*operands), operands, grad_out)
    for isa in library.instruction_sets():
        native = differentiate(
            fused_moe.moe_experts(library.using(isa=isa), *operands), operands, grad_out
        )
        for got, plain, wanted in zip(native, twin, reference, strict=True):
            assert got.dtype == plain.dtype
            assert error(got, wanted) <= 1.2 * error(plain, wanted), isa


def test_grouped_twin_equals_the_loop() -> None:
    operands = make((150, 64, 32, 8, 3))
    grad_out = upstream(operands)
    loop = differentiate(twins_moe.moe_experts_loop(*operands), operands, grad_out)
    grouped = differentiate(twins_moe.moe_experts_grouped(*operands), operands, grad_out)
    for got, wanted in zip(grouped, loop, strict=True):
        assert error(got, wanted) < 1e-5


def test_all_tokens_on_one_expert_leave_zero_gradients_elsewhere(library: Library) -> None:
    x, expert_idx, expert_weight, gate_up, down = make((70, 48, 24, 6, 1))
    operands = (x, torch.full_like(expert_idx, 4), expert_weight, gate_up, down)
    expected = differentiate(twins_moe.moe_experts_loop(*operands), operands, upstream(operands))
    got = differentiate(fused_moe.moe_experts(library, *operands), operands, upstream(operands))
    for native, wanted in zip(got, expected, strict=True):
        assert error(native, wanted) < 1e-5
    for grad in got[3:]:
        assert [bool(expert.any()) for expert in grad] == [e == 4 for e in range(6)]


def test_one_expert_chosen_twice_by_a_token_counts_twice(library: Library) -> None:
    x, expert_idx, expert_weight, gate_up, down = make((40, 32, 16, 4, 2))
    operands = (x, expert_idx[:, :1].expand(-1, 2), expert_weight, gate_up, down)
    expected = differentiate(twins_moe.moe_experts_loop(*operands), operands, upstream(operands))
    got = differentiate(fused_moe.moe_experts(library, *operands), operands, upstream(operands))
    for native, wanted in zip(got, expected, strict=True):
        assert error(native, wanted) < 1e-5


def test_strided_inputs_and_expanded_upstream_gradients_are_read_rightly(library: Library) -> None:
    x, expert_idx, expert_weight, gate_up, down = make((60, 32, 16, 4, 2))
    wide = torch.cat((x.detach(), x.detach()), dim=1)[:, 16:48].requires_grad_()
    operands = (wide, expert_idx, expert_weight, gate_up, down)
    grad_out = torch.ones(()).expand(60, 32)
    expected = differentiate(twins_moe.moe_experts_loop(*operands), operands, grad_out)
    got = differentiate(fused_moe.moe_experts(library, *operands), operands, grad_out)
    for native, wanted in zip(got, expected, strict=True):
        assert error(native, wanted) < 1e-5


def test_native_moe_repeats_bit_for_bit(library: Library) -> None:
    operands = make((300, 96, 40, 8, 3))
    for threads in (1, 2, 3):
        runs = [
            differentiate(
                fused_moe.moe_experts(library.using(num_threads=threads), *operands),
                operands,
                upstream(operands),
            )
            for _ in range(3)
        ]
        for first, second, third in zip(*runs, strict=True):
            assert torch.equal(first, second) and torch.equal(first, third)


def test_tokens_see_no_difference_between_thread_counts(library: Library) -> None:
    operands = make((300, 96, 40, 8, 3))
    one, three = (
        differentiate(
            fused_moe.moe_experts(library.using(num_threads=threads), *operands),
            operands,
            upstream(operands),
        )
        for threads in (1, 3)
    )
    for name, first, second in zip(("out", "x", "expert_weight"), one, three, strict=False):
        assert torch.equal(first, second), name


def test_backward_may_run_twice_and_with_frozen_weights(library: Library) -> None:
    x, expert_idx, expert_weight, gate_up, down = make((40, 32, 16, 4, 2))
    out = fused_moe.moe_experts(
        library, x, expert_idx, expert_weight.detach(), gate_up.detach(), down
    )
    first = torch.autograd.grad(out.sum(), (x, down), retain_graph=True)
    second = torch.autograd.grad(out.sum(), (x, down))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_what_the_kernels_cannot_read_takes_the_twin(library: Library) -> None:
    operands = make((20, 32, 16, 4, 2), torch.float64)
    out = fused_moe.moe_experts(library, *operands)
    assert out.dtype == torch.float64
    assert torch.equal(out, twins_moe.moe_experts(*operands))
    x, expert_idx, expert_weight, gate_up, down = make(SHAPES[0])
    empty = fused_moe.moe_experts(library, x[:0], expert_idx[:0], expert_weight[:0], gate_up, down)
    assert empty.shape == (0, 32)


def test_shapes_that_do_not_fit_are_named(library: Library) -> None:
    x, expert_idx, expert_weight, gate_up, down = make((20, 32, 16, 4, 2))
    for op in (twins_moe.moe_experts, lambda *operands: fused_moe.moe_experts(library, *operands)):
        with pytest.raises(ConfigError, match=r"gate_up \[4, 32, 32\] and down \[4, 32, 8\]"):
            op(x, expert_idx, expert_weight, gate_up, down[..., :8])
        with pytest.raises(ConfigError, match=r"expert_weight \[20, 1\] must both be \[M, K\]"):
            op(x, expert_idx, expert_weight[:, :1], gate_up, down)
        with pytest.raises(ConfigError, match="x \\[M, H\\]"):
            op(x[0], expert_idx, expert_weight, gate_up, down)


def test_an_expert_index_out_of_range_never_reaches_memory(library: Library) -> None:
    x, expert_idx, expert_weight, gate_up, down = make((20, 32, 16, 4, 2))
    for bad in (-1, 4, 1 << 40):
        expert_idx[7, 1] = bad
        with pytest.raises(AssertionError, match="outside"):
            fused_moe.moe_experts(library, x, expert_idx, expert_weight, gate_up, down)
