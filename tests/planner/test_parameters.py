"""Parameter counts against the published ones and against a plain list of weight shapes."""

import math

import pytest

from rorqual.config import ModelConfig
from rorqual.config.plan import read_plan
from rorqual.config.presets import find_preset
from rorqual.planner import count_parameters

BASE = {
    "vocab_size": 96,
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "q_lora_rank": 10,
    "kv_lora_rank": 8,
    "qk_nope_head_dim": 6,
    "qk_rope_head_dim": 4,
    "v_head_dim": 5,
    "moe_intermediate_size": 7,
    "n_routed_experts": 4,
    "n_shared_experts": 2,
    "num_experts_per_tok": 2,
    "n_group": 1,
    "topk_group": 1,
    "first_k_dense_replace": 1,
}
VARIANTS = {
    "plain": {},
    "direct query": {"q_lora_rank": None},
    "two MTP modules": {"num_nextn_predict_layers": 2},
    "no shared experts": {"n_shared_experts": None},
    "all dense": {"n_routed_experts": None},
    "softmax without bias": {"topk_method": "greedy", "scoring_func": "softmax"},
    "tied": {"tie_word_embeddings": True},
}


def preset(name: str) -> ModelConfig:
    return read_plan(find_preset(name))[0]


def published_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Every tensor of a checkpoint by its published name; MTP's copies left out."""
    hidden, heads = config.hidden_size, config.num_attention_heads
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (config.vocab_size, hidden),
        "model.norm.weight": (hidden,),
    }
    if not config.tie_word_embeddings:
        shapes["lm_head.weight"] = (config.vocab_size, hidden)

    def mlp(prefix: str, width: int) -> None:
        shapes[f"{prefix}.gate_proj.weight"] = (width, hidden)
        shapes[f"{prefix}.up_proj.weight"] = (width, hidden)
        shapes[f"{prefix}.down_proj.weight"] = (hidden, width)

    for idx in range(config.num_hidden_layers + config.num_nextn_predict_layers):
        layer = f"model.layers.{idx}"
        query_rows = heads * (config.qk_nope_head_dim + config.qk_rope_head_dim)
        shapes[f"{layer}.input_layernorm.weight"] = (hidden,)
        shapes[f"{layer}.post_attention_layernorm.weight"] = (hidden,)
        attn = f"{layer}.self_attn"
        if config.q_lora_rank is None:
            shapes[f"{attn}.q_proj.weight"] = (query_rows, hidden)
        else:
            shapes[f"{attn}.q_a_proj.weight"] = (config.q_lora_rank, hidden)
            shapes[f"{attn}.q_a_layernorm.weight"] = (config.q_lora_rank,)
            shapes[f"{attn}.q_b_proj.weight"] = (query_rows, config.q_lora_rank)
        latent = config.kv_lora_rank
        shapes[f"{attn}.kv_a_proj_with_mqa.weight"] = (latent + config.qk_rope_head_dim, hidden)
        shapes[f"{attn}.kv_a_layernorm.weight"] = (latent,)
        rows = heads * (config.qk_nope_head_dim + config.v_head_dim)
        shapes[f"{attn}.kv_b_proj.weight"] = (rows, latent)
        shapes[f"{attn}.o_proj.weight"] = (hidden, heads * config.v_head_dim)
        if config.n_routed_experts is None or idx < config.first_k_dense_replace:
            mlp(f"{layer}.mlp", config.intermediate_size)
        else:
            shapes[f"{layer}.mlp.gate.weight"] = (config.n_routed_experts, hidden)
            if config.topk_method == "noaux_tc":
                shapes[f"{layer}.mlp.gate.e_score_correction_bias"] = (config.n_routed_experts,)
            for expert in range(config.n_routed_experts):
                mlp(f"{layer}.mlp.experts.{expert}", config.moe_intermediate_size)
            if config.n_shared_experts:
                width = config.n_shared_experts * config.moe_intermediate_size
                mlp(f"{layer}.mlp.shared_experts", width)
        if idx >= config.num_hidden_layers:
            for norm in ("enorm", "hnorm", "shared_head.norm"):
                shapes[f"{layer}.{norm}.weight"] = (hidden,)
            shapes[f"{layer}.eh_proj.weight"] = (hidden, 2 * hidden)
    return shapes


