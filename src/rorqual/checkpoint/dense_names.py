"""Published weight names and shapes of Llama, Qwen2 and Qwen3, from the config alone (no torch)."""

from rorqual.checkpoint.hf import EMBEDDING, HEAD, Placement
from rorqual.config import DenseConfig


def dense_placements(config: DenseConfig) -> list[Placement]:
    """Every tensor that a checkpoint of this config may hold, in the order of the network."""
    vocabulary = (config.vocab_size, config.hidden_size)
    table = [Placement(EMBEDDING, vocabulary, EMBEDDING)]
    for layer_idx in range(config.num_hidden_layers):
        for name, shape in layer_shapes(config).items():
            full = f"model.layers.{layer_idx}.{name}"
            table.append(Placement(full, shape, full))
    table.append(Placement("model.norm.weight", (config.hidden_size,), "model.norm.weight"))
    if config.tie_word_embeddings:
        table.append(Placement(HEAD, vocabulary, EMBEDDING, copy=True, written=False))
    else:
        table.append(Placement(HEAD, vocabulary, HEAD))
    return table


def layer_shapes(config: DenseConfig) -> dict[str, tuple[int, ...]]:
    """Names and shapes of one layer's tensors, without the layer's prefix."""
    hidden, width = config.hidden_size, config.intermediate_size
    query = config.num_attention_heads * config.head_dim
    cached = config.num_key_value_heads * config.head_dim
    rows = {"q": query, "k": cached, "v": cached}
    shapes: dict[str, tuple[int, ...]] = {"input_layernorm.weight": (hidden,)}
    shapes |= {f"self_attn.{name}_proj.weight": (size, hidden) for name, size in rows.items()}
    if config.attention_bias:
        shapes |= {f"self_attn.{name}_proj.bias": (size,) for name, size in rows.items()}
    if config.qk_norm:
        shapes |= {f"self_attn.{name}_norm.weight": (config.head_dim,) for name in ("q", "k")}
    return {
        **shapes,
        "self_attn.o_proj.weight": (hidden, query),
        "post_attention_layernorm.weight": (hidden,),
        "mlp.gate_proj.weight": (width, hidden),
        "mlp.up_proj.weight": (width, hidden),
        "mlp.down_proj.weight": (hidden, width),
    }
