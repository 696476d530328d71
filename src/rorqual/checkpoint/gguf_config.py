"""The config of a GGUF file from its metadata, and the metadata of a config.

Keys are `{architecture}.…`; DeepSeek's V2 and V3 share the architecture `deepseek2`. GGUF leaves
out what llama.cpp does not compute (initialisation, balance losses, MTP); those fields keep their
defaults. What a file says that this engine cannot compute is an error, never ignored.
"""

import math
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from rorqual.checkpoint.gguf_names import has_whole_kv_b
from rorqual.config import (
    DenseConfig,
    DenseYarnConfig,
    Llama3RopeConfig,
    ModelConfig,
    YarnConfig,
    yarn_mscale,
)
from rorqual.config.dense import llama3_divisor
from rorqual.config.model import first_error
from rorqual.errors import CheckpointError

ARCHITECTURES = ("llama", "qwen2", "qwen3", "deepseek2")
_SOFTMAX, _SIGMOID = 1, 2
# The published tables of Llama 3.1 to 3.3; `factor` is what the slowest rotation is divided by.
_LLAMA3 = {
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}


def config_from_gguf(
    metadata: Mapping[str, Any],
    names: Collection[str],
    rope_factors: NDArray[np.float32] | None,
    where: str,
) -> ModelConfig | DenseConfig:
    """The config; names: of the tensors; rope_factors: Llama 3.1's table; where: for errors."""
    keys = _Keys(metadata, where)
    if keys.architecture not in ARCHITECTURES:
        raise CheckpointError(
            f"{where}: architecture {keys.architecture!r}, expected one of "
            f"{', '.join(ARCHITECTURES)}; other families are not served here"
        )
    values = _common(keys, metadata, names, where)
    try:
        if keys.architecture == "deepseek2":
            return ModelConfig(**values, **_deepseek(keys, names, where))
        return DenseConfig(**values, **_dense(keys, values, rope_factors, where))
    except ValidationError as error:
        raise CheckpointError(f"{where}: {first_error(error)}; convert the file again") from error


class _Keys:
    """Metadata of one architecture by short key."""

    def __init__(self, metadata: Mapping[str, Any], where: str):
        self.architecture = str(metadata.get("general.architecture"))
        self._metadata = metadata
        self._where = where

    def get(self, key: str, default: Any = None) -> Any:
        """A value, or `default`; a list where every layer has its own must agree on one."""
        value = self._metadata.get(f"{self.architecture}.{key}", default)
        if not isinstance(value, np.ndarray):
            return value
        distinct = sorted(set(value.tolist()))
        if len(distinct) != 1:
            raise CheckpointError(
                f"{self._where}: {self.architecture}.{key} differs between layers ({distinct}), "
                "expected one value; such models are not served here"
            )
        return distinct[0]

    def need(self, key: str) -> Any:
        """A value that every file must have."""
        value = self.get(key)
        if value is None:
            raise CheckpointError(
                f"{self._where}: metadata {self.architecture}.{key} is missing; the file is "
                "incomplete, convert it again"
            )
        return value


def _common(
    keys: _Keys, metadata: Mapping[str, Any], names: Collection[str], where: str
) -> dict[str, Any]:
    tokens = metadata.get("tokenizer.ggml.tokens")
    vocab_size = keys.get("vocab_size") or (len(tokens) if isinstance(tokens, list) else None)
    if vocab_size is None:
        raise CheckpointError(
            f"{where}: neither {keys.architecture}.vocab_size nor tokenizer.ggml.tokens; the file "
            "is incomplete, convert it again"
        )
    return {
        "vocab_size": vocab_size,
        "hidden_size": keys.need("embedding_length"),
        "intermediate_size": keys.need("feed_forward_length"),
        "num_hidden_layers": keys.need("block_count") - keys.get("nextn_predict_layers", 0),
        "num_attention_heads": keys.need("attention.head_count"),
        "max_position_embeddings": keys.need("context_length"),
        "rms_norm_eps": _decimal(keys.need("attention.layer_norm_rms_epsilon")),
        "rope_theta": _decimal(keys.get("rope.freq_base", 10000.0)),
        "tie_word_embeddings": "output.weight" not in names,
        **_token_ids(metadata, keys.architecture),
    }


