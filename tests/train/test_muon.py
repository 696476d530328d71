"""Our Muon against torch's and against what it promises."""

import torch
from torch import Tensor

from rorqual.train.muon import Muon, orthogonalise


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_singular_values_come_near_one() -> None:
    for shape in ((3, 24, 40), (2, 40, 24), (1, 32, 32)):
        values = torch.linalg.svdvals(orthogonalise(random(*shape)))
        assert values.min() > 0.3 and values.max() < 1.3


def test_steps_follow_torchs_muon() -> None:
    start = [random(24, 40, seed=1), random(40, 24, seed=2), random(24, 40, seed=3)]
    ours = [tensor.clone().requires_grad_() for tensor in start]
    theirs = [tensor.clone().requires_grad_() for tensor in start]
    settings = {"lr": 0.02, "weight_decay": 0.1}
    named = [(f"layer.{i}.weight", parameter) for i, parameter in enumerate(ours)]
    optimizers = [
        Muon(named, **settings),
        torch.optim.Muon(theirs, adjust_lr_fn="match_rms_adamw", **settings),
    ]
    for step in range(3):
        for index, (a, b) in enumerate(zip(ours, theirs, strict=True)):
            a.grad = random(*a.shape, seed=10 * step + index)
            b.grad = a.grad.clone()
        for optimizer in optimizers:
            optimizer.step()
    for a, b, before in zip(ours, theirs, start, strict=True):
        moved = (b - before).norm()
        # torch iterates in bfloat16: about two per cent of noise.
        assert (a - b).norm() / moved < 0.03


def test_a_stack_is_updated_as_its_matrices() -> None:
    gate_up, down = random(3, 16, 12, seed=1), random(3, 12, 8, seed=2)
    gradients = random(3, 16, 12, seed=3), random(3, 12, 8, seed=4)
    stacked = [gate_up.clone().requires_grad_(), down.clone().requires_grad_()]
    for parameter, gradient in zip(stacked, gradients, strict=True):
        parameter.grad = gradient
    names = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
    Muon(zip(names, stacked, strict=True), lr=0.1, weight_decay=0.0).step()
    singles: list[tuple[Tensor, Tensor, Tensor]] = []
    for expert in range(3):
        for half in (slice(0, 8), slice(8, 16)):
            singles.append(
                (gate_up[expert, half], gradients[0][expert, half], stacked[0][expert, half])
            )
        singles.append((down[expert], gradients[1][expert], stacked[1][expert]))
    for start, gradient, stacked_result in singles:
        alone = start.clone().requires_grad_()
        alone.grad = gradient.clone()
        Muon([("layer.weight", alone)], lr=0.1, weight_decay=0.0).step()
        torch.testing.assert_close(alone, stacked_result, rtol=1e-4, atol=1e-5)
