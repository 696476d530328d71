"""Muon for hidden matrices, stacked experts included (Jordan 2024; Moonlight, arXiv 2502.16982).

The update is the momentum, orthogonalised by Newton-Schulz. Matrices of one shape go through it as
one batch, in fp32 on a CPU: torch's own Muon takes 2-D parameters one by one and in bfloat16, which
a CPU without bf16 instructions emulates. The tests hold it against torch's.

Its step is 0.2 * sqrt(larger side) (Moonlight section 2.2), so AdamW's learning rates carry over.
NOTE: gate and up projections of an expert lie in one tensor but are two matrices.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # quintic iteration of the reference implementation
_ITERATIONS = 5
_MIN_NORM = 1e-7
_RMS = 0.2


def orthogonalise(matrices: Tensor) -> Tensor:
    """The nearest semi-orthogonal matrices, roughly (singular values 0.7 to 1.2). [X, m, n]"""
    dtype = torch.bfloat16 if matrices.is_cuda else torch.float32
    x = matrices.to(dtype)
    tall = x.shape[1] > x.shape[2]
    if tall:
        x = x.transpose(1, 2)
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=_MIN_NORM)
    a, b, c = _COEFFICIENTS
    for _ in range(_ITERATIONS):
        gram = x @ x.transpose(1, 2)  # [X, m, m]
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.transpose(1, 2) if tall else x).to(matrices.dtype)


class Muon(Optimizer):
    """Nesterov momentum, orthogonalised; decoupled weight decay.

    params: named 2-D matrices [m, n], and stacks [E, m, n] whose names end in `gate_up_proj` (two
    matrices of m/2 rows each) or `down_proj`.
    """

    def __init__(
        self,
        params: Iterable[tuple[str, Tensor]],
        *,
        lr: float,
        weight_decay: float,
        momentum: float = 0.95,
    ):
        named = list(params)
        self._halved = {id(p) for name, p in named if name.endswith("gate_up_proj")}
        defaults = {"lr": lr, "weight_decay": weight_decay, "momentum": momentum}
        super().__init__([parameter for _, parameter in named], defaults)

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Update every parameter that has a gradient."""
        assert closure is None, "this optimizer takes no closure"
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if not parameters:
                continue
            updates = self._momenta(parameters, group["momentum"])
            directions = self._directions(parameters, updates)
            torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])  # pyright: ignore[reportPrivateImportUsage]
            torch._foreach_add_(parameters, directions, alpha=-group["lr"])  # pyright: ignore[reportPrivateImportUsage]

    def _momenta(self, parameters: list[Tensor], momentum: float) -> tuple[Tensor, ...]:
        gradients = [p.grad for p in parameters if p.grad is not None]
        for parameter, gradient in zip(parameters, gradients, strict=True):
            if "momentum_buffer" not in self.state[parameter]:
                self.state[parameter]["momentum_buffer"] = torch.zeros_like(gradient)
        buffers = [self.state[parameter]["momentum_buffer"] for parameter in parameters]
        torch._foreach_lerp_(buffers, gradients, 1 - momentum)  # pyright: ignore[reportPrivateImportUsage]
        return torch._foreach_lerp(gradients, buffers, momentum)  # pyright: ignore[reportPrivateImportUsage]

    def _directions(self, parameters: list[Tensor], updates: Sequence[Tensor]) -> list[Tensor]:
        """The scaled, orthogonalised update of each parameter, one batch per matrix shape."""
        stacks = [
            self._matrices(parameter, update)
            for parameter, update in zip(parameters, updates, strict=True)
        ]
        by_shape: dict[tuple[int, ...], list[int]] = {}
        for index, stack in enumerate(stacks):
            by_shape.setdefault(tuple(stack.shape[1:]), []).append(index)
        directions: dict[int, Tensor] = {}
        for shape, members in by_shape.items():
            batch = torch.cat([stacks[index] for index in members])  # [X, m, n]
            done = orthogonalise(batch).mul_(_RMS * max(shape) ** 0.5)
            parts = done.split([len(stacks[index]) for index in members])
            directions |= dict(zip(members, parts, strict=True))
        return [
            self._shaped(directions[index], parameter, updates[index])
            for index, parameter in enumerate(parameters)
        ]

    def _matrices(self, parameter: Tensor, update: Tensor) -> Tensor:
        """The whole matrices inside an update, gathered if it is sharded. [X, m, n]"""
        whole = update.full_tensor() if isinstance(update, DTensor) else update
        if whole.ndim == 2:
            return whole[None]
        return whole.unflatten(1, (2, -1)).flatten(0, 1) if id(parameter) in self._halved else whole

    @staticmethod
    def _shaped(direction: Tensor, parameter: Tensor, update: Tensor) -> Tensor:
        """Back to the parameter's shape, and sharded as it is."""
        direction = direction.reshape(parameter.shape)
        if isinstance(update, DTensor):
            return distribute_tensor(direction, update.device_mesh, update.placements)
        return direction
