"""Published weight names: what lies where on disk and in memory, from the config alone (no torch).

Our parameter names are the published ones except for routed experts, which are split on disk
(`mlp.experts.E.{gate,up,down}_proj.weight`) and stacked in memory (`mlp.experts.gate_up_proj`
[E, 2F, H] with the gate rows first, `mlp.experts.down_proj` [E, H, F]). One table of placements
serves saving, loading and checking.

MTP modules are layers `num_hidden_layers + k`. As in the published checkpoints each carries
`embed_tokens.weight` and `shared_head.head.weight`, copies of the main model's: they are written,
because other engines look for them there, and on reading may be absent but must not differ.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from rorqual.checkpoint.reading import CheckpointReader
from rorqual.config import ModelConfig
from rorqual.errors import CheckpointError

EMBEDDING = "model.embed_tokens.weight"
HEAD = "lm_head.weight"


@dataclass(frozen=True, slots=True)
class Placement:
    """One tensor on disk and its place in memory.

    It is `parameter` itself, or with `index` the part `parameter[index]`. A `copy` repeats a
    tensor that has its own placement; `written` says whether saving writes it; `keep_fp32` that it
    is stored in fp32 whatever the checkpoint's dtype.
    """

    name: str
    shape: tuple[int, ...]
    parameter: str
    index: tuple[int | slice, ...] = ()
    copy: bool = False
    written: bool = True
    keep_fp32: bool = False


def placements(config: ModelConfig) -> list[Placement]:
    """Every tensor that a checkpoint of this config may hold, in the order of the network."""
    vocabulary = (config.vocab_size, config.hidden_size)
    table = [_whole(EMBEDDING, vocabulary)]
    num_layers = config.num_hidden_layers
    for layer_idx in range(num_layers):
        table += _decoder_layer(config, layer_idx)
    table.append(_whole("model.norm.weight", (config.hidden_size,)))
    if config.tie_word_embeddings:
        table.append(Placement(HEAD, vocabulary, EMBEDDING, copy=True, written=False))
    else:
        table.append(_whole(HEAD, vocabulary))
    for depth in range(config.num_nextn_predict_layers):
        table += _mtp_layer(config, num_layers + depth)
    return table


def mtp_prefixes(config: ModelConfig) -> tuple[str, ...]:
    """Name prefixes of the MTP modules."""
    first, depth = config.num_hidden_layers, config.num_nextn_predict_layers
    return tuple(f"model.layers.{layer_idx}." for layer_idx in range(first, first + depth))


def required_placements(
    config: ModelConfig, reader: CheckpointReader, *, with_mtp: bool
) -> list[Placement]:
    """The placements to load, checked: nothing missing, nothing extra, every shape as it must be.

    Without MTP its tensors may be there or not; copies are listed where the checkpoint has them.
    """
    prefixes = mtp_prefixes(config)
    return match_placements(
        placements(config), reader, config.model_type, prefixes, with_optional=with_mtp
    )


def match_placements(
    places: Iterable[Placement],
    reader: CheckpointReader,
    family: str,
    optional: tuple[str, ...] = (),
    *,
    with_optional: bool = True,
) -> list[Placement]:
    """The placements of a table to load, checked against a checkpoint of that family.

    optional: name prefixes that may be left out of what is required (MTP modules).
    """
    table = {placement.name: placement for placement in places}
    found = set(reader.names())
    extra = sorted(found - table.keys())
    if extra:
        raise CheckpointError(
            f"{reader.where(extra[0])} has no place in a {family} model of this "
            f"config.json ({len(extra)} such tensors); config.json and weights do not belong "
            "together"
        )
    if not with_optional:
        table = {name: p for name, p in table.items() if not name.startswith(optional)}
    missing = [p.name for p in table.values() if p.name not in found and not p.copy]
    if missing:
        _raise_missing(missing, optional, reader)
    wanted = [placement for name, placement in table.items() if name in found]
    for placement in wanted:
        shape = reader.shape(placement.name)
        if shape != placement.shape:
            raise CheckpointError(
                f"{reader.where(placement.name)} has shape {list(shape)}, config.json makes it "
                f"{list(placement.shape)}; config.json and weights do not belong together"
            )
    return wanted


def _raise_missing(missing: list[str], prefixes: tuple[str, ...], reader: CheckpointReader) -> None:
    count = f"{len(missing)} missing in all"
    if prefixes and all(name.startswith(prefixes) for name in missing):
        raise CheckpointError(
            f"{reader.path}: tensor {missing[0]} is missing ({count}, all of MTP modules); load "
            "without MTP or set num_nextn_predict_layers to 0 in config.json"
        )
    raise CheckpointError(
        f"{reader.path}: tensor {missing[0]} is missing ({count}); fetch the checkpoint again, or "
        "the config.json that belongs to it"
    )


def _whole(name: str, shape: tuple[int, ...]) -> Placement:
    return Placement(name, shape, name)


def _decoder_layer(config: ModelConfig, layer_idx: int) -> list[Placement]:
    prefix = f"model.layers.{layer_idx}."
    hidden = config.hidden_size
    table = [_whole(f"{prefix}input_layernorm.weight", (hidden,))]
    table += [
        _whole(f"{prefix}self_attn.{name}.weight", shape)
        for name, shape in _attention_shapes(config).items()
    ]
    table.append(_whole(f"{prefix}post_attention_layernorm.weight", (hidden,)))
    if config.is_moe_layer(layer_idx):
        return table + _moe(config, f"{prefix}mlp.")
    return table + _mlp(f"{prefix}mlp.", hidden, config.intermediate_size)


def _attention_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Weights of one MLA block (V2 section 2.1)."""
    hidden, heads = config.hidden_size, config.num_attention_heads
    query_width = heads * config.qk_head_dim
    query: dict[str, tuple[int, ...]] = {"q_proj": (query_width, hidden)}
    if config.q_lora_rank is not None:
        query = {
            "q_a_proj": (config.q_lora_rank, hidden),
            "q_a_layernorm": (config.q_lora_rank,),
            "q_b_proj": (query_width, config.q_lora_rank),
        }
    rank = config.kv_lora_rank
    return {
        **query,
        "kv_a_proj_with_mqa": (rank + config.qk_rope_head_dim, hidden),
        "kv_a_layernorm": (rank,),
        "kv_b_proj": (heads * (config.qk_nope_head_dim + config.v_head_dim), rank),
        "o_proj": (hidden, heads * config.v_head_dim),
    }


