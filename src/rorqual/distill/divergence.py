"""KL divergence between teacher and student over the whole vocabulary, a few rows at a time.

forward is KL(teacher, student): the student must put mass wherever the teacher does. reverse is
KL(student, teacher): it may leave out what the teacher does, not add to it (GKD, arXiv 2306.13649).

The gradient with respect to the student's logits z, with probabilities p (student), q (teacher):

    forward   dL/dz = p - q
    reverse   dL/dz = p * (log p - log q - KL(p, q))

So a chunk's logits become its loss and, at once, its gradients of hidden and head; logits are never
held for all rows. Logits, softmax and sums are fp32.
"""

# pyright: reportIncompatibleMethodOverride=false
# (once_differentiable returns another signature than Function.backward declares.)

from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

Direction = Literal["forward", "reverse"]
CHUNK_LOGITS = 1 << 20  # elements: 4 MiB each of the few such tensors that live at once


def token_divergence(student_logits: Tensor, teacher_logits: Tensor, kind: Direction) -> Tensor:
    """The divergence of each token, in nats: 2 x [M, V] -> [M] fp32"""
    log_p = F.log_softmax(student_logits.float(), dim=-1)  # [M, V]
    log_q = F.log_softmax(teacher_logits.float(), dim=-1)  # [M, V]
    if kind == "forward":
        return (log_q.exp() * (log_q - log_p)).sum(dim=-1)  # [M]
    return (log_p.exp() * (log_p - log_q)).sum(dim=-1)  # [M]


def naive_divergence(
    hidden: Tensor, head: Tensor, teacher_hidden: Tensor, teacher_head: Tensor, kind: Direction
) -> Tensor:
    """What `divergence` computes, by autograd and with all logits at once."""
    student, teacher = F.linear(hidden, head), F.linear(teacher_hidden, teacher_head)  # 2 x [M, V]
    return token_divergence(student, teacher, kind).sum()


def divergence(
    hidden: Tensor, head: Tensor, teacher_hidden: Tensor, teacher_head: Tensor, kind: Direction
) -> Tensor:
    """The sum of the tokens' divergences; gradients go to the student's hidden and head alone.

    hidden [M, H], head [V, H], the teacher's of its own width -> fp32 scalar
    """
    return _Divergence.apply(
        hidden, head.to(hidden.dtype), teacher_hidden, teacher_head.to(teacher_hidden.dtype), kind
    )


class _Divergence(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        head: Tensor,
        teacher_hidden: Tensor,
        teacher_head: Tensor,
        kind: Direction,
    ) -> Tensor:
        chunk = max(16, CHUNK_LOGITS // head.shape[0])
        grad_hidden = torch.empty_like(hidden)  # [M, H]
        grad_head = torch.zeros_like(head, dtype=torch.float32)  # [V, H]
        total = torch.zeros((), dtype=torch.float64, device=hidden.device)
        for begin in range(0, hidden.shape[0], chunk):
            rows = hidden[begin : begin + chunk]  # [C, H]
            teacher_logits = F.linear(teacher_hidden[begin : begin + chunk], teacher_head)
            losses, grads = _with_gradient(F.linear(rows, head), teacher_logits, kind)
            total += losses.sum(dtype=torch.float64)
            grads = grads.to(hidden.dtype)  # [C, V]
            grad_hidden[begin : begin + chunk] = grads @ head
            grad_head += (grads.T @ rows).float()
        ctx.save_for_backward(grad_hidden, grad_head)
        ctx.head_dtype = head.dtype
        return total.float()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_loss: Tensor) -> tuple[Tensor | None, ...]:
        grad_hidden, grad_head = ctx.saved_tensors
        return grad_hidden * grad_loss, (grad_head * grad_loss).to(ctx.head_dtype), None, None, None


def _with_gradient(student: Tensor, teacher: Tensor, kind: Direction) -> tuple[Tensor, Tensor]:
    """Logits 2 x [C, V] -> (divergences [C], their gradient by the student's logits [C, V])"""
    log_p = F.log_softmax(student.float(), dim=-1)  # [C, V]
    log_q = F.log_softmax(teacher.float(), dim=-1)  # [C, V]
    p, gap = log_p.exp(), log_p - log_q  # 2 x [C, V]
    if kind == "forward":
        q = log_q.exp()  # [C, V]
        return -(q * gap).sum(dim=-1), p - q
    losses = (p * gap).sum(dim=-1)  # [C]
    return losses, p * (gap - losses[:, None])
