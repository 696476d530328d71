"""Training on a GPU: the same losses and gradients as on the CPU, resumed to the bit.

`pytest -m gpu tests/train/test_cuda.py` on a machine with CUDA.
"""

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor

from rorqual.config import TrainConfig
from rorqual.kernels import twins_attention, twins_moe
from rorqual.model import PackedTokens, Transformer, initialize
from rorqual.parallel import Processes
from rorqual.tokenizer import train_tokenizer
from rorqual.train import TrainStep
from rorqual.train.state import RunState, restore, save
from tests.conftest import small_config

pytestmark = pytest.mark.gpu

CUDA = torch.device("cuda", 0)


def new_step(device: torch.device, dtype: torch.dtype, **changes: object) -> TrainStep:
    # Rows of whole 16 bytes, so that bf16 takes the grouped products.
    config = small_config(
        num_nextn_predict_layers=1, initializer_range=0.02, moe_intermediate_size=48
    )
    model = Transformer(config)
    initialize(model, 0)
    values: dict[str, object] = {"token_budget": 10**6, "learning_rate": 1e-2, **changes}
    train = TrainConfig(**values)  # type: ignore[arg-type]
    return TrainStep(model.to(device), train, Processes(0, 1, device, None), dtype)


def batch(device: torch.device, seed: int = 0, rows: int = 8) -> PackedTokens:
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(2, 300, (rows, 65), generator=generator)
    document_idx = (torch.arange(65) > 20).int().expand(rows, 65).clone()
    return PackedTokens(tokens.to(device), document_idx.to(device))


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_losses_follow_those_of_the_cpu(optimizer: str) -> None:
    changes = {"optimizer": optimizer, "learning_rate": 1e-3}  # small: differences grow with it
    here = new_step(torch.device("cpu"), torch.float32, **changes)
    there = new_step(CUDA, torch.float32, **changes)
    for number in range(8):
        expected = here.run([batch(torch.device("cpu"), number)], 0.5)
        result = there.run([batch(CUDA, number)], 0.5)
        # Muon orthogonalises in bf16 on a GPU and in fp32 on a CPU.
        tolerance = 1e-3 if optimizer == "adamw" else 5e-3
        assert result.loss == pytest.approx(expected.loss, rel=tolerance)
        assert result.mtp_loss == pytest.approx(expected.mtp_loss, rel=tolerance)
        assert result.max_violation == pytest.approx(expected.max_violation, abs=0.2)


