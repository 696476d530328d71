"""Tiny random models of every served family, written by transformers, with a tokenizer."""

import json
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import PreTrainedModel

from rorqual.tokenizer import Tokenizer

_COMMON: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 256,
    "initializer_range": 0.3,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 2,
}
_MLA: dict[str, Any] = {
    "num_key_value_heads": 4,
    "q_lora_rank": 24,
    "kv_lora_rank": 32,
    "qk_nope_head_dim": 32,
    "qk_rope_head_dim": 16,
    "v_head_dim": 24,
    "moe_intermediate_size": 32,
    "n_routed_experts": 8,
    "n_shared_experts": 1,
    "num_experts_per_tok": 2,
    "n_group": 4,
    "topk_group": 2,
    "first_k_dense_replace": 1,
    "routed_scaling_factor": 2.5,
}
_V2 = {"q_lora_rank": None, "n_group": 1, "topk_group": 1, "routed_scaling_factor": 1.0}
_LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
_YARN = {
    "rope_type": "yarn",
    "rope_theta": 10000.0,
    "factor": 4.0,
    "original_max_position_embeddings": 64,
}
_GQA: dict[str, Any] = {"num_key_value_heads": 2}
# name: (transformers' family, config fields beside the common ones)
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", _GQA),
    "llama-3.1": (
        "Llama",
        _GQA | {"head_dim": 32, "tie_word_embeddings": True, "rope_parameters": _LLAMA3},
    ),
    "qwen2": ("Qwen2", _GQA),
    "qwen3": ("Qwen3", _GQA | {"head_dim": 32, "tie_word_embeddings": True}),
    "qwen3-yarn": ("Qwen3", _GQA | {"head_dim": 32, "rope_parameters": _YARN}),
    "deepseek-v3": ("DeepseekV3", _MLA),
    "deepseek-v3-yarn": (
        "DeepseekV3",
        _MLA | {"rope_parameters": _YARN | {"mscale": 1.0, "mscale_all_dim": 1.0}},
    ),
    "deepseek-v2": (
        "DeepseekV2",
        _MLA | _V2 | {"topk_method": "greedy", "norm_topk_prob": False},
    ),
}


def write_tiny(name: str, directory: Path, tokenizer: Tokenizer) -> PreTrainedModel:
    """Save the tiny model of FAMILIES[name] and the tokenizer; returns the model."""
    family, fields = FAMILIES[name]
    config = getattr(transformers, f"{family}Config")(
        **(_COMMON | {"vocab_size": tokenizer.vocab_size} | fields)
    )
    torch.manual_seed(0)
    model: PreTrainedModel = getattr(transformers, f"{family}ForCausalLM")(config).eval()
    for key, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if "norm" in key:
            tensor.data.uniform_(0.5, 1.5)
        elif key.endswith("bias"):
            tensor.data.normal_(0, 0.1)
        elif "experts" in key or "gate.weight" in key:
            tensor.data.normal_(0, 0.3)
    model.save_pretrained(directory)
    tokenizer.save(directory)
    return model


def edit_config(directory: Path, **changes: Any) -> None:
    """Change fields of a config.json; None removes one."""
    file = directory / "config.json"
    raw = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({k: v for k, v in raw.items() if v is not None}))
