"""Divergences and their gradients against hand-computed numbers and torch's own."""

import math

import pytest
import torch
from torch import Tensor

from rorqual.distill import divergence as module
from rorqual.distill.divergence import (
    Direction,
    divergence,
    naive_divergence,
    token_divergence,
)
from tests.distill.conftest import oracle

KINDS: tuple[Direction, ...] = ("forward", "reverse")


def operands(rows: int = 50, vocab: int = 37) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Hidden and head of a student (8 wide) and a teacher (12 wide)."""
    generator = torch.Generator().manual_seed(0)
    shapes = ((rows, 8), (vocab, 8), (rows, 12), (vocab, 12))
    hidden, head, theirs, their_head = (torch.randn(s, generator=generator) for s in shapes)
    return hidden.requires_grad_(), head.requires_grad_(), theirs, their_head


def test_divergences_of_a_coin_are_what_a_hand_computes() -> None:
    # student p = (1/2, 1/2), teacher q = (1/4, 3/4)
    student, teacher = torch.zeros(1, 2), torch.tensor([[0.0, math.log(3.0)]])
    forward = 0.25 * math.log(0.25 / 0.5) + 0.75 * math.log(0.75 / 0.5)
    reverse = 0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75)
    assert float(token_divergence(student, teacher, "forward")) == pytest.approx(forward)
    assert float(token_divergence(student, teacher, "reverse")) == pytest.approx(reverse)


def test_gradients_of_a_coin_are_what_a_hand_computes() -> None:
    # A head of ones and zeros makes hidden the logits: z = (h, 0).
    head, teacher_head = torch.tensor([[1.0], [0.0]]), torch.tensor([[0.0], [1.0]])
    theirs = torch.tensor([[math.log(3.0)]])
    wanted = {
        "forward": 0.5 - 0.25,  # p - q
        # p (log p - log q - KL): 1/2 (log 2 - 1/2 (log 2 + log 2/3)) = 1/4 log 3
        "reverse": 0.25 * math.log(3.0),
    }
    for kind in KINDS:
        hidden = torch.zeros(1, 1, requires_grad=True)
        divergence(hidden, head, theirs, teacher_head, kind).backward()
        assert hidden.grad is not None
        assert float(hidden.grad) == pytest.approx(wanted[kind])


@pytest.mark.parametrize("kind", KINDS)
def test_divergence_is_torchs_kl_div(kind: Direction) -> None:
    hidden, head, theirs, their_head = operands()
    wanted = oracle(hidden @ head.T, theirs @ their_head.T, kind)
    torch.testing.assert_close(divergence(hidden, head, theirs, their_head, kind), wanted)
    torch.testing.assert_close(naive_divergence(hidden, head, theirs, their_head, kind), wanted)


@pytest.mark.parametrize("kind", KINDS)
def test_chunked_gradients_are_autograds(kind: Direction, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK_LOGITS", 16 * 37)  # four chunks, the last one short
    found: list[list[Tensor]] = []
    for function in (divergence, naive_divergence):
        hidden, head, theirs, their_head = operands()
        (function(hidden, head, theirs, their_head, kind) * 0.3).backward()
        assert hidden.grad is not None and head.grad is not None
        found.append([hidden.grad, head.grad])
    for fast, naive in zip(*found, strict=True):
        torch.testing.assert_close(fast, naive, rtol=1e-4, atol=1e-5)


def test_never_more_than_a_chunk_of_logits_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK_LOGITS", 16 * 37)
    seen: list[int] = []
    original = module._with_gradient

    def watched(student: Tensor, teacher: Tensor, kind: Direction) -> tuple[Tensor, Tensor]:
        seen.append(len(student))
        return original(student, teacher, kind)

    monkeypatch.setattr(module, "_with_gradient", watched)
    divergence(*operands(), "reverse")
    assert seen == [16, 16, 16, 2]


def test_reverse_gradient_is_the_mean_of_the_policy_gradient() -> None:
    """E_y [-(log q(y) - log p(y)) grad log p(y)] over y ~ p, written out over the vocabulary."""
    hidden, head, theirs, their_head = operands(rows=3, vocab=5)
    log_p = (hidden @ head.T).log_softmax(dim=-1)  # [3, 5]
    log_q = (theirs @ their_head.T).log_softmax(dim=-1)
    advantage = (log_q - log_p).detach()
    surrogate = -(log_p.detach().exp() * advantage * log_p).sum()
    wanted = torch.autograd.grad(surrogate, hidden)[0]
    full = torch.autograd.grad(divergence(hidden, head, theirs, their_head, "reverse"), hidden)[0]
    torch.testing.assert_close(full, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_learnt_from_oneself(kind: Direction) -> None:
    hidden, head, _, _ = operands()
    loss = divergence(hidden, head, hidden.detach(), head.detach(), kind)
    loss.backward()
    assert hidden.grad is not None and head.grad is not None
    assert float(loss.detach()) == pytest.approx(0.0, abs=1e-5)
    assert float(hidden.grad.abs().max()) < 1e-6 and float(head.grad.abs().max()) < 1e-5


def test_bfloat16_hidden_states_give_a_finite_loss_near_fp32() -> None:
    hidden, head, theirs, their_head = operands()
    wanted = float(divergence(hidden, head, theirs, their_head, "reverse").detach())
    half = (hidden.detach().bfloat16().requires_grad_(), head, theirs.bfloat16(), their_head)
    loss = divergence(*half, "reverse")
    loss.backward()
    assert float(loss.detach()) == pytest.approx(wanted, rel=0.02)
    assert half[0].grad is not None and half[0].grad.dtype == torch.bfloat16
