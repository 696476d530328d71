"""Exact parameter counts of a DeepSeek-V3 or V2 network, without building it.

Every count is a sum of weight shapes as the published checkpoints store them (DeepSeek-V3
`README_WEIGHTS.md`; DeepSeek-V3 report sections 2.1 and 2.2). Two traps:

- `e_score_correction_bias` is a parameter in DeepSeek's reference code and a tensor of the
  checkpoint, but a buffer in transformers. It is counted here; `selection_bias` tells how much to
  subtract for transformers' `num_parameters()`.
- "Active" has three conventions. The embedding is a lookup and costs no arithmetic, the head is a
  matrix product: V3 activates 35.7B without either, 36.6B with the head (what FLOPs follow), 37.6B
  with both. The report says 37B; README_WEIGHTS says 36.7B "including 0.9B for Embedding and 0.9B
  for the output Head", which only the count with one of the two comes near.
"""

from dataclasses import dataclass

from rorqual.config import ModelConfig


@dataclass(frozen=True, kw_only=True)
class Parts:
    """Weights of one layer or of several, by what they are for."""

    attention: int
    norms: int
    dense: int
    router: int
    selection_bias: int
    routed_experts: int
    shared_experts: int

    @property
    def in_layers(self) -> int:
        """All of them."""
        return (
            self.attention
            + self.norms
            + self.dense
            + self.router
            + self.selection_bias
            + self.routed_experts
            + self.shared_experts
        )


@dataclass(frozen=True, kw_only=True)
class LayerParameters(Parts):
    """Weights of one transformer layer; `active` counts only the experts one token visits."""

    active_routed_experts: int

    @property
    def active(self) -> int:
        """What one token passes through."""
        return self.in_layers - self.routed_experts + self.active_routed_experts

    @property
    def active_matmul(self) -> int:
        """Weights that enter a matrix product for one token: norms and bias left out."""
        return self.active - self.norms - self.selection_bias


@dataclass(frozen=True, kw_only=True)
class ParameterCounts(Parts):
    """Counts of the whole network; the MTP modules stand apart from `total`."""

    embedding: int
    head: int
    final_norm: int
    active_without_embeddings: int
    active_with_head: int
    active_with_embeddings: int
    active_matmul: int
    mtp: int
    mtp_active_matmul: int
    mtp_shared: int

    @property
    def total(self) -> int:
        """The main model: embedding, layers, final norm and head."""
        return self.embedding + self.head + self.final_norm + self.in_layers

    @property
    def checkpoint(self) -> int:
        """What the published files hold: the MTP modules bring copies of embedding and head."""
        return self.total + self.mtp + self.mtp_shared


def attention_parameters(config: ModelConfig) -> int:
    """Projections of one MLA block (V3 report eq. 1-11), its two latent norms left out."""
    heads, hidden = config.num_attention_heads, config.hidden_size
    if config.q_lora_rank is None:
        query = hidden * heads * config.qk_head_dim
    else:
        query = config.q_lora_rank * (hidden + heads * config.qk_head_dim)
    latent = hidden * (config.kv_lora_rank + config.qk_rope_head_dim)
    key_value = config.kv_lora_rank * heads * (config.qk_nope_head_dim + config.v_head_dim)
    return query + latent + key_value + heads * config.v_head_dim * hidden


def layer_parameters(config: ModelConfig, layer_idx: int) -> LayerParameters:
    """Weights of layer `layer_idx`; an MTP module's block is layer num_hidden_layers + k."""
    hidden, routes = config.hidden_size, config.is_moe_layer(layer_idx)
    expert = 3 * hidden * config.moe_intermediate_size
    return LayerParameters(
        attention=attention_parameters(config),
        norms=2 * hidden + (config.q_lora_rank or 0) + config.kv_lora_rank,
        dense=0 if routes else 3 * hidden * config.intermediate_size,
        router=config.num_experts * hidden if routes else 0,
        selection_bias=config.num_experts if routes and config.uses_selection_bias else 0,
        routed_experts=config.num_experts * expert if routes else 0,
        shared_experts=3 * hidden * config.shared_intermediate_size if routes else 0,
        active_routed_experts=config.num_experts_per_tok * expert if routes else 0,
    )


def count_parameters(config: ModelConfig) -> ParameterCounts:
    """Every count of `config`, exact to the last weight."""
    hidden = config.hidden_size
    layers = [layer_parameters(config, idx) for idx in range(config.num_hidden_layers)]
    embedding = config.vocab_size * hidden
    head = 0 if config.tie_word_embeddings else embedding
    active = sum(layer.active for layer in layers) + hidden
    depth = config.num_nextn_predict_layers
    block = layer_parameters(config, config.num_hidden_layers)
    # enorm, hnorm and shared_head.norm beside the block's own; eh_proj maps 2H to H.
    mtp_projection, mtp_norms = 2 * hidden * hidden, 3 * hidden
    return ParameterCounts(
        embedding=embedding,
        head=head,
        final_norm=hidden,
        attention=sum(layer.attention for layer in layers),
        norms=sum(layer.norms for layer in layers),
        dense=sum(layer.dense for layer in layers),
        router=sum(layer.router for layer in layers),
        selection_bias=sum(layer.selection_bias for layer in layers),
        routed_experts=sum(layer.routed_experts for layer in layers),
        shared_experts=sum(layer.shared_experts for layer in layers),
        active_without_embeddings=active,
        active_with_head=active + embedding,
        active_with_embeddings=active + embedding + head,
        active_matmul=sum(layer.active_matmul for layer in layers) + embedding,
        mtp=depth * (block.in_layers + mtp_projection + mtp_norms),
        mtp_active_matmul=depth * (block.active_matmul + mtp_projection + embedding),
        mtp_shared=depth * (embedding + head),
    )