@pytest.mark.parametrize("num_micro_batches", [1, 2])
def test_a_graph_is_what_it_recorded(
    num_micro_batches: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Steps replayed against steps launched kernel by kernel, from the same start."""
    graphed, plain = (new_step(CUDA, torch.bfloat16, optimizer="muon") for _ in range(2))
    monkeypatch.setattr(plain, "_prepare_graph", lambda *_: None)
    for number in range(12):
        rows = [batch(CUDA, number * 10 + part) for part in range(num_micro_batches)]
        expected, result = plain.run(rows, number / 12), graphed.run(rows, number / 12)
        assert result.loss == pytest.approx(expected.loss, rel=1e-3)
        assert result.balance_loss == pytest.approx(expected.balance_loss, rel=1e-3)
        assert result.grad_norm == pytest.approx(expected.grad_norm, rel=0.02)
        assert result.num_targets == expected.num_targets
    assert graphed._graphs and not plain._graphs
    for one, other in zip(graphed.model.parameters(), plain.model.parameters(), strict=True):
        assert _distance(one, other) < 0.05


def test_two_shapes_have_a_graph_each_and_share_the_gradients(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    graphed, plain = (new_step(CUDA, torch.bfloat16, learning_rate=1e-3) for _ in range(2))
    monkeypatch.setattr(plain, "_prepare_graph", lambda *_: None)
    for number in range(20):
        rows = [batch(CUDA, number, rows=8 if number % 2 else 4)]
        expected, result = plain.run(rows, 0.5), graphed.run(rows, 0.5)
        assert result.grad_norm == pytest.approx(expected.grad_norm, rel=0.02)
    assert len(graphed._graphs) == 2


def test_first_gradient_is_the_cpus() -> None:
    steps = [new_step(device, torch.float32) for device in (torch.device("cpu"), CUDA)]
    norms = [step.run([batch(step.processes.device)], 0.5).grad_norm for step in steps]
    assert norms[1] == pytest.approx(norms[0], rel=1e-4)


def test_bfloat16_learns_as_float32_does() -> None:
    full, half = new_step(CUDA, torch.float32), new_step(CUDA, torch.bfloat16)
    wanted = [full.run([batch(CUDA)], 0.5).loss for _ in range(20)]
    found = [half.run([batch(CUDA)], 0.5).loss for _ in range(20)]
    assert wanted[-1] < 5.0
    assert found[-1] == pytest.approx(wanted[-1], rel=0.15)


def test_a_copy_continues_as_the_original() -> None:
    """Moments moved over as a checkpoint moves them: the loss after is that of the run itself."""
    step = new_step(CUDA, torch.float32, optimizer="muon")
    for seed in range(3):
        step.run([batch(CUDA, seed)], 0.5)
    other = new_step(CUDA, torch.float32, optimizer="muon")
    other.model.load_state_dict(step.model.state_dict())
    other.optimizer.load_state(copy.deepcopy(step.optimizer.state()))
    for seed in range(3, 6):
        wanted = step.run([batch(CUDA, seed)], 0.5).loss
        assert other.run([batch(CUDA, seed)], 0.5).loss == pytest.approx(wanted, rel=1e-6)


def test_grouped_experts_are_the_loop() -> None:
    torch.manual_seed(0)
    experts, width, hidden, rows, chosen = 6, 48, 64, 100, 2
    x = torch.randn(rows, hidden, device=CUDA, dtype=torch.bfloat16)
    idx = torch.randint(0, experts - 1, (rows, chosen), device=CUDA)  # the last one has no rows
    weight = torch.rand(rows, chosen, device=CUDA)
    up = torch.randn(experts, 2 * width, hidden, device=CUDA, dtype=torch.bfloat16) * 0.1
    down = torch.randn(experts, hidden, width, device=CUDA, dtype=torch.bfloat16) * 0.1
    grouped = twins_moe.moe_experts_grouped(x, idx, weight, up, down)
    looped = twins_moe.moe_experts_loop(x, idx, weight, up, down)
    assert _distance(grouped, looped) < 1e-2


def test_attention_is_the_explicit_form() -> None:
    torch.manual_seed(0)
    rows, length, heads, nope, rope, value = 2, 70, 4, 16, 8, 12
    q = torch.randn(rows, length, heads, nope + rope, device=CUDA)
    kv = torch.randn(rows, length, heads, nope + value, device=CUDA)
    k_rope = torch.randn(rows, length, rope, device=CUDA)
    angles = torch.rand(length, rope // 2, device=CUDA)
    start = torch.where(torch.arange(length, device=CUDA) >= 30, 30, 0).int().expand(rows, -1)
    arguments = (q, kv, k_rope, angles.cos(), angles.sin(), start, 0.2, nope)
    fast = twins_attention.mla_attention(*arguments)
    assert _distance(fast, twins_attention.mla_attention_explicit(*arguments)) < 1e-5


def test_a_checkpoint_on_disk_continues_the_run(tmp_path: Path) -> None:
    step, path = new_step(CUDA, torch.float32), tmp_path / "step"
    step.run([batch(CUDA)], 0.5)
    tokenizer = train_tokenizer(["How many krill? 3+4=7. 几只？"] * 30, vocab_size=300)
    save(path, step.model, tokenizer, step, RunState(step=1))
    other = new_step(CUDA, torch.float32)
    assert restore(path, other.model, other).step == 1
    wanted = step.run([batch(CUDA, 1)], 0.5).loss
    assert other.run([batch(CUDA, 1)], 0.5).loss == pytest.approx(wanted, rel=1e-6)


def _distance(found: Tensor, wanted: Tensor) -> float:
    found, wanted = found.detach().float(), wanted.detach().float()
    return float((found - wanted).norm() / wanted.norm())
