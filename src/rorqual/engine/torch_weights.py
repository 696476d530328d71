"""A model's weights as torch tensors, from published names, for torch_runner.py."""

from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass

import numpy as np
import torch
from torch import Tensor

from rorqual.config import DenseConfig, ModelConfig
from rorqual.engine.runner import ReadTensor


@dataclass(frozen=True, slots=True)
class LatentAttention:
    """MLA of one layer (V2 section 2.1); kv_b split into the two halves that absorption folds.

    Either `query`, or the three of the query latent. expand_key [N, D, C], expand_value [N, Dv, C].
    """

    query: Tensor | None
    query_down: Tensor | None
    query_norm: Tensor | None
    query_up: Tensor | None
    latent_down: Tensor
    latent_norm: Tensor
    expand_key: Tensor
    expand_value: Tensor
    output: Tensor


@dataclass(frozen=True, slots=True)
class GroupedAttention:
    """Grouped-query attention of one layer; q, k and v stacked in this order of rows."""

    query_key_value: Tensor
    bias: Tensor | None
    query_norm: Tensor | None
    key_norm: Tensor | None
    output: Tensor


@dataclass(frozen=True, slots=True)
class FeedForward:
    """SwiGLU: gate_up [2F, H] (gate rows first), down [H, F]."""

    gate_up: Tensor
    down: Tensor


@dataclass(frozen=True, slots=True)
class Experts:
    """A MoE layer: router [E, H] and its selection bias [E] in fp32; experts as FeedForward, [E]
    in front; the shared ones apart."""

    router: Tensor
    selection_bias: Tensor | None
    gate_up: Tensor
    down: Tensor
    shared: FeedForward | None


@dataclass(frozen=True, slots=True)
class Layer:
    """One decoder layer."""

    attention_norm: Tensor
    attention: LatentAttention | GroupedAttention
    feed_forward_norm: Tensor
    feed_forward: FeedForward | Experts


@dataclass(frozen=True, slots=True)
class Weights:
    """A whole model; `head` is `embedding` where they are tied."""

    embedding: Tensor
    layers: list[Layer]
    norm: Tensor
    head: Tensor

    @property
    def num_bytes(self) -> int:
        """Bytes of all tensors, tied ones once."""
        return sum({tensor.data_ptr(): tensor.nbytes for tensor in _tensors(self)}.values())


def _tensors(item: object) -> Iterator[Tensor]:
    """Every tensor of a dataclass, list or tensor."""
    if isinstance(item, Tensor):
        yield item
    elif isinstance(item, list):
        for part in item:
            yield from _tensors(part)
    elif is_dataclass(item):
        for part in fields(item):
            yield from _tensors(getattr(item, part.name))


class _Reader:
    """Reads tensors by published name into a dtype on a device."""

    def __init__(self, read: ReadTensor, dtype: torch.dtype, device: torch.device):
        self._read, self._dtype, self._device = read, dtype, device

    def __call__(self, name: str, dtype: torch.dtype | None = None) -> Tensor:
        values = np.array(self._read(name), dtype=np.float32)  # a copy: views are read-only
        return torch.from_numpy(values).to(self._device, dtype or self._dtype)

    def stack(self, *names: str) -> Tensor:
        return torch.cat([self(name) for name in names])


def load_weights(
    config: ModelConfig | DenseConfig, read: ReadTensor, dtype: torch.dtype, device: torch.device
) -> Weights:
    """Read every tensor once, in `dtype`; what the router computes with stays fp32."""
    reader = _Reader(read, dtype, device)
    layers: list[Layer] = []
    embedding = reader("model.embed_tokens.weight")
    for layer_idx in range(config.num_hidden_layers):
        prefix = f"model.layers.{layer_idx}."
        if isinstance(config, ModelConfig):
            attention = _latent_attention(config, reader, f"{prefix}self_attn.")
            routed = config.is_moe_layer(layer_idx)
        else:
            attention, routed = _grouped_attention(config, reader, f"{prefix}self_attn."), False
        if routed:
            assert isinstance(config, ModelConfig)
            feed_forward = _experts(config, reader, f"{prefix}mlp.")
        else:
            feed_forward = _feed_forward(reader, f"{prefix}mlp.")
        layers.append(
            Layer(
                attention_norm=reader(f"{prefix}input_layernorm.weight"),
                attention=attention,
                feed_forward_norm=reader(f"{prefix}post_attention_layernorm.weight"),
                feed_forward=feed_forward,
            )
        )
    return Weights(
        embedding=embedding,
        layers=layers,
        norm=reader("model.norm.weight"),
        head=embedding if config.tie_word_embeddings else reader("lm_head.weight"),
    )


def _latent_attention(config: ModelConfig, reader: _Reader, prefix: str) -> LatentAttention:
    direct = config.q_lora_rank is None
    expand = reader(f"{prefix}kv_b_proj.weight")  # [N(D+Dv), C]
    expand = expand.unflatten(0, (config.num_attention_heads, -1))  # [N, D+Dv, C]
    key, value = expand.split((config.qk_nope_head_dim, config.v_head_dim), dim=1)
    return LatentAttention(
        query=reader(f"{prefix}q_proj.weight") if direct else None,
        query_down=None if direct else reader(f"{prefix}q_a_proj.weight"),
        query_norm=None if direct else reader(f"{prefix}q_a_layernorm.weight"),
        query_up=None if direct else reader(f"{prefix}q_b_proj.weight"),
        latent_down=reader(f"{prefix}kv_a_proj_with_mqa.weight"),
        latent_norm=reader(f"{prefix}kv_a_layernorm.weight"),
        expand_key=key.contiguous(),
        expand_value=value.contiguous(),
        output=reader(f"{prefix}o_proj.weight"),
    )


def _grouped_attention(config: DenseConfig, reader: _Reader, prefix: str) -> GroupedAttention:
    names = [f"{prefix}{part}_proj." for part in "qkv"]
    biases = [f"{name}bias" for name in names]
    return GroupedAttention(
        query_key_value=reader.stack(*(f"{name}weight" for name in names)),
        bias=reader.stack(*biases) if config.attention_bias else None,
        query_norm=reader(f"{prefix}q_norm.weight") if config.qk_norm else None,
        key_norm=reader(f"{prefix}k_norm.weight") if config.qk_norm else None,
        output=reader(f"{prefix}o_proj.weight"),
    )


def _feed_forward(reader: _Reader, prefix: str) -> FeedForward:
    gate_up = reader.stack(f"{prefix}gate_proj.weight", f"{prefix}up_proj.weight")
    return FeedForward(gate_up, reader(f"{prefix}down_proj.weight"))


def _experts(config: ModelConfig, reader: _Reader, prefix: str) -> Experts:
    experts = [
        _feed_forward(reader, f"{prefix}experts.{expert_idx}.")
        for expert_idx in range(config.num_experts)
    ]
    bias = f"{prefix}gate.e_score_correction_bias"
    shared = f"{prefix}shared_experts."
    return Experts(
        router=reader(f"{prefix}gate.weight", torch.float32),
        selection_bias=reader(bias, torch.float32) if config.uses_selection_bias else None,
        gate_up=torch.stack([expert.gate_up for expert in experts]),
        down=torch.stack([expert.down for expert in experts]),
        shared=_feed_forward(reader, shared) if config.shared_intermediate_size else None,
    )
