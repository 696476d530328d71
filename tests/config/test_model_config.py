"""config.json both ways, and what is refused."""

import pytest
from pydantic import ValidationError

from rorqual.config import ModelConfig, model_config_from_hf, model_config_to_hf
from rorqual.errors import ConfigError
from tests.conftest import YARN, small_config

# The published V3 config.json, by its fields (deepseek-ai/DeepSeek-V3).
V3 = {
    "architectures": ["DeepseekV3ForCausalLM"],
    "model_type": "deepseek_v3",
    "vocab_size": 129280,
    "hidden_size": 7168,
    "intermediate_size": 18432,
    "moe_intermediate_size": 2048,
    "num_hidden_layers": 61,
    "num_attention_heads": 128,
    "num_key_value_heads": 128,
    "n_shared_experts": 1,
    "n_routed_experts": 256,
    "num_experts_per_tok": 8,
    "routed_scaling_factor": 2.5,
    "kv_lora_rank": 512,
    "q_lora_rank": 1536,
    "qk_rope_head_dim": 64,
    "qk_nope_head_dim": 128,
    "v_head_dim": 128,
    "n_group": 8,
    "topk_group": 4,
    "topk_method": "noaux_tc",
    "scoring_func": "sigmoid",
    "norm_topk_prob": True,
    "first_k_dense_replace": 3,
    "moe_layer_freq": 1,
    "num_nextn_predict_layers": 1,
    "hidden_act": "silu",
    "attention_bias": False,
    "rms_norm_eps": 1e-6,
    "max_position_embeddings": 163840,
    "rope_theta": 10000,
    "rope_scaling": {
        "type": "yarn",
        "factor": 40,
        "original_max_position_embeddings": 4096,
        "beta_fast": 32,
        "beta_slow": 1,
        "mscale": 1.0,
        "mscale_all_dim": 1.0,
    },
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]},
    "ep_size": 1,
    "pretraining_tp": 1,
    "aux_loss_alpha": 0.001,
    "seq_aux": True,
    "bos_token_id": 0,
    "eos_token_id": 1,
}


def test_published_v3_file_is_read() -> None:
    config = model_config_from_hf(V3)
    assert (config.qk_head_dim, config.num_experts, config.shared_intermediate_size) == (
        192,
        256,
        2048,
    )
    assert config.rope_scaling is not None and config.rope_scaling.factor == 40
    # 1/sqrt(192) * (0.1 ln 40 + 1)^2, the reference code's softmax scale.
    assert config.softmax_scale == pytest.approx(192**-0.5 * 1.3688879454**2)
    assert [config.is_moe_layer(i) for i in (2, 3, 61)] == [False, True, True]


def test_both_spellings_read_alike() -> None:
    old = model_config_from_hf(V3)
    new = {k: v for k, v in V3.items() if k not in ("rope_scaling", "rope_theta", "torch_dtype")}
    scaling = dict(V3["rope_scaling"])  # type: ignore[call-overload]
    scaling["rope_type"] = scaling.pop("type")
    new |= {"rope_parameters": {"rope_theta": 10000, **scaling}, "dtype": "bfloat16"}
    assert model_config_from_hf(new) == old


@pytest.mark.parametrize(
    "config",
    [small_config(), small_config(q_lora_rank=None, rope_scaling=YARN, n_group=1, topk_group=1)],
)
def test_written_file_reads_back(config: ModelConfig) -> None:
    assert model_config_from_hf(model_config_to_hf(config, dtype="float32")) == config


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"n_ruoted_experts": 4}, "did you mean n_routed_experts?"),
        ({"model_type": "llama"}, "model_type='llama'"),
        ({"hidden_act": "gelu"}, "only 'silu' is supported"),
        ({"num_key_value_heads": 8}, "num_key_value_heads=8"),
        ({"rope_scaling": {"type": "linear", "factor": 2}}, "rope type 'linear'"),
        ({"vocab_size": "many"}, "vocab_size"),
        ({"num_experts_per_tok": 300}, "lower it in [model] or add experts"),
        ({"n_group": 7}, "choose a divisor"),
        ({"topk_group": 9}, "exceeds n_group"),
        ({"num_experts_per_tok": 200}, "raise topk_group"),
    ],
)
def test_what_does_not_fit_is_named(changes: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError) as error:
        model_config_from_hf(V3 | changes)
    assert words in str(error.value) and "\n" not in str(error.value)


def test_config_is_frozen() -> None:
    with pytest.raises(ValidationError):
        small_config().hidden_size = 3  # type: ignore[misc]


def test_a_network_that_routes_nowhere_has_one_spelling():
    all_dense = small_config(first_k_dense_replace=3, num_hidden_layers=3)
    assert all_dense == small_config(n_routed_experts=None, num_hidden_layers=3)
    assert all_dense.n_routed_experts is None and not all_dense.is_moe_layer(2)
    with_module = small_config(
        first_k_dense_replace=3, num_hidden_layers=3, num_nextn_predict_layers=1
    )
    assert with_module.is_moe_layer(3)
    for config in (all_dense, with_module):
        assert model_config_from_hf(model_config_to_hf(config, dtype="float32")) == config
