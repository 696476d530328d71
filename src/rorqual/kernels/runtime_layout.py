"""A config as the native runtime sees it: its shape, its published tensors, its rotation tables.

`ModelShape` and `Slot` repeat native/runtime.h and native/api_runtime.cpp; the order is the
contract.
"""

import enum
import math
from collections.abc import Iterator
from ctypes import Structure, c_double, c_int64
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from rorqual.config import DenseConfig, ModelConfig, yarn_mscale

Precision = Literal["fp32", "bf16", "int8", "int4"]

FORMATS: Final[dict[Precision, int]] = {"fp32": 0, "bf16": 1, "int8": 2, "int4": 3}
LATENT_NORM_EPS: Final = 1e-6
"""DeepSeek's published code uses this for the latent norms whatever `rms_norm_eps` says."""

_INTEGERS: Final = (
    "attention layers mtp_layers vocabulary hidden intermediate heads kv_heads q_rank kv_rank nope "
    "rope value experts chosen expert_width shared_width first_moe_layer groups kept_groups "
    "scoring selection normalise scale_normalised qk_norm qkv_bias tied format num_blocks "
    "max_tokens max_positions"
).split()
_REALS: Final = ("eps", "latent_eps", "softmax_scale", "routed_scale")
_LATENT: Final = 0
_GROUPED: Final = 1
_SELECTIONS: Final = {"greedy": 0, "noaux_tc": 1, "group_limited_greedy": 2}


class ModelShape(Structure):
    """`rq::ModelShape`."""

    _fields_ = [(name, c_int64) for name in _INTEGERS] + [(name, c_double) for name in _REALS]


class Slot(enum.IntEnum):
    """What a published tensor is in the network."""

    EMBEDDING = 0
    FINAL_NORM = 1
    HEAD = 2
    INPUT_NORM = 3
    POST_NORM = 4
    QUERY_LATENT = 5
    QUERY_NORM = 6
    QUERY = 7
    KEY_VALUE_LATENT = 8
    KEY_NORM = 9
    KEY_VALUE = 10
    OUTPUT = 11
    GATE = 12
    UP = 13
    DOWN = 14
    ROUTER = 15
    ROUTER_BIAS = 16
    EXPERT_GATE = 17
    EXPERT_UP = 18
    EXPERT_DOWN = 19
    KEY = 20
    VALUE = 21
    QUERY_BIAS = 22
    KEY_BIAS = 23
    VALUE_BIAS = 24
    EMBEDDING_NORM = 25
    HIDDEN_NORM = 26
    HEAD_NORM = 27
    JOINED = 28


@dataclass(frozen=True, slots=True)
class Tensor:
    """A published tensor and where it goes; layer -1: of the whole model."""

    name: str
    shape: tuple[int, ...]
    slot: Slot
    layer: int = -1
    expert: int = 0


def model_shape(
    config: ModelConfig | DenseConfig, precision: Precision, num_blocks: int, max_tokens: int
) -> ModelShape:
    """The native shape of a config."""
    shape = ModelShape(
        layers=config.num_hidden_layers,
        vocabulary=config.vocab_size,
        hidden=config.hidden_size,
        intermediate=config.intermediate_size,
        heads=config.num_attention_heads,
        tied=config.tie_word_embeddings,
        format=FORMATS[precision],
        num_blocks=num_blocks,
        max_tokens=max_tokens,
        max_positions=config.max_position_embeddings,
        eps=config.rms_norm_eps,
        latent_eps=LATENT_NORM_EPS,
        softmax_scale=config.softmax_scale,
        chosen=1,
        groups=1,
    )
    if isinstance(config, DenseConfig):
        _add_grouped_attention(shape, config)
    else:
        _add_latent_attention(shape, config)
        if config.n_routed_experts is not None:
            _add_experts(shape, config)
    return shape


def _add_grouped_attention(shape: ModelShape, config: DenseConfig) -> None:
    shape.attention = _GROUPED
    shape.kv_heads = config.num_key_value_heads
    shape.rope = shape.value = config.head_dim
    shape.qk_norm, shape.qkv_bias = config.qk_norm, config.attention_bias


def _add_latent_attention(shape: ModelShape, config: ModelConfig) -> None:
    shape.attention = _LATENT
    shape.mtp_layers = config.num_nextn_predict_layers
    shape.q_rank = config.q_lora_rank or 0
    shape.kv_rank = config.kv_lora_rank
    shape.nope, shape.rope = config.qk_nope_head_dim, config.qk_rope_head_dim
    shape.value = config.v_head_dim