def _mlp(prefix: str, hidden: int, width: int) -> list[Placement]:
    return [
        _whole(f"{prefix}gate_proj.weight", (width, hidden)),
        _whole(f"{prefix}up_proj.weight", (width, hidden)),
        _whole(f"{prefix}down_proj.weight", (hidden, width)),
    ]


def _moe(config: ModelConfig, prefix: str) -> list[Placement]:
    """Router, routed experts (rows of the stacked parameters) and the fused shared experts."""
    hidden, width = config.hidden_size, config.moe_intermediate_size
    table = [_whole(f"{prefix}gate.weight", (config.num_experts, hidden))]
    if config.uses_selection_bias:
        bias = _whole(f"{prefix}gate.e_score_correction_bias", (config.num_experts,))
        table.append(replace(bias, keep_fp32=True))
    gate_up, down = f"{prefix}experts.gate_up_proj", f"{prefix}experts.down_proj"
    gate_rows, up_rows = slice(0, width), slice(width, 2 * width)
    for expert_idx in range(config.num_experts):
        expert = f"{prefix}experts.{expert_idx}."
        table += [
            Placement(
                f"{expert}gate_proj.weight", (width, hidden), gate_up, (expert_idx, gate_rows)
            ),
            Placement(f"{expert}up_proj.weight", (width, hidden), gate_up, (expert_idx, up_rows)),
            Placement(f"{expert}down_proj.weight", (hidden, width), down, (expert_idx,)),
        ]
    if config.shared_intermediate_size:
        table += _mlp(f"{prefix}shared_experts.", hidden, config.shared_intermediate_size)
    return table


def _mtp_layer(config: ModelConfig, layer_idx: int) -> list[Placement]:
    """A decoder layer with its own norms and projection, and copies of embedding and head."""
    prefix = f"model.layers.{layer_idx}."
    hidden = config.hidden_size
    vocabulary = (config.vocab_size, hidden)
    head = EMBEDDING if config.tie_word_embeddings else HEAD
    return [
        Placement(f"{prefix}embed_tokens.weight", vocabulary, EMBEDDING, copy=True),
        _whole(f"{prefix}enorm.weight", (hidden,)),
        _whole(f"{prefix}hnorm.weight", (hidden,)),
        _whole(f"{prefix}eh_proj.weight", (hidden, 2 * hidden)),
        *_decoder_layer(config, layer_idx),
        _whole(f"{prefix}shared_head.norm.weight", (hidden,)),
        Placement(f"{prefix}shared_head.head.weight", vocabulary, head, copy=True),
    ]
