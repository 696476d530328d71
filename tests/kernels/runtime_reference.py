"""The network in plain numpy, with the rounding of each precision: oracle of the native runtime.

One sequence, no cache, latent attention absorbed as in the runtime (the expanded form is compared
with transformers); choices of experts may be given, so that a rounding error cannot send a token
elsewhere.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from rorqual.config import DenseConfig, ModelConfig
from rorqual.kernels.runtime_layout import Precision, rotation_tables

Floats = NDArray[np.floating]
Read = Callable[[str], Floats]
SPLIT_TOKENS = 256  # kSplitTokens of the runtime


def round_bf16(x: Floats) -> Floats:
    """To the nearest bf16, ties to even."""
    return torch.from_numpy(np.array(x, np.float32)).bfloat16().float().numpy()


def quantise(x: Floats) -> tuple[Floats, Floats]:
    """Symmetric int8 of each row: integers (as floats), scales [rows, 1]."""
    most = np.abs(x).max(axis=-1, keepdims=True)
    factor = np.divide(np.float32(127), most, out=np.zeros_like(most), where=most > 0)
    return np.rint(x * factor), most / np.float32(127)


def round_groups(x: Floats) -> Floats:
    """Each 32 successive values of a row as symmetric int8: what int4 weights multiply."""
    padded = np.zeros((len(x), -(-x.shape[1] // 32) * 32), np.float32)
    padded[:, : x.shape[1]] = x
    integers, scales = quantise(padded.reshape(len(x), -1, 32))
    return (integers * scales).reshape(padded.shape)[:, : x.shape[1]]


def round_int4(x: Floats) -> Floats:
    """Rows in groups of 32 on 16 even levels; native/step_levels.h says how they are chosen.

    In sixteenths of a row's scale a weight is step * (16 * level - zero).
    """
    rows, depth = x.shape
    padded = np.zeros((rows, -(-depth // 32) * 32), np.float32)
    padded[:, :depth] = x
    groups = padded.reshape(rows, -1, 32)
    widest = (groups.max(-1, initial=0) - groups.min(-1, initial=0)).max(1)[:, None, None]
    scale = widest / np.float32(15 * 255)  # [rows, 1, 1]
    inverse = np.divide(np.float32(16), scale, out=np.zeros_like(scale), where=scale > 0)
    values = np.rint(groups * inverse)
    shape = (*groups.shape[:2], 1)
    best = (np.ones(shape), np.zeros(shape))  # step and zero
    least = np.full(shape, 2.0**31 - 1)

    def levels(step: Floats, zero: Floats) -> Floats:
        part = np.float32(1) / (16 * step).astype(np.float32)
        return np.rint(np.clip((values + step * zero).astype(np.float32) * part, 0, 15))

    def weights(step: Floats, zero: Floats) -> Floats:
        return step * (16.0 * levels(step, zero) - zero)

    def attempt(step: Floats, zero_of: Callable[[Floats], Floats]) -> None:
        nonlocal best, least
        step = np.rint(np.clip(step, 1, 255))
        zero = np.rint(np.clip(zero_of(step), 0, 255))
        error = np.square(np.clip(weights(step, zero) - values, -8000, 8000)).sum(-1, keepdims=True)
        best = tuple(
            np.where(error < least, new, old) for new, old in zip((step, zero), best, strict=True)
        )
        least = np.minimum(error, least)

    left = np.float32(0.92)
    low, high = values.min(-1, keepdims=True, initial=0), values.max(-1, keepdims=True, initial=0)
    for cut in range(4):
        bottom = np.rint(low * left) if cut & 1 else low
        top = np.rint(high * left) if cut & 2 else high
        attempt((top - bottom).astype(np.float64) / 240, lambda step, bottom=bottom: -bottom / step)
    total = values.sum(-1, keepdims=True, dtype=np.float64)
    for _ in range(2):
        found = levels(*best).astype(np.float64)
        count = found.sum(-1, keepdims=True)
        spread = 32 * np.square(found).sum(-1, keepdims=True) - count * count
        shared = 32 * (found * values).sum(-1, keepdims=True) - count * total
        step = np.divide(shared, 16 * spread, out=np.zeros(shape), where=spread > 0)
        attempt(step, lambda step, count=count: (16 * step * count - total) / (32 * step))
    return (weights(*best) * (scale / 16)).reshape(padded.shape)[:, :depth]


@dataclass(frozen=True)
class Weights:
    """Published tensors with the rounding of a precision."""

    read: Read
    precision: Precision
    rounds_rows: bool = False

    def fine(self, name: str) -> Floats:
        """A matrix that int8 leaves in bf16."""
        matrix = self.read(name)
        return matrix if self.precision == "fp32" else round_bf16(matrix)

    def cached(self, x: Floats) -> Floats:
        """What the cache gives back of x."""
        return x if self.precision == "fp32" else round_bf16(x)

    def linear(self, x: Floats, name: str) -> Floats:
        """x W^T. [T, in] -> [T, out]"""
        if self.precision in ("fp32", "bf16"):
            head = "embed" in name or "lm_head" in name
            x = round_bf16(x) if self.rounds_rows and self.precision == "bf16" and not head else x
            return x @ self.fine(name).T
        if self.precision == "int4" and "embed" not in name and "lm_head" not in name:
            weight = round_int4(self.read(name)).astype(np.float64)
            return (round_groups(x).astype(np.float64) @ weight.T).astype(np.float32)
        (a, a_scale), (b, b_scale) = quantise(x), quantise(self.read(name))
        exact = a.astype(np.float64) @ b.astype(np.float64).T
        return (exact.astype(np.float32) * b_scale.T) * a_scale


def rms_norm(x: Floats, weight: Floats, eps: float) -> Floats:
    mean = (x * x).mean(axis=-1, keepdims=True, dtype=np.float32)
    return x / np.sqrt(mean + np.float32(eps)) * weight


def softmax(x: Floats) -> Floats:
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def silu(x: Floats) -> Floats:
    return x / (1 + np.exp(-x))


def attend(w: Weights, q: Floats, k: Floats, v: Floats) -> Floats:
    """Causal attention of one head over the cache: scaled [T, D], [T, D], [T, Dv] -> [T, Dv]

    Weights are relative to the largest score so far, 256 tokens at a time: where they are rounded,
    that decides to what.
    """
    rounds = w.rounds_rows and w.precision != "fp32" and q.shape[1] % 2 == 0
    scores = (round_bf16(q) if rounds else q) @ k.T
    scores[np.triu_indices(len(q), 1)] = -np.inf
    most, total, mixed = np.full((len(q), 1), -np.inf, np.float32), np.float32(0), np.float32(0)
    for begin in range(0, len(q), SPLIT_TOKENS):
        split = slice(begin, begin + SPLIT_TOKENS)
        older, most = most, np.maximum(most, scores[:, split].max(axis=-1, keepdims=True))
        weights, correction = np.exp(scores[:, split] - most), np.exp(older - most)
        total = total * correction + weights.sum(axis=-1, keepdims=True)
        mixed = mixed * correction + (round_bf16(weights) if rounds else weights) @ v[split]
    return mixed / total


def rotate_pairs(x: Floats, cos: Floats, sin: Floats) -> Floats:
    even, odd = x[..., 0::2], x[..., 1::2]
    return np.stack((even * cos - odd * sin, odd * cos + even * sin), -1).reshape(x.shape)


def rotate_halves(x: Floats, cos: Floats, sin: Floats) -> Floats:
    low, high = np.split(x, 2, axis=-1)
    return np.concatenate((low * cos - high * sin, high * cos + low * sin), axis=-1)


def latent_attention(w: Weights, config: ModelConfig, x: Floats, name: str) -> Floats:
    heads, rank = config.num_attention_heads, config.kv_lora_rank
    nope = config.qk_nope_head_dim
    cos, sin = (table[: len(x)] for table in rotation_tables(config))
    if config.q_lora_rank is None:
        q = w.linear(x, f"{name}.q_proj.weight")
    else:
        latent = w.linear(x, f"{name}.q_a_proj.weight")
        latent = rms_norm(latent, w.read(f"{name}.q_a_layernorm.weight"), 1e-6)
        q = w.linear(latent, f"{name}.q_b_proj.weight")
    q = q.reshape(len(x), heads, -1)
    compressed = w.linear(x, f"{name}.kv_a_proj_with_mqa.weight")
    latent = rms_norm(compressed[:, :rank], w.read(f"{name}.kv_a_layernorm.weight"), 1e-6)
    latent = w.cached(latent)
    k_rope = w.cached(rotate_pairs(compressed[:, rank:], cos, sin))
    kv_b = w.fine(f"{name}.kv_b_proj.weight").reshape(heads, -1, rank)
    key, scale = np.concatenate((latent, k_rope), -1), np.float32(config.softmax_scale)
    out = []
    for head in range(heads):
        absorbed = q[:, head, :nope] * scale @ kv_b[head, :nope]
        query = np.concatenate((absorbed, rotate_pairs(q[:, head, nope:], cos, sin) * scale), -1)
        out.append(attend(w, query, key, latent) @ kv_b[head, nope:].T)
    return w.linear(np.concatenate(out, -1), f"{name}.o_proj.weight")


def grouped_attention(w: Weights, config: DenseConfig, x: Floats, name: str) -> Floats:
    cos, sin = (table[: len(x)] for table in rotation_tables(config))
    parts = {}
    for letter in "qkv":
        part = w.linear(x, f"{name}.{letter}_proj.weight")
        if config.attention_bias:
            part = part + w.read(f"{name}.{letter}_proj.bias")
        part = part.reshape(len(x), -1, config.head_dim).swapaxes(0, 1)  # [heads, T, D]
        if letter != "v":
            if config.qk_norm:
                part = rms_norm(part, w.read(f"{name}.{letter}_norm.weight"), config.rms_norm_eps)
            part = rotate_halves(part, cos, sin)
        parts[letter] = part if letter == "q" else w.cached(part)
    sharing = config.num_attention_heads // config.num_key_value_heads
    scale = np.float32(config.softmax_scale)
    out = [
        attend(w, q * scale, parts["k"][head // sharing], parts["v"][head // sharing])
        for head, q in enumerate(parts["q"])
    ]
    return w.linear(np.concatenate(out, -1), f"{name}.o_proj.weight")


def swiglu(w: Weights, x: Floats, name: str) -> Floats:
    gate, up = w.linear(x, f"{name}.gate_proj.weight"), w.linear(x, f"{name}.up_proj.weight")
    return w.linear(silu(gate) * up, f"{name}.down_proj.weight")


def experts(w: Weights, config: ModelConfig, x: Floats, name: str, routes: NDArray) -> Floats:
    """Shared and routed experts; routes [T, K] are given."""
    out = np.zeros_like(x)
    if config.shared_intermediate_size:
        out += swiglu(w, x, f"{name}.shared_experts")
    logits = x @ w.read(f"{name}.gate.weight").T
    scores = 1 / (1 + np.exp(-logits)) if config.scoring_func == "sigmoid" else softmax(logits)
    weight = np.take_along_axis(scores, routes.astype(np.int64), axis=1)  # [T, K]
    if config.norm_topk_prob and config.num_experts_per_tok > 1:
        weight = weight / weight.sum(axis=1, keepdims=True)
    if not (config.norm_topk_prob and config.model_type == "deepseek_v2"):
        weight = weight * np.float32(config.routed_scaling_factor)
    for expert in range(config.num_experts):
        rows, slots = np.nonzero(routes == expert)
        if len(rows):
            part = swiglu(w, x[rows], f"{name}.experts.{expert}")
            out[rows] += weight[rows, slots, None] * part
    return out


def forward(
    config: ModelConfig | DenseConfig,
    read: Read,
    tokens: NDArray[np.int32],
    precision: Precision,
    routes: NDArray[np.int16] | None,
    *,
    rounds_rows: bool = False,
) -> Floats:
    """Logits [T, V] of one sequence; routes [T, MoE layers, K].

    rounds_rows: bf16 weights multiply rows rounded to bf16, those of the head apart, and a cache
    of bf16 queries and weights rounded to bf16.
    """
    w = Weights(read, precision, rounds_rows)
    x = w.fine("model.embed_tokens.weight")[tokens]
    for layer in range(config.num_hidden_layers):
        name = f"model.layers.{layer}"
        normed = rms_norm(x, read(f"{name}.input_layernorm.weight"), config.rms_norm_eps)
        if isinstance(config, DenseConfig):
            x = x + grouped_attention(w, config, normed, f"{name}.self_attn")
        else:
            x = x + latent_attention(w, config, normed, f"{name}.self_attn")
        normed = rms_norm(x, read(f"{name}.post_attention_layernorm.weight"), config.rms_norm_eps)
        if isinstance(config, ModelConfig) and config.is_moe_layer(layer):
            assert routes is not None
            chosen = routes[:, layer - config.first_k_dense_replace]
            x = x + experts(w, config, normed, f"{name}.mlp", chosen)
        else:
            x = x + swiglu(w, normed, f"{name}.mlp")
    normed = rms_norm(x, read("model.norm.weight"), config.rms_norm_eps)
    tied = config.tie_word_embeddings
    return w.linear(normed, "model.embed_tokens.weight" if tied else "lm_head.weight")
