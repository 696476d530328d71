"""Published tensors and GGUF tensors: one table that serves reading and writing.

GGUF renames every tensor and lays four kinds out differently. Experts are stacked. Llama's query
and key rows are reordered, because llama.cpp rotates neighbouring pairs there where the published
weights rotate halves. MLA's `kv_b_proj` is cut in two, its key half transposed, for the absorbed
form (V2 section 2.1.2); files from before 2025-04 carry it whole. MTP modules are left out, since
llama.cpp has no place for them in this architecture.
"""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from rorqual.checkpoint.dense_names import layer_shapes
from rorqual.checkpoint.hf import EMBEDDING, HEAD, placements
from rorqual.config import DenseConfig, ModelConfig

Layout = Literal["plain", "rotary", "experts", "key_b", "value_b"]
Array = NDArray[np.float32]
Read = Callable[[str], Array]

# The name inside a layer, published and in GGUF; what is not here is composed below.
_LAYER_NAMES = {
    "input_layernorm.weight": "attn_norm.weight",
    "post_attention_layernorm.weight": "ffn_norm.weight",
    **{f"self_attn.{x}_proj.weight": f"attn_{x}.weight" for x in "qkv"},
    **{f"self_attn.{x}_proj.bias": f"attn_{x}.bias" for x in "qkv"},
    "self_attn.q_norm.weight": "attn_q_norm.weight",
    "self_attn.k_norm.weight": "attn_k_norm.weight",
    "self_attn.o_proj.weight": "attn_output.weight",
    "self_attn.q_a_proj.weight": "attn_q_a.weight",
    "self_attn.q_a_layernorm.weight": "attn_q_a_norm.weight",
    "self_attn.q_b_proj.weight": "attn_q_b.weight",
    "self_attn.kv_a_proj_with_mqa.weight": "attn_kv_a_mqa.weight",
    "self_attn.kv_a_layernorm.weight": "attn_kv_a_norm.weight",
    "mlp.gate.weight": "ffn_gate_inp.weight",
    "mlp.gate.e_score_correction_bias": "exp_probs_b.bias",
    **{f"mlp.{x}_proj.weight": f"ffn_{x}.weight" for x in ("gate", "up", "down")},
    **{
        f"mlp.shared_experts.{x}_proj.weight": f"ffn_{x}_shexp.weight"
        for x in ("gate", "up", "down")
    },
}
_KV_B = "self_attn.kv_b_proj.weight"
_TOP_NAMES = {
    EMBEDDING: "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    HEAD: "output.weight",
}
ROPE_FACTORS = "rope_freqs.weight"  # what Llama 3.1 divides each frequency by
_KEPT_FP32 = ("norm.weight", ".bias", "ffn_gate_inp.weight")


@dataclass(frozen=True, slots=True)
class GgufTensor:
    """One GGUF tensor: its shape in numpy's order, and the published tensors that make it.

    heads: of the layouts that are cut by heads. fp32: kept so whatever the file's type.
    """

    name: str
    shape: tuple[int, ...]
    layout: Layout
    sources: tuple[str, ...]
    heads: int = 1

    @property
    def fp32(self) -> bool:
        """Whether it stays float32 whatever type the file is written in, as llama.cpp expects."""
        return self.name.endswith(_KEPT_FP32)


def gguf_tensors(config: ModelConfig | DenseConfig, *, split_kv_b: bool = True) -> list[GgufTensor]:
    """Every tensor of the GGUF file of this config, in the order of the network, MTP left out."""
    top = {
        EMBEDDING: (config.vocab_size, config.hidden_size),
        "model.norm.weight": (config.hidden_size,),
    }
    if not config.tie_word_embeddings:
        top[HEAD] = top[EMBEDDING]
    table = [GgufTensor(_TOP_NAMES[name], top[name], "plain", (name,)) for name in top]
    if isinstance(config, DenseConfig):
        for layer_idx in range(config.num_hidden_layers):
            table += _dense_layer(config, layer_idx)
        return table
    return table + _deepseek_layers(config, split_kv_b)


