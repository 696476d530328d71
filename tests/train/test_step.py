"""One step: accumulation, skipping, optimizers, precision."""

import copy
import math

import pytest
import torch

from rorqual.config import TrainConfig
from rorqual.model import PackedTokens, Transformer, initialize
from rorqual.parallel import join_processes
from rorqual.train import TrainStep
from tests.conftest import small_config

PROCESSES = join_processes()


def new_step(**changes: object) -> TrainStep:
    model = Transformer(small_config(num_nextn_predict_layers=1, initializer_range=0.02))
    initialize(model, 0)
    values: dict[str, object] = {"token_budget": 10**6, "learning_rate": 1e-2, **changes}
    config = TrainConfig(**values)  # type: ignore[arg-type]
    return TrainStep(model, config, PROCESSES, torch.float32)


def batch(rows: int = 8, seed: int = 0) -> PackedTokens:
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(2, 300, (rows, 33), generator=generator)
    document_idx = (torch.arange(33) > 10).int().expand(rows, 33).clone()
    document_idx[::2] = 0  # rows with different numbers of targets
    return PackedTokens(tokens, document_idx)


def split(whole: PackedTokens, size: int) -> list[PackedTokens]:
    pairs = zip(whole.tokens.split(size), whole.document_idx.split(size), strict=True)
    return [PackedTokens(tokens, document_idx) for tokens, document_idx in pairs]


def test_micro_batches_give_the_gradient_of_one_batch() -> None:
    one, many = new_step(), new_step()
    result = one.run([batch()], 0.5)
    accumulated = many.run(split(batch(), 1), 0.5)
    assert accumulated.loss == pytest.approx(result.loss, rel=1e-5)
    assert accumulated.grad_norm == pytest.approx(result.grad_norm, rel=1e-4)
    assert result.loss == pytest.approx(math.log(300), rel=0.02)
    assert result.num_targets == 4 * 32 + 4 * 31


def test_loss_falls_and_the_same_seed_repeats_bit_for_bit() -> None:
    first, second = new_step(), new_step()
    losses = [first.run([batch()], 0.5).loss for _ in range(20)]
    assert losses[-1] < losses[0] - 1.0
    assert losses == [second.run([batch()], 0.5).loss for _ in range(20)]
    for a, b in zip(first.model.parameters(), second.model.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_step_that_is_not_finite_changes_nothing(value: float) -> None:
    step = new_step()
    step.run([batch()], 0.5)
    weight = step.model.model.norm.weight
    before = copy.deepcopy(step.model.state_dict())
    kept = weight.detach().clone()
    with torch.no_grad():
        weight[0] = value
    result = step.run([batch()], 0.5)
    assert result.skipped is not None and "not finite" in result.skipped
    with torch.no_grad():
        weight.copy_(kept)
    for name, tensor in step.model.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert step.run([batch()], 0.5).skipped is None


def test_a_spike_is_skipped() -> None:
    step = new_step(learning_rate=1e-5, spike_factor=3.0)
    for seed in range(16):
        assert step.run([batch(seed=seed)], 0.5).skipped is None
    with torch.no_grad():
        step.model.lm_head.weight.mul_(30)
    result = step.run([batch()], 0.5)
    assert result.skipped is not None and "times the median" in result.skipped


def test_muon_takes_hidden_matrices_and_adamw_the_rest() -> None:
    step = new_step(optimizer="muon")
    adamw, muon = step.optimizer.optimizers
    names = {step.optimizer.names[p] for group in muon.param_groups for p in group["params"]}
    assert "model.layers.0.self_attn.o_proj.weight" in names
    assert "model.layers.1.mlp.experts.gate_up_proj" in names
    outside = ("embed", "lm_head", "norm", "mlp.gate.weight")
    assert not [name for name in names if any(part in name for part in outside)]
    losses = [step.run([batch()], 0.5).loss for _ in range(20)]
    assert losses[-1] < losses[0] - 1.0
    undecayed = adamw.param_groups[1]
    assert undecayed["weight_decay"] == 0.0
    assert all(p.ndim == 1 for p in undecayed["params"])


def test_adamw_step_by_hand() -> None:
    step = new_step(weight_decay=0.5, clip_grad_norm=1e9)
    norm = step.model.model.norm.weight
    matrix = step.model.lm_head.weight
    old_norm, old_matrix = norm.detach().clone(), matrix.detach().clone()
    step.run([batch()], 0.5)
    # The first AdamW update is lr * sign(g) (up to eps), decay only on matrices.
    moved = (old_norm - norm.detach()) / 1e-2
    assert (moved.abs() - 1).abs().max() < 5e-2
    rest = (old_matrix * (1 - 1e-2 * 0.5) - matrix.detach()) / 1e-2
    assert ((rest.abs() - 1).abs() < 1e-2).float().mean() > 0.9


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_rehearsed_steps_leave_no_trace(optimizer: str) -> None:
    rehearsed, fresh = new_step(optimizer=optimizer), new_step(optimizer=optimizer)
    rehearsed.rehearse([batch()])
    rehearsed.forget()
    assert rehearsed.run([batch()], 0.5) == fresh.run([batch()], 0.5)
    for a, b in zip(rehearsed.model.parameters(), fresh.model.parameters(), strict=True):
        assert torch.equal(a, b)