def _add_experts(shape: ModelShape, config: ModelConfig) -> None:
    shape.experts, shape.chosen = config.num_experts, config.num_experts_per_tok
    shape.expert_width = config.moe_intermediate_size
    shape.shared_width = config.shared_intermediate_size
    shape.first_moe_layer = config.first_k_dense_replace
    shape.groups, shape.kept_groups = config.n_group, config.topk_group
    shape.scoring = 0 if config.scoring_func == "sigmoid" else 1
    shape.selection = _SELECTIONS[config.topk_method]
    shape.normalise = config.norm_topk_prob
    # Where V2's published code normalises it does not scale; V3's does both.
    shape.scale_normalised = config.model_type != "deepseek_v2"
    shape.routed_scale = config.routed_scaling_factor


def num_moe_layers(config: ModelConfig | DenseConfig) -> int:
    """Layers of the main model that route."""
    if isinstance(config, DenseConfig) or config.n_routed_experts is None:
        return 0
    return max(0, config.num_hidden_layers - config.first_k_dense_replace)


def published_tensors(config: ModelConfig | DenseConfig) -> Iterator[Tensor]:
    """Every tensor that the runtime reads, in the order of the network."""
    vocabulary = (config.vocab_size, config.hidden_size)
    yield Tensor("model.embed_tokens.weight", vocabulary, Slot.EMBEDDING)
    if isinstance(config, DenseConfig):
        num_layers = config.num_hidden_layers
    else:
        num_layers = config.num_hidden_layers + config.num_nextn_predict_layers
    for layer in range(num_layers):
        for tensor in _layer_tensors(config, layer):
            yield Tensor(
                _published_name(layer, tensor.name),
                tensor.shape,
                tensor.slot,
                layer,
                tensor.expert,
            )
    yield Tensor("model.norm.weight", (config.hidden_size,), Slot.FINAL_NORM)
    if not config.tie_word_embeddings:
        yield Tensor("lm_head.weight", vocabulary, Slot.HEAD)


def _published_name(layer: int, part: str) -> str:
    ending = "" if part.endswith("bias") else ".weight"
    return f"model.layers.{layer}.{part}{ending}"


def _layer_tensors(config: ModelConfig | DenseConfig, layer: int) -> Iterator[Tensor]:
    """Tensors of a layer by the part of their name between the layer's number and `.weight`."""
    hidden = config.hidden_size
    yield Tensor("input_layernorm", (hidden,), Slot.INPUT_NORM)
    yield Tensor("post_attention_layernorm", (hidden,), Slot.POST_NORM)
    if isinstance(config, DenseConfig):
        yield from _grouped_attention(config)
        yield from _swiglu("mlp", hidden, config.intermediate_size)
        return
    yield from _latent_attention(config)
    if layer >= config.num_hidden_layers:
        yield Tensor("enorm", (hidden,), Slot.EMBEDDING_NORM)
        yield Tensor("hnorm", (hidden,), Slot.HIDDEN_NORM)
        yield Tensor("shared_head.norm", (hidden,), Slot.HEAD_NORM)
        yield Tensor("eh_proj", (hidden, 2 * hidden), Slot.JOINED)
    if not config.is_moe_layer(layer):
        yield from _swiglu("mlp", hidden, config.intermediate_size)
        return
    experts, width = config.num_experts, config.moe_intermediate_size
    yield Tensor("mlp.gate", (experts, hidden), Slot.ROUTER)
    if config.uses_selection_bias:
        yield Tensor("mlp.gate.e_score_correction_bias", (experts,), Slot.ROUTER_BIAS)
    if config.shared_intermediate_size:
        yield from _swiglu("mlp.shared_experts", hidden, config.shared_intermediate_size)
    for expert in range(experts):
        name = f"mlp.experts.{expert}"
        yield Tensor(f"{name}.gate_proj", (width, hidden), Slot.EXPERT_GATE, expert=expert)
        yield Tensor(f"{name}.up_proj", (width, hidden), Slot.EXPERT_UP, expert=expert)
        yield Tensor(f"{name}.down_proj", (hidden, width), Slot.EXPERT_DOWN, expert=expert)


def _swiglu(name: str, hidden: int, width: int) -> Iterator[Tensor]:
    yield Tensor(f"{name}.gate_proj", (width, hidden), Slot.GATE)
    yield Tensor(f"{name}.up_proj", (width, hidden), Slot.UP)
    yield Tensor(f"{name}.down_proj", (hidden, width), Slot.DOWN)


