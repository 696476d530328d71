"""Llama, Qwen2 and Qwen3 config files: published ones, transformers' own, and what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import LlamaConfig, Qwen2Config, Qwen3Config
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from rorqual.config import (
    DenseConfig,
    ModelConfig,
    any_config_from_hf,
    dense_config_from_hf,
    dense_config_to_hf,
    read_any_config,
)
from rorqual.errors import CheckpointError, ConfigError
from tests.config.test_model_config import V3

# Published config.json files, by their fields.
R1_DISTILL_QWEN: dict[str, Any] = {
    "architectures": ["Qwen2ForCausalLM"],
    "attention_dropout": 0.0,
    "bos_token_id": 151643,
    "eos_token_id": 151643,
    "hidden_act": "silu",
    "hidden_size": 1536,
    "initializer_range": 0.02,
    "intermediate_size": 8960,
    "max_position_embeddings": 131072,
    "max_window_layers": 21,
    "model_type": "qwen2",
    "num_attention_heads": 12,
    "num_hidden_layers": 28,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-06,
    "rope_theta": 10000,
    "sliding_window": 4096,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.44.0",
    "use_cache": True,
    "use_mrope": False,
    "use_sliding_window": False,
    "vocab_size": 151936,
}
R1_DISTILL_LLAMA: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 128000,
    "eos_token_id": 128001,
    "hidden_act": "silu",
    "hidden_size": 4096,
    "initializer_range": 0.02,
    "intermediate_size": 14336,
    "max_position_embeddings": 131072,
    "mlp_bias": False,
    "model_type": "llama",
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
    "pretraining_tp": 1,
    "rms_norm_eps": 1e-05,
    "rope_scaling": {
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
        "rope_type": "llama3",
    },
    "rope_theta": 500000.0,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.43.0.dev0",
    "use_cache": True,
    "vocab_size": 128256,
}
SMOLLM2: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "hidden_act": "silu",
    "hidden_size": 576,
    "initializer_range": 0.041666666666666664,
    "intermediate_size": 1536,
    "is_llama_config": True,
    "max_position_embeddings": 8192,
    "mlp_bias": False,
    "model_type": "llama",
    "num_attention_heads": 9,
    "num_hidden_layers": 30,
    "num_key_value_heads": 3,
    "pad_token_id": 2,
    "pretraining_tp": 1,
    "rms_norm_eps": 1e-05,
    "rope_interleaved": False,
    "rope_scaling": None,
    "rope_theta": 100000,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.42.3",
    "transformers.js_config": {"kv_cache_dtype": {"q4f16": "float16"}},
    "use_cache": True,
    "vocab_size": 49152,
}
QWEN3: dict[str, Any] = {
    "architectures": ["Qwen3ForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 151643,
    "eos_token_id": 151645,
    "head_dim": 128,
    "hidden_act": "silu",
    "hidden_size": 1024,
    "initializer_range": 0.02,
    "intermediate_size": 3072,
    "max_position_embeddings": 40960,
    "max_window_layers": 28,
    "model_type": "qwen3",
    "num_attention_heads": 16,
    "num_hidden_layers": 28,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-06,
    "rope_scaling": None,
    "rope_theta": 1000000,
    "sliding_window": None,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.51.0",
    "use_cache": True,
    "use_sliding_window": False,
    "vocab_size": 151936,
}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}
CLASSES = {"llama": LlamaConfig, "qwen2": Qwen2Config, "qwen3": Qwen3Config}


def read_dense(raw: dict[str, Any]) -> DenseConfig:
    config = any_config_from_hf(raw)
    assert isinstance(config, DenseConfig)
    return config


def test_published_files_are_read() -> None:
    distill, llama, smol, qwen3 = map(
        read_dense, (R1_DISTILL_QWEN, R1_DISTILL_LLAMA, SMOLLM2, QWEN3)
    )
    assert (distill.attention_bias, distill.qk_norm, distill.head_dim) == (True, False, 128)
    assert (llama.attention_bias, llama.qk_norm, llama.eos_token_ids) == (False, False, (128001,))
    assert (smol.head_dim, smol.tie_word_embeddings, smol.rope_theta) == (64, True, 100000)
    assert (qwen3.qk_norm, qwen3.head_dim, qwen3.attention_bias) == (True, 128, False)
    assert qwen3.head_dim * qwen3.num_attention_heads != qwen3.hidden_size
    assert distill.softmax_scale == pytest.approx(128**-0.5)


def test_deepseek_files_still_give_a_model_config() -> None:
    assert isinstance(any_config_from_hf(V3), ModelConfig)


@pytest.mark.parametrize(
    "raw",
    [R1_DISTILL_QWEN, R1_DISTILL_LLAMA, SMOLLM2, QWEN3, QWEN3 | {"rope_scaling": YARN}],
    ids=["qwen2", "llama3", "smollm2", "qwen3", "yarn"],
)
def test_transformers_dictionary_reads_like_the_published_one(raw: dict[str, Any]) -> None:
    fields = {key: value for key, value in raw.items() if key != "transformers_version"}
    theirs = CLASSES[raw["model_type"]](**fields)
    assert "rope_parameters" in theirs.to_dict()  # the newer spelling
    assert read_dense(theirs.to_dict()) == read_dense(raw)


@pytest.mark.parametrize(
    "raw",
    [R1_DISTILL_QWEN, R1_DISTILL_LLAMA, QWEN3 | {"rope_scaling": YARN}],
    ids=["plain", "llama3", "yarn"],
)
def test_rope_frequencies_are_those_of_transformers(raw: dict[str, Any]) -> None:
    config = read_dense(raw)
    theirs = CLASSES[raw["model_type"]](**raw)
    kind = (raw.get("rope_scaling") or {}).get("rope_type")
    if kind is None:
        plain = [config.rope_theta ** (-i / config.head_dim) for i in range(0, config.head_dim, 2)]
        assert config.rope_frequencies() == pytest.approx(plain, rel=1e-12)
        return
    frequencies, factor = ROPE_INIT_FUNCTIONS[kind](theirs, "cpu")
    assert config.rope_frequencies() == pytest.approx(frequencies.tolist(), rel=1e-5)
    assert config.rope_attention_factor == pytest.approx(factor)


def test_attn_factor_multiplies_and_attention_factor_replaces() -> None:
    published = YARN | {"attn_factor": 0.8782488562869419}  # DeepSeek-R1-0528-Qwen3-8B
    config = read_dense(QWEN3 | {"rope_scaling": published})
    assert config.rope_attention_factor == pytest.approx(1.0)
    config = read_dense(QWEN3 | {"rope_scaling": YARN | {"attention_factor": 1.25}})
    assert config.rope_attention_factor == 1.25


def test_several_end_tokens() -> None:
    raw = R1_DISTILL_LLAMA | {"eos_token_id": [128001, 128008, 128009]}
    assert read_dense(raw).eos_token_ids == (128001, 128008, 128009)
    assert read_dense(raw | {"eos_token_id": None}).eos_token_ids == ()


@pytest.mark.parametrize(
    "raw", [R1_DISTILL_QWEN, R1_DISTILL_LLAMA, SMOLLM2, QWEN3 | {"rope_scaling": YARN}]
)
def test_written_file_reads_back_here_and_in_transformers(raw: dict[str, Any]) -> None:
    config = read_dense(raw)
    written = json.loads(json.dumps(dense_config_to_hf(config, dtype="bfloat16")))
    assert read_dense(written) == config
    theirs = CLASSES[raw["model_type"]](**written)
    assert dense_config_from_hf(theirs.to_dict()) == config


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model_type": "gemma"}, "model_type='gemma'"),
        ({"num_kv_heads": 4}, "did you mean num_key_value_heads?"),
        ({"hidden_act": "gelu"}, "only 'silu' is supported"),
        ({"use_sliding_window": True}, "use_sliding_window=True"),
        ({"layer_types": ["full_attention", "sliding_attention"]}, "'sliding_attention'"),
        ({"num_key_value_heads": 5}, "num_key_value_heads=5"),
        ({"rope_scaling": {"type": "linear", "factor": 2}}, "rope type 'linear'"),
        ({"rope_scaling": {"type": "yarn", "factor": 2}}, "original_max_position_embeddings"),
        ({"attention_bias": True}, "only qwen2 has biases"),
        ({"head_dim": None, "hidden_size": 1000}, "head_dim"),
        ({"vocab_size": "many"}, "vocab_size"),
    ],
)
def test_what_does_not_fit_is_named(changes: dict[str, object], words: str) -> None:
    base = R1_DISTILL_LLAMA if "hidden_size" not in changes else SMOLLM2
    with pytest.raises(ConfigError) as error:
        any_config_from_hf(base | changes)
    assert words in str(error.value) and "\n" not in str(error.value)


def test_files_are_read_and_broken_ones_named(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    with pytest.raises(CheckpointError, match="not found"):
        read_any_config(tmp_path)
    file.write_text(json.dumps(QWEN3))
    assert read_any_config(tmp_path) == read_any_config(file) == read_dense(QWEN3)
    file.write_text("{")
    with pytest.raises(CheckpointError, match="not valid JSON"):
        read_any_config(tmp_path)
    file.write_text("[]")
    with pytest.raises(CheckpointError, match="expected a JSON object"):
        read_any_config(tmp_path)
