"""Native kernels inside the whole model: fp32 as exact as the twins, bf16 no further from fp32."""

import pytest
import torch

from rorqual.config import TrainConfig
from rorqual.kernels.ops import select_ops
from rorqual.model import PackedTokens, Transformer, initialize, loss_terms
from rorqual.parallel import join_processes
from rorqual.train import TrainStep
from tests.conftest import small_config


def new_model(kind: str) -> Transformer:
    model = Transformer(small_config(num_nextn_predict_layers=1), select_ops(kind))  # type: ignore[arg-type]
    initialize(model, 0)
    return model


def rows(seed: int) -> PackedTokens:
    """Text with something to learn: each token follows from the one before it, plus noise."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(2, 300, (4, 65), generator=generator)
    keep = torch.rand(4, 65, generator=generator) < 0.7
    for position in range(1, 65):
        follower = (tokens[:, position - 1] * 7 + 3) % 300
        tokens[:, position] = torch.where(keep[:, position], follower, tokens[:, position])
    document_idx = (torch.arange(65) > 30).int().expand(4, 65)
    return PackedTokens(tokens, document_idx)


def test_fp32_loss_and_gradients_equal_the_twins() -> None:
    gradients, losses = [], []
    for kind in ("native", "twin"):
        model = new_model(kind)
        terms = loss_terms(model, rows(0), document_mask=True, with_mtp=True)
        loss = terms.main + 0.3 * terms.mtp[0] + terms.balance
        loss.backward()
        losses.append(float(loss.detach()))
        gradients.append({n: p.grad for n, p in model.named_parameters()})
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    for name, twin in gradients[1].items():
        native = gradients[0][name]
        assert native is not None and twin is not None
        difference = (native - twin).norm() / twin.norm()
        assert difference < 1e-5, f"{name}: {difference:.2e}"


def losses_of(kind: str, dtype: torch.dtype, steps: int) -> torch.Tensor:
    config = TrainConfig(token_budget=10**6, learning_rate=3e-3)
    step = TrainStep(new_model(kind), config, join_processes(), dtype)
    return torch.tensor([step.run([rows(seed)], 0.5).loss for seed in range(steps)])


@pytest.mark.soak
def test_bf16_stays_as_close_to_fp32_as_the_twin_over_200_steps() -> None:
    exact = losses_of("twin", torch.float32, 200)
    assert exact[-20:].mean() < exact[:20].mean() - 1.0
    native = (losses_of("native", torch.bfloat16, 200) - exact).abs().mean()
    twin = (losses_of("twin", torch.bfloat16, 200) - exact).abs().mean()
    assert native <= 1.2 * twin, f"native {native:.5f}, twin {twin:.5f}"