def _token_ids(metadata: Mapping[str, Any], architecture: str) -> dict[str, Any]:
    begin, end, turn, pad = (
        metadata.get(f"tokenizer.ggml.{name}_token_id") for name in ("bos", "eos", "eot", "padding")
    )
    found = {"bos_token_id": begin, "eos_token_id": end, "pad_token_id": pad}
    if architecture != "deepseek2" and turn is not None and turn != end:
        found["eos_token_id"] = turn if end is None else (end, turn)
    return {name: value for name, value in found.items() if value is not None}


def _dense(
    keys: _Keys,
    values: Mapping[str, Any],
    rope_factors: NDArray[np.float32] | None,
    where: str,
) -> dict[str, Any]:
    heads = values["num_attention_heads"]
    head_dim = keys.get("attention.key_length", values["hidden_size"] // heads)
    for key in ("attention.value_length", "rope.dimension_count"):
        if keys.get(key, head_dim) != head_dim:
            raise CheckpointError(
                f"{where}: {keys.architecture}.{key}={keys.get(key)} differs from the head's width "
                f"{head_dim}; such models are not served here"
            )
    if keys.get("expert_count", 0):
        raise CheckpointError(
            f"{where}: {keys.architecture} with {keys.get('expert_count')} experts; only dense "
            "models of this family are served here"
        )
    found: dict[str, Any] = {
        "model_type": keys.architecture,
        "num_key_value_heads": keys.get("attention.head_count_kv", heads),
        "head_dim": head_dim,
        "attention_bias": keys.architecture == "qwen2",
    }
    if rope_factors is not None:
        base = values["rope_theta"]
        found["rope_scaling"] = _llama3_from(rope_factors, base, head_dim, where)
    elif keys.get("rope.scaling.type", "none") != "none":
        found["rope_scaling"] = _dense_yarn(keys, where)
    return found


def _dense_yarn(keys: _Keys, where: str) -> DenseYarnConfig:
    factor = _yarn_factor(keys, where)
    given = keys.get("rope.scaling.attn_factor", keys.get("rope.scaling.yarn_attn_factor"))
    attention = None if given is None else float(given) * yarn_mscale(factor, 1.0)
    return DenseYarnConfig(
        rope_type="yarn",
        factor=factor,
        original_max_position_embeddings=keys.need("rope.scaling.original_context_length"),
        beta_fast=keys.get("rope.scaling.yarn_beta_fast", 32.0),
        beta_slow=keys.get("rope.scaling.yarn_beta_slow", 1.0),
        attention_factor=attention,
    )


def _yarn_factor(keys: _Keys, where: str) -> float:
    kind = keys.get("rope.scaling.type")
    if kind != "yarn":
        raise CheckpointError(
            f"{where}: rope.scaling.type={kind!r}, expected 'yarn' or none; such models are not "
            "served here"
        )
    return _decimal(keys.need("rope.scaling.factor"))


def _llama3_from(
    factors: NDArray[np.float32], theta: float, head_dim: int, where: str
) -> Llama3RopeConfig | None:
    """Llama 3.1's parameters out of its table of divisors, checked against the whole table."""
    factor = float(factors.max())
    if factor == 1.0:
        return None
    config = Llama3RopeConfig(rope_type="llama3", factor=factor, **_LLAMA3)
    if not np.allclose(factors, llama3_table(config, theta, head_dim), rtol=1e-3):
        raise CheckpointError(
            f"{where}: rope_freqs is not the table of Llama 3.1 (low 1, high 4, context 8192) with "
            f"factor {factor:g}; such models are not served here"
        )
    return config


def is_published_llama3(scaling: Llama3RopeConfig) -> bool:
    """Whether the parameters can be read back out of the table that GGUF keeps of them."""
    return _LLAMA3 == {
        "low_freq_factor": scaling.low_freq_factor,
        "high_freq_factor": scaling.high_freq_factor,
        "original_max_position_embeddings": scaling.original_max_position_embeddings,
    }


def llama3_table(scaling: Llama3RopeConfig, theta: float, head_dim: int) -> NDArray[np.float32]:
    """What each of the head's frequencies is divided by, as GGUF stores it. [D/2] fp32"""
    frequencies = [theta ** (-2 * index / head_dim) for index in range(head_dim // 2)]
    return np.array([llama3_divisor(f, scaling) for f in frequencies], dtype=np.float32)


def _deepseek(keys: _Keys, names: Collection[str], where: str) -> dict[str, Any]:
    rope = keys.need("rope.dimension_count")
    mla = "attention.key_length" if has_whole_kv_b(names) else "attention.key_length_mla"
    value = "attention.value_length" if has_whole_kv_b(names) else "attention.value_length_mla"
    sigmoid = keys.get("expert_gating_func", _SOFTMAX) == _SIGMOID
    groups = keys.get("expert_group_count", 1)
    biased = any(name.endswith(".exp_probs_b.bias") for name in names)
    plain = "group_limited_greedy" if groups > 1 else "greedy"
    num_experts = keys.get("expert_count", 0)
    return {
        "model_type": "deepseek_v3" if sigmoid or biased else "deepseek_v2",
        "q_lora_rank": keys.get("attention.q_lora_rank") or None,
        "kv_lora_rank": keys.need("attention.kv_lora_rank"),
        "qk_nope_head_dim": keys.need(mla) - rope,
        "qk_rope_head_dim": rope,
        "v_head_dim": keys.need(value),
        "moe_intermediate_size": keys.get("expert_feed_forward_length", 1),
        "n_routed_experts": num_experts or None,
        "n_shared_experts": keys.get("expert_shared_count", 0) or None,
        "num_experts_per_tok": keys.get("expert_used_count", 1) or 1,
        "n_group": groups,
        "topk_group": keys.get("expert_group_used_count", 1),
        "first_k_dense_replace": keys.get("leading_dense_block_count", 0),
        "scoring_func": "sigmoid" if sigmoid else "softmax",
        "topk_method": "noaux_tc" if biased or not num_experts else plain,
        "norm_topk_prob": bool(keys.get("expert_weights_norm", False)),
        "routed_scaling_factor": _decimal(keys.get("expert_weights_scale", 1.0)),
        "rope_scaling": _deepseek_yarn(keys, where),
    }


def _deepseek_yarn(keys: _Keys, where: str) -> YarnConfig | None:
    """GGUF states mscale_all_dim alone, as 0.1 times it; mscale is the same in every release."""
    if keys.get("rope.scaling.type", "none") == "none":
        return None
    mscale = _decimal(keys.get("rope.scaling.yarn_log_multiplier", 0.0) * 10)
    return YarnConfig(
        factor=_yarn_factor(keys, where),
        original_max_position_embeddings=keys.need("rope.scaling.original_context_length"),
        beta_fast=keys.get("rope.scaling.yarn_beta_fast", 32.0),
        beta_slow=keys.get("rope.scaling.yarn_beta_slow", 1.0),
        mscale=mscale,
        mscale_all_dim=mscale,
    )


def _decimal(value: float) -> float:
    """The short decimal that a float32 was written from: 9.99999974e-06 back to 1e-05."""
    return float(f"{float(value):.6g}")


def config_to_gguf(config: ModelConfig | DenseConfig, where: str) -> dict[str, Any]:
    """Metadata as llama.cpp reads it; CheckpointError names what GGUF cannot express."""
    architecture = "deepseek2" if isinstance(config, ModelConfig) else config.model_type
    values: dict[str, Any] = {
        "vocab_size": config.vocab_size,
        "context_length": config.max_position_embeddings,
        "embedding_length": config.hidden_size,
        "block_count": config.num_hidden_layers,
        "feed_forward_length": config.intermediate_size,
        "attention.head_count": config.num_attention_heads,
        "attention.layer_norm_rms_epsilon": float(config.rms_norm_eps),
        "rope.freq_base": float(config.rope_theta),
    }
    if isinstance(config, ModelConfig):
        values |= _deepseek_values(config, where)
    else:
        values |= _dense_values(config)
    named = {f"{architecture}.{key}": value for key, value in values.items()}
    return {"general.architecture": architecture, "general.type": "model", **named}


def _dense_values(config: DenseConfig) -> dict[str, Any]:
    values: dict[str, Any] = {
        "attention.head_count_kv": config.num_key_value_heads,
        "attention.key_length": config.head_dim,
        "attention.value_length": config.head_dim,
        "rope.dimension_count": config.head_dim,
    }
    yarn = config.rope_scaling
    if isinstance(yarn, DenseYarnConfig):
        values |= {"rope.scaling.type": yarn.rope_type, **_yarn_values(yarn)}
        if yarn.attention_factor is not None:
            beside_default = yarn.attention_factor / yarn_mscale(yarn.factor, 1.0)
            values["rope.scaling.attn_factor"] = beside_default
    return values


def _yarn_values(yarn: YarnConfig | DenseYarnConfig) -> dict[str, Any]:
    return {
        "rope.scaling.factor": float(yarn.factor),
        "rope.scaling.original_context_length": yarn.original_max_position_embeddings,
        "rope.scaling.yarn_beta_fast": float(yarn.beta_fast),
        "rope.scaling.yarn_beta_slow": float(yarn.beta_slow),
    }


def _deepseek_values(config: ModelConfig, where: str) -> dict[str, Any]:
    """MLA as one cached head of width C + R (absorbed), its real widths under `_mla`."""
    rope = config.qk_rope_head_dim
    moe = config.num_experts > 0
    dense_layers = config.first_k_dense_replace if moe else config.num_hidden_layers
    values: dict[str, Any] = {
        "attention.head_count_kv": 1,
        "attention.kv_lora_rank": config.kv_lora_rank,
        "attention.key_length": config.kv_lora_rank + rope,
        "attention.value_length": config.kv_lora_rank,
        "attention.key_length_mla": config.qk_head_dim,
        "attention.value_length_mla": config.v_head_dim,
        "rope.dimension_count": rope,
        "leading_dense_block_count": dense_layers,
        "expert_feed_forward_length": config.moe_intermediate_size,
        "expert_count": config.num_experts,
        "expert_used_count": config.num_experts_per_tok if moe else 0,
        "expert_shared_count": config.n_shared_experts or 0,
        "expert_weights_scale": float(config.routed_scaling_factor),
        "expert_weights_norm": config.norm_topk_prob,
        "expert_gating_func": _SIGMOID if config.scoring_func == "sigmoid" else _SOFTMAX,
    }
    if config.q_lora_rank is not None:
        values["attention.q_lora_rank"] = config.q_lora_rank
    if moe and config.n_group > 1:
        values["expert_group_count"] = config.n_group
        values["expert_group_used_count"] = config.topk_group
    yarn = config.rope_scaling
    if yarn is not None:
        if not math.isclose(yarn.mscale, yarn.mscale_all_dim):
            raise CheckpointError(
                f"{where}: mscale={yarn.mscale} differs from mscale_all_dim={yarn.mscale_all_dim}, "
                "GGUF has one value for both; keep the Hugging Face format"
            )
        values |= {"rope.scaling.type": "yarn", **_yarn_values(yarn)}
        values["rope.scaling.yarn_log_multiplier"] = 0.1 * yarn.mscale_all_dim
    return values
