"""The attention that MLA is compared with: against loops, torch's FLOP counter, itself saved."""

from pathlib import Path

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from rorqual.config import ModelConfig, TrainConfig
from rorqual.config.run import load_run_config
from rorqual.errors import ConfigError
from rorqual.kernels.ops import select_ops
from rorqual.model import initialize
from rorqual.model.attention import Sight
from rorqual.parallel import join_processes
from rorqual.reproduce.grouped_query import (
    GroupedQueryAttention,
    GroupedQueryTransformer,
    arm_flops_per_token,
)
from rorqual.reproduce.run import budgeted, load_claim
from rorqual.train.state import RunState, restore, save
from rorqual.train.step import TrainStep

CONFIG = ModelConfig(
    vocab_size=64,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    kv_lora_rank=16,
    qk_nope_head_dim=8,
    qk_rope_head_dim=4,
    v_head_dim=8,
    max_position_embeddings=64,
)


def sight(x: torch.Tensor, document_start: torch.Tensor | None = None) -> Sight:
    return Sight((x, x), document_start, None)  # the angles are not read


def attention(num_cached: int) -> GroupedQueryAttention:
    torch.manual_seed(3)
    module = GroupedQueryAttention(CONFIG, num_cached, select_ops("twin"))
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return module


@pytest.mark.parametrize("num_cached", [1, 2, 4])
@torch.no_grad()
def test_it_is_what_loops_over_heads_and_positions_give(num_cached: int) -> None:
    module, x = attention(num_cached), torch.randn(1, 7, 32)
    width = module.head_dim

    def turned(vector: torch.Tensor, position: int) -> torch.Tensor:
        out = vector.clone()
        for pair in range(width // 2):
            angle = torch.tensor(position * CONFIG.rope_theta ** (-2 * pair / width))
            a, b = vector[2 * pair], vector[2 * pair + 1]
            out[2 * pair] = a * angle.cos() - b * angle.sin()
            out[2 * pair + 1] = a * angle.sin() + b * angle.cos()
        return out

    q, k, v = (linear(x)[0] for linear in (module.q_proj, module.k_proj, module.v_proj))
    rows = []
    for t in range(7):
        heads = []
        for head in range(4):
            cached = head // (4 // num_cached)
            part, own = slice(cached * width, (cached + 1) * width), slice(head * width, None)
            query = turned(q[t, own][:width], t)
            scores = torch.stack([query @ turned(k[s, part], s) for s in range(t + 1)])
            weights = (scores / width**0.5).softmax(0)
            heads.append(sum(weights[s] * v[s, part] for s in range(t + 1)))
        rows.append(torch.cat(heads))
    expected = module.o_proj(torch.stack(rows))
    torch.testing.assert_close(module(x, sight(x))[0], expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_documents_in_a_row_do_not_see_each_other() -> None:
    module, x = attention(2), torch.randn(1, 12, 32)
    start = torch.tensor([[0] * 5 + [5] * 7], dtype=torch.int32)
    packed = module(x, sight(x, start))
    alone = torch.cat([module(part, sight(part)) for part in (x[:, :5], x[:, 5:])], dim=1)
    torch.testing.assert_close(packed, alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("num_cached", [1, 4])
def test_its_flops_are_what_torch_counts(num_cached: int) -> None:
    length = 32
    model = GroupedQueryTransformer(CONFIG, select_ops("twin"), num_cached)
    initialize(model, 0)
    tokens = torch.randint(0, 64, (1, length))
    with sdpa_kernel(SDPBackend.MATH), torch.no_grad():  # the others' products are not counted
        with FlopCounterMode(display=False) as counter:
            model.logits(tokens)
    # torch counts the whole square of scores, the planner the half under the diagonal.
    upper_half = length * 4 * CONFIG.v_head_dim * 2 * CONFIG.num_hidden_layers
    forward = arm_flops_per_token(CONFIG, length, num_cached) / 3
    assert counter.get_total_flops() / length == pytest.approx(forward + upper_half)


def test_a_saved_run_goes_on_where_it_was(tmp_path: Path) -> None:
    train: TrainConfig = load_run_config("tiny", ()).train
    processes = join_processes()

    def fresh(seed: int) -> tuple[GroupedQueryTransformer, TrainStep]:
        model = GroupedQueryTransformer(CONFIG, select_ops("twin"), 2)
        initialize(model, seed)
        return model, TrainStep(model, train, processes, torch.float32)

    model, step = fresh(1)
    save(tmp_path / "step-00000007", model, None, step, RunState(step=7))  # type: ignore[arg-type]
    assert not (tmp_path / "step-00000007" / "config.json").exists()
    other, other_step = fresh(2)
    assert restore(tmp_path / "step-00000007", other, other_step).step == 7
    for name, tensor in model.state_dict().items():
        assert torch.equal(other.state_dict()[name], tensor), name


def test_heads_that_do_not_divide_are_refused() -> None:
    with pytest.raises(ConfigError, match="num_key_value_heads=3"):
        GroupedQueryTransformer(CONFIG, select_ops("twin"), 3)


def test_the_claim_compares_at_an_equal_cache() -> None:
    claim = load_claim("attention")

    def cached_numbers(name: str) -> int:
        """Of a token, in each layer."""
        config, heads = budgeted(claim, name, 1).model, claim.arms[name].num_key_value_heads
        if heads is None:
            return config.kv_lora_rank + config.qk_rope_head_dim
        return 2 * heads * config.v_head_dim

    found = {name: cached_numbers(name) for name in claim.arms}
    assert found == {"mla": 64, "mqa": 64, "gqa": 128, "mha": 256}