def _latent_attention(config: ModelConfig) -> Iterator[Tensor]:
    hidden, heads, rank = config.hidden_size, config.num_attention_heads, config.kv_lora_rank
    query_width = heads * config.qk_head_dim
    if config.q_lora_rank is None:
        yield Tensor("self_attn.q_proj", (query_width, hidden), Slot.QUERY)
    else:
        query_rank = config.q_lora_rank
        # NOTE: before kv_a, whose columns follow in the same matrix.
        yield Tensor("self_attn.q_a_proj", (query_rank, hidden), Slot.QUERY_LATENT)
        yield Tensor("self_attn.q_a_layernorm", (query_rank,), Slot.QUERY_NORM)
        yield Tensor("self_attn.q_b_proj", (query_width, query_rank), Slot.QUERY)
    latent_shape = (rank + config.qk_rope_head_dim, hidden)
    yield Tensor("self_attn.kv_a_proj_with_mqa", latent_shape, Slot.KEY_VALUE_LATENT)
    yield Tensor("self_attn.kv_a_layernorm", (rank,), Slot.KEY_NORM)
    expanded = heads * (config.qk_nope_head_dim + config.v_head_dim)
    yield Tensor("self_attn.kv_b_proj", (expanded, rank), Slot.KEY_VALUE)
    yield Tensor("self_attn.o_proj", (hidden, heads * config.v_head_dim), Slot.OUTPUT)


def _grouped_attention(config: DenseConfig) -> Iterator[Tensor]:
    hidden, dim = config.hidden_size, config.head_dim
    query_width, key_width = config.num_attention_heads * dim, config.num_key_value_heads * dim
    parts = (
        ("q", query_width, Slot.QUERY, Slot.QUERY_BIAS),
        ("k", key_width, Slot.KEY, Slot.KEY_BIAS),
        ("v", key_width, Slot.VALUE, Slot.VALUE_BIAS),
    )
    for letter, width, slot, bias_slot in parts:
        yield Tensor(f"self_attn.{letter}_proj", (width, hidden), slot)
        if config.attention_bias:
            yield Tensor(f"self_attn.{letter}_proj.bias", (width,), bias_slot)
    if config.qk_norm:
        yield Tensor("self_attn.q_norm", (dim,), Slot.QUERY_NORM)
        yield Tensor("self_attn.k_norm", (dim,), Slot.KEY_NORM)
    yield Tensor("self_attn.o_proj", (hidden, query_width), Slot.OUTPUT)


def rotation_tables(
    config: ModelConfig | DenseConfig,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Cosine and sine of every position's rotations, attention factor included. 2 x [P, R/2]"""
    if isinstance(config, DenseConfig):
        frequencies = np.asarray(config.rope_frequencies(), np.float32)  # [D/2]
        factor = config.rope_attention_factor
    else:
        frequencies, factor = _latent_frequencies(config), _latent_factor(config)
    positions = np.arange(config.max_position_embeddings, dtype=np.float32)  # [P]
    # NOTE: the product is rounded to float32 as the published code does.
    angles = np.outer(positions, frequencies)  # [P, R/2] fp32
    return np.cos(angles) * np.float32(factor), np.sin(angles) * np.float32(factor)


def _latent_factor(config: ModelConfig) -> float:
    yarn = config.rope_scaling
    if yarn is None:
        return 1.0
    factor = yarn_mscale(yarn.factor, yarn.mscale or 1.0)
    if yarn.mscale and yarn.mscale_all_dim:
        factor /= yarn_mscale(yarn.factor, yarn.mscale_all_dim)
    return factor


def _latent_frequencies(config: ModelConfig) -> NDArray[np.float32]:
    """Radians per position of each rotated pair, YaRN's ramp included. [R/2]"""
    dim = config.qk_rope_head_dim
    exponents = np.arange(0, dim, 2, dtype=np.float32) / np.float32(dim)
    powers = np.power(config.rope_theta, exponents.astype(np.float64)).astype(np.float32)
    frequencies = np.float32(1.0) / powers
    yarn = config.rope_scaling
    if yarn is None:
        return frequencies

    def pair_index(num_rotations: float) -> float:
        """The (fractional) pair that turns `num_rotations` times over the original context."""
        length = yarn.original_max_position_embeddings
        return (
            dim
            * math.log(length / (num_rotations * 2 * math.pi))
            / (2 * math.log(config.rope_theta))
        )

    low = max(math.floor(pair_index(yarn.beta_fast)), 0)
    high = min(math.ceil(pair_index(yarn.beta_slow)), dim - 1)
    steps = np.arange(dim // 2, dtype=np.float32)
    ramp = np.clip((steps - low) / np.float32((high - low) or 0.001), 0, 1)  # [R/2]
    mixed = frequencies / np.float32(yarn.factor) * ramp + frequencies * (1 - ramp)
    return mixed.astype(np.float32)
