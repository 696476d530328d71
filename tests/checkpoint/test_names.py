"""The table of published names against the model itself and against published counts."""

from collections.abc import Callable

import pytest
import torch

from rorqual.checkpoint import placements
from rorqual.config import ModelConfig
from rorqual.model import Transformer

V2_LITE = ModelConfig(
    model_type="deepseek_v2",
    vocab_size=102400,
    hidden_size=2048,
    intermediate_size=10944,
    num_hidden_layers=27,
    num_attention_heads=16,
    kv_lora_rank=512,
    qk_nope_head_dim=128,
    qk_rope_head_dim=64,
    v_head_dim=128,
    moe_intermediate_size=1408,
    n_routed_experts=64,
    n_shared_experts=2,
    num_experts_per_tok=6,
    first_k_dense_replace=1,
    scoring_func="softmax",
    topk_method="greedy",
    norm_topk_prob=False,
)
V3 = ModelConfig(
    vocab_size=129280,
    hidden_size=7168,
    intermediate_size=18432,
    num_hidden_layers=61,
    num_attention_heads=128,
    q_lora_rank=1536,
    kv_lora_rank=512,
    qk_nope_head_dim=128,
    qk_rope_head_dim=64,
    v_head_dim=128,
    moe_intermediate_size=2048,
    n_routed_experts=256,
    n_shared_experts=1,
    num_experts_per_tok=8,
    n_group=8,
    topk_group=4,
    first_k_dense_replace=3,
    routed_scaling_factor=2.5,
    num_nextn_predict_layers=1,
)


def _meta_parameters(config: ModelConfig) -> dict[str, int]:
    with torch.device("meta"):
        model = Transformer(config)
    return {name: parameter.numel() for name, parameter in model.named_parameters()}


def _disk_numbers(config: ModelConfig, *, copies: bool) -> int:
    table = [p for p in placements(config) if p.written and (copies or not p.copy)]
    return sum(torch.Size(p.shape).numel() for p in table)


def test_v2_lite_has_the_published_counts() -> None:
    assert sum(_meta_parameters(V2_LITE).values()) == 15_706_484_224
    assert _disk_numbers(V2_LITE, copies=True) == 15_706_484_224
    assert len(placements(V2_LITE)) == 5_291


def test_v3_has_671b_and_its_mtp_module_13_5b_with_the_copies() -> None:
    parameters = _meta_parameters(V3)
    mtp = sum(n for name, n in parameters.items() if name.startswith("model.layers.61."))
    main = sum(parameters.values()) - mtp
    # By hand: attention a layer, dense MLP, MoE (256 + 1 experts of 3 x 7168 x 2048 and the
    # router), two norms a layer.
    attention, dense, norms = 187_107_328, 396_361_728, 14_336
    moe = 257 * 44_040_192 + 256 * 7168
    assert main == 2 * 129280 * 7168 + 7168 + 61 * (attention + norms) + 3 * dense + 58 * moe
    assert main == 671_026_404_352
    assert mtp == attention + norms + moe + 2 * 7168 * 7168 + 3 * 7168
    copies = _disk_numbers(V3, copies=True) - _disk_numbers(V3, copies=False)
    assert copies == 2 * 129280 * 7168
    assert mtp + copies == 13_463_426_048  # published rounded, as 14B


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("q_lora_rank", [None, 24])
def test_the_table_covers_each_number_of_the_model_once(
    make_model: Callable[..., Transformer], tied: bool, q_lora_rank: int | None
) -> None:
    model = make_model(
        q_lora_rank=q_lora_rank, tie_word_embeddings=tied, num_nextn_predict_layers=2
    )
    state = model.state_dict()
    visits = {name: torch.zeros(tensor.shape, dtype=torch.int) for name, tensor in state.items()}
    for placement in placements(model.config):
        if not placement.copy:
            part = visits[placement.parameter][placement.index]
            assert part.shape == placement.shape
            part += 1
    if tied:
        del visits["lm_head.weight"]
    for name, count in visits.items():
        assert (count == 1).all(), name


def test_mtp_names_are_the_published_ones(make_model: Callable[..., Transformer]) -> None:
    names = {placement.name for placement in placements(make_model().config)}
    own = {
        name.removeprefix("model.layers.2.")
        for name in names
        if name.startswith("model.layers.2.") and ".mlp." not in name and "self_attn" not in name
    }
    assert own == {
        "embed_tokens.weight",
        "enorm.weight",
        "hnorm.weight",
        "eh_proj.weight",
        "shared_head.norm.weight",
        "shared_head.head.weight",
        "input_layernorm.weight",
        "post_attention_layernorm.weight",
    }