def pieces(tensor: GgufTensor, read: Read) -> Iterator[Array]:
    """The values of a GGUF tensor from the published ones, in one piece or expert by expert."""
    for source in tensor.sources:
        values = read(source)
        if tensor.layout == "rotary":
            yield rotate_pairs(values, tensor.heads)
        elif tensor.layout == "key_b":
            rank, nope = tensor.shape[1:]
            yield values.reshape(tensor.heads, -1, rank)[:, :nope].transpose(0, 2, 1)
        elif tensor.layout == "value_b":
            width, rank = tensor.shape[1:]
            yield values.reshape(tensor.heads, -1, rank)[:, -width:]
        else:
            yield values


def rotate_pairs(values: Array, heads: int) -> Array:
    """Rows of each head from halves (0, D/2, ...) to neighbours (0, 1, ...), as llama.cpp wants."""
    rest = values.shape[1:]
    return values.reshape(heads, 2, -1, *rest).swapaxes(1, 2).reshape(values.shape)


def rotate_halves(values: Array, heads: int) -> Array:
    """The inverse of `rotate_pairs`."""
    rest = values.shape[1:]
    return values.reshape(heads, -1, 2, *rest).swapaxes(1, 2).reshape(values.shape)


def join_kv_b(key_b: Array, value_b: Array) -> Array:
    """key_b [N, C, nope] and value_b [N, v, C] to kv_b_proj's weight [N * (nope + v), C]"""
    both = np.concatenate([key_b.transpose(0, 2, 1), value_b], axis=1)  # [N, nope + v, C]
    return both.reshape(-1, both.shape[2])


def has_whole_kv_b(names: Collection[str]) -> bool:
    """Whether a file is one of the older ones that carry `kv_b_proj` whole."""
    return "blk.0.attn_kv_b.weight" in names


def _dense_layer(config: DenseConfig, layer_idx: int) -> list[GgufTensor]:
    table: list[GgufTensor] = []
    heads = {
        "self_attn.q_proj.weight": config.num_attention_heads,
        "self_attn.k_proj.weight": config.num_key_value_heads,
    }
    for name, shape in layer_shapes(config).items():
        rotary = config.model_type == "llama" and name in heads
        table.append(
            GgufTensor(
                f"blk.{layer_idx}.{_LAYER_NAMES[name]}",
                shape,
                "rotary" if rotary else "plain",
                (f"model.layers.{layer_idx}.{name}",),
                heads.get(name, 1) if rotary else 1,
            )
        )
    return table


def _deepseek_layers(config: ModelConfig, split_kv_b: bool) -> list[GgufTensor]:
    table: list[GgufTensor] = []
    for place in placements(config):
        model, layers, number, name = (*place.name.split(".", 3), "", "")[:4]
        if (model, layers) != ("model", "layers") or int(number) >= config.num_hidden_layers:
            continue
        block = f"blk.{number}."
        if name.startswith("mlp.experts."):
            if name.startswith("mlp.experts.0.gate_proj"):  # all of a layer at its first
                table += _experts(config, f"model.layers.{number}.", block)
        elif name == _KV_B:
            table += _kv_b(config, block, place.name, place.shape, split_kv_b)
        else:
            new = f"{block}{_LAYER_NAMES[name]}"
            table.append(GgufTensor(new, place.shape, "plain", (place.name,)))
    return table


def _kv_b(
    config: ModelConfig, block: str, source: str, shape: tuple[int, ...], split: bool
) -> list[GgufTensor]:
    if not split:
        return [GgufTensor(f"{block}attn_kv_b.weight", shape, "plain", (source,))]
    heads, rank = config.num_attention_heads, config.kv_lora_rank
    keys, values = (heads, rank, config.qk_nope_head_dim), (heads, config.v_head_dim, rank)
    return [
        GgufTensor(f"{block}attn_k_b.weight", keys, "key_b", (source,), heads),
        GgufTensor(f"{block}attn_v_b.weight", values, "value_b", (source,), heads),
    ]


def _experts(config: ModelConfig, prefix: str, block: str) -> list[GgufTensor]:
    hidden, width, count = config.hidden_size, config.moe_intermediate_size, config.num_experts
    shapes = {"gate": (width, hidden), "up": (width, hidden), "down": (hidden, width)}
    return [
        GgufTensor(
            f"{block}ffn_{kind}_exps.weight",
            (count, *shape),
            "experts",
            tuple(f"{prefix}mlp.experts.{e}.{kind}_proj.weight" for e in range(count)),
        )
        for kind, shape in shapes.items()
    ]