def test_v2_lite_has_exactly_the_published_count():
    assert count_parameters(preset("v2-lite")).total == 15_706_484_224


def test_v3_main_model_has_671b_of_which_37b_active():
    counts = count_parameters(preset("v3"))
    assert counts.total == 671_026_419_200
    assert counts.selection_bias == 58 * 256
    assert round(counts.total / 1e9) == 671
    assert round(counts.active_with_head / 1e9) == 37


def test_v3_active_conventions_differ_by_one_embedding_each():
    counts = count_parameters(preset("v3"))
    assert counts.active_with_head - counts.active_without_embeddings == 129280 * 7168
    assert counts.active_with_embeddings - counts.active_with_head == 129280 * 7168
    nearest = min(
        (
            counts.active_without_embeddings,
            counts.active_with_head,
            counts.active_with_embeddings,
        ),
        key=lambda count: abs(count - 36.7e9),
    )
    assert nearest == counts.active_with_head


def test_v3_mtp_module_agrees_with_the_published_weights():
    counts = count_parameters(preset("v3"))
    assert counts.mtp == pytest.approx(11.5e9, rel=0.01)
    assert counts.mtp + counts.mtp_shared == pytest.approx(14e9, rel=0.04)
    assert counts.checkpoint == pytest.approx(685e9, rel=0.001)


def test_v2_has_236b_of_which_21b_active():
    counts = count_parameters(preset("v2"))
    assert round(counts.total / 1e9) == 236
    assert round(counts.active_with_head / 1e9) == 21


@pytest.mark.parametrize("change", VARIANTS.values(), ids=VARIANTS.keys())
def test_count_equals_the_sum_of_published_shapes(change: dict[str, object]):
    config = ModelConfig.model_validate({**BASE, **change})
    counts = count_parameters(config)
    shapes = published_shapes(config)
    own_mtp = {
        name
        for name in shapes
        if name.startswith("model.layers.") and int(name.split(".")[2]) >= config.num_hidden_layers
    }
    main = sum(math.prod(shape) for name, shape in shapes.items() if name not in own_mtp)
    assert counts.total == main
    assert counts.mtp == sum(math.prod(shapes[name]) for name in own_mtp)
    matrices = sum(
        math.prod(shape)
        for name, shape in shapes.items()
        if len(shape) == 2 and ".experts." not in name and name not in own_mtp
    )
    experts = sum(".experts.0.gate" in name for name in shapes.keys() - own_mtp)
    visited = experts * config.num_experts_per_tok * 3 * 24 * config.moe_intermediate_size
    embedding = 0 if config.tie_word_embeddings else 96 * 24
    assert counts.active_matmul == matrices - embedding + visited


def test_peer_model_sizes_agree_with_those_measured():
    """The two benchmark networks that the peers were timed on: 107.5M/26.2M and 12.1M/5.2M."""
    shared = {"num_attention_heads": 8, "num_experts_per_tok": 4, "n_shared_experts": 1}
    small = ModelConfig.model_validate(
        BASE
        | shared
        | {"hidden_size": 512, "num_hidden_layers": 8, "q_lora_rank": 192, "kv_lora_rank": 128}
        | {"qk_nope_head_dim": 64, "qk_rope_head_dim": 32, "v_head_dim": 64, "vocab_size": 8192}
        | {"n_routed_experts": 32, "moe_intermediate_size": 256, "intermediate_size": 1536}
    )
    counts = count_parameters(small)
    assert counts.total == pytest.approx(107.5e6, rel=0.001)
    assert counts.active_with_head == pytest.approx(26.2e6, rel=0.002)
