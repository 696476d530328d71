"""What a model is: DeepSeek's own `config.json` fields, read from and written to that file.

Field names are DeepSeek's, so a published `config.json` loads without a rename table. Both
spellings of the rope and dtype keys in circulation are read (`rope_scaling` + `rope_theta` +
`torch_dtype`, and transformers' newer `rope_parameters` + `dtype`). Keys that carry no meaning
for the architecture are listed in `_INERT_KEYS`; any other unknown key is an error.

Source: DeepSeek-V3 technical report (arXiv 2412.19437) section 4.2 and the published configs.
"""

import difflib
import json
import math
from pathlib import Path
from typing import Any, Literal, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from rorqual.errors import CheckpointError, ConfigError

# Present in published files, without effect on what the network computes.
_INERT_KEYS = frozenset(
    """architectures auto_map transformers_version use_cache ep_size pretraining_tp
    attention_dropout moe_layer_freq hidden_act attention_bias num_key_value_heads
    quantization_config torch_dtype dtype rope_interleave rope_parameters head_dim qk_head_dim
    output_router_logits return_dict output_hidden_states output_attentions chunk_size_feed_forward
    problem_type id2label label2id is_encoder_decoder _name_or_path mlp_bias
    num_local_experts""".split()
)
# Published with one value only; anything else would silently compute another network.
_FIXED_VALUES: dict[str, Any] = {
    "hidden_act": "silu",
    "attention_bias": False,
    "moe_layer_freq": 1,
    "mlp_bias": False,
}


class YarnConfig(BaseModel):
    """YaRN context extension of the decoupled RoPE key (DeepSeek-V3 section 4.3)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    factor: float = Field(gt=1, description="context extension factor s")
    original_max_position_embeddings: int = Field(gt=0, description="context before extension")
    beta_fast: float = Field(32, description="rotations above which a dimension is left alone")
    beta_slow: float = Field(1, description="rotations below which a dimension is interpolated")
    mscale: float = Field(1.0, description="attention temperature coefficient, numerator")
    mscale_all_dim: float = Field(0.0, description="the same, applied to the softmax scale")


class ModelConfig(BaseModel):
    """The shape of one DeepSeek-V3 or V2 architecture network."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    model_type: Literal["deepseek_v3", "deepseek_v2"] = Field(
        "deepseek_v3", description="which published family the file belongs to"
    )
    vocab_size: int = Field(gt=0, description="rows of the embedding and the head")
    hidden_size: int = Field(gt=0, description="width of the residual stream (H)")
    intermediate_size: int = Field(gt=0, description="width of the dense feed-forward layers")
    num_hidden_layers: int = Field(gt=0, description="transformer layers, MTP modules excluded")
    num_attention_heads: int = Field(gt=0, description="query heads (N)")
    q_lora_rank: int | None = Field(None, description="query latent width (Q); None: direct q_proj")
    kv_lora_rank: int = Field(gt=0, description="cached key-value latent width (C)")
    qk_nope_head_dim: int = Field(gt=0, description="query/key width without position")
    qk_rope_head_dim: int = Field(gt=0, multiple_of=2, description="rotated width (R)")
    v_head_dim: int = Field(gt=0, description="value width per head")
    moe_intermediate_size: int = Field(1, gt=0, description="width of one expert (F)")
    n_routed_experts: int | None = Field(None, description="routed experts (E); None: all dense")
    n_shared_experts: int | None = Field(None, description="experts every token passes")
    num_experts_per_tok: int = Field(1, gt=0, description="routed experts per token (K)")
    n_group: int = Field(1, gt=0, description="expert groups for group-limited routing")
    topk_group: int = Field(1, gt=0, description="groups a token may use")
    first_k_dense_replace: int = Field(0, ge=0, description="leading layers with a dense MLP")
    scoring_func: Literal["sigmoid", "softmax"] = Field(
        "sigmoid", description="router affinity: V3 sigmoid, V2 softmax"
    )
    topk_method: Literal["noaux_tc", "group_limited_greedy", "greedy"] = Field(
        "noaux_tc",
        description="noaux_tc: bias-corrected, group score is the sum of the two best; "
        "group_limited_greedy: group score is the maximum; greedy: no groups",
    )
    norm_topk_prob: bool = Field(True, description="normalise the chosen weights to sum 1")
    routed_scaling_factor: float = Field(1.0, description="multiplies the routed output weights")
    aux_loss_alpha: float = Field(1e-4, ge=0, description="weight of the balance loss")
    seq_aux: bool = Field(True, description="balance loss per sequence; false: over the batch")
    num_nextn_predict_layers: int = Field(0, ge=0, description="MTP modules")
    max_position_embeddings: int = Field(4096, gt=0, description="longest context in tokens")
    rope_theta: float = Field(10000.0, gt=0, description="RoPE base")
    rope_scaling: YarnConfig | None = Field(None, description="YaRN; None: plain RoPE")
    rms_norm_eps: float = Field(1e-6, gt=0, description="added to the mean square in RMSNorm")
    initializer_range: float = Field(0.02, gt=0, description="std of initial weights (V3: 0.006)")
    tie_word_embeddings: bool = Field(False, description="head shares the embedding's weight")
    bos_token_id: int = Field(0, ge=0, description="first token of every document")
    eos_token_id: int = Field(1, ge=0, description="last token of every document")
    pad_token_id: int | None = Field(None, description="padding token; None: eos")

    @model_validator(mode="before")
    @classmethod
    def _dense_has_no_routing(cls, values: dict[str, Any]) -> dict[str, Any]:
        """A network that routes nowhere has one spelling, which keeps configs comparable."""
        names = ("num_hidden_layers", "num_nextn_predict_layers", "first_k_dense_replace")
        layers, modules, first = (values.get(name, 0) for name in names)
        are_counts = all(isinstance(count, int) for count in (layers, modules, first))
        if values.get("n_routed_experts") is None or (are_counts and first >= layers + modules > 0):
            none = {"n_routed_experts": None, "n_shared_experts": None}
            return values | none | {"first_k_dense_replace": 0}
        return values | {"n_shared_experts": values.get("n_shared_experts") or None}

    @model_validator(mode="after")
    def _consistent(self) -> "ModelConfig":
        experts = self.n_routed_experts
        if experts is None:
            return self
        if self.num_experts_per_tok > experts:
            raise ValueError(
                f"num_experts_per_tok={self.num_experts_per_tok} exceeds n_routed_experts="
                f"{experts}; lower it in [model] or add experts"
            )
        if self.topk_method != "greedy":
            if experts % self.n_group:
                raise ValueError(
                    f"n_routed_experts={experts} is not a multiple of n_group={self.n_group}; "
                    "choose a divisor"
                )
            if self.topk_group > self.n_group:
                raise ValueError(
                    f"topk_group={self.topk_group} exceeds n_group={self.n_group}; lower it"
                )
            reachable = self.topk_group * (experts // self.n_group)
            if self.num_experts_per_tok > reachable:
                raise ValueError(
                    f"num_experts_per_tok={self.num_experts_per_tok} exceeds the {reachable} "
                    "experts in topk_group groups; raise topk_group"
                )
        if self.topk_method == "noaux_tc" and experts // self.n_group < 2 and self.n_group > 1:
            raise ValueError(
                f"noaux_tc sums the two best of each group, but n_group={self.n_group} leaves "
                f"{experts // self.n_group} expert a group; lower n_group"
            )
        return self

    @property
    def qk_head_dim(self) -> int:
        """Query and key width per head: nope + rope."""
        return self.qk_nope_head_dim + self.qk_rope_head_dim

    @property
    def num_experts(self) -> int:
        """Routed experts per MoE layer; 0 in a dense model."""
        return self.n_routed_experts or 0

    @property
    def shared_intermediate_size(self) -> int:
        """Width of the fused shared experts; 0 without them."""
        return (self.n_shared_experts or 0) * self.moe_intermediate_size

    @property
    def uses_selection_bias(self) -> bool:
        """Whether the router carries `e_score_correction_bias` (V3's loss-free balancing)."""
        return self.topk_method == "noaux_tc"

    @property
    def softmax_scale(self) -> float:
        """1/sqrt(qk_head_dim), times mscale squared under YaRN (V3 reference code)."""
        scale = self.qk_head_dim**-0.5
        yarn = self.rope_scaling
        if yarn is not None and yarn.mscale_all_dim:
            scale *= yarn_mscale(yarn.factor, yarn.mscale_all_dim) ** 2
        return scale

    def check_completion_length(self, key: str, tokens: int) -> None:
        """ConfigError unless a completion of `tokens`, set by `key`, leaves room for a prompt."""
        if tokens >= self.max_position_embeddings:
            raise ConfigError(
                f"{key}={tokens} leaves no room for a prompt in the model's "
                f"max_position_embeddings={self.max_position_embeddings}; lower it"
            )

    def is_moe_layer(self, layer_idx: int) -> bool:
        """Whether layer `layer_idx` routes; MTP modules are layers num_hidden_layers + k."""
        return self.n_routed_experts is not None and layer_idx >= self.first_k_dense_replace


def yarn_mscale(factor: float, mscale: float) -> float:
    """0.1 * mscale * ln(factor) + 1 (YaRN, arXiv 2309.00071, eq. 22)."""
    return 1.0 if factor <= 1 else 0.1 * mscale * math.log(factor) + 1.0


def _unknown_key_message(key: str) -> str:
    nearest = difflib.get_close_matches(key, list(ModelConfig.model_fields), n=1)
    hint = f"did you mean {nearest[0]}?" if nearest else "remove it"
    return f"config.json: unknown key {key!r}; {hint}"


def _rope_from(raw: dict[str, Any]) -> dict[str, Any]:
    """rope_theta and rope_scaling from either spelling."""
    parameters: dict[str, Any] = dict(raw.get("rope_parameters") or {})
    scaling: dict[str, Any] = dict(raw.get("rope_scaling") or {}) or parameters
    theta = raw.get("rope_theta", parameters.get("rope_theta", 10000.0))
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    if kind == "default":
        return {"rope_theta": theta, "rope_scaling": None}
    if kind != "yarn":
        raise ConfigError(
            f"config.json: rope type {kind!r} is not one of 'default', 'yarn'; "
            "convert the checkpoint or remove rope_scaling"
        )
    yarn = {key: scaling[key] for key in YarnConfig.model_fields if key in scaling}
    return {"rope_theta": theta, "rope_scaling": yarn}


def model_config_from_hf(raw: dict[str, Any]) -> ModelConfig:
    """A ModelConfig from a published config.json; ConfigError names what does not fit."""
    if raw.get("model_type") not in ("deepseek_v3", "deepseek_v2"):
        raise ConfigError(
            f"config.json: model_type={raw.get('model_type')!r}, expected 'deepseek_v3' or "
            "'deepseek_v2'; other families are not trained here"
        )
    for key, expected in _FIXED_VALUES.items():
        if raw.get(key, expected) != expected:
            raise ConfigError(f"config.json: {key}={raw[key]!r}, only {expected!r} is supported")
    heads, kv_heads = raw.get("num_attention_heads"), raw.get("num_key_value_heads")
    if kv_heads is not None and kv_heads != heads:
        raise ConfigError(
            f"config.json: num_key_value_heads={kv_heads} differs from num_attention_heads="
            f"{heads}; MLA has one key-value latent for all heads, so they must be equal"
        )
    values: dict[str, Any] = {}
    for key, value in raw.items():
        if key in ModelConfig.model_fields:
            values[key] = value
        elif key not in _INERT_KEYS:
            raise ConfigError(_unknown_key_message(key))
    values.update(_rope_from(raw))
    if values["model_type"] == "deepseek_v2":
        # V2's own defaults (DeepseekV2Config), where a file leaves them out.
        values.setdefault("scoring_func", "softmax")
        values.setdefault("topk_method", "greedy")
        values.setdefault("norm_topk_prob", False)
    for key in ("n_group", "topk_group"):
        if values.get(key) is None:
            values.pop(key, None)
    try:
        return ModelConfig(**values)
    except ValidationError as error:
        raise ConfigError(f"config.json: {first_error(error)}") from error


def model_config_to_hf(config: ModelConfig, *, dtype: str) -> dict[str, Any]:
    """The config.json dictionary that transformers, vLLM and SGLang read; dtype e.g. 'float32'."""
    v3 = config.model_type == "deepseek_v3"
    raw: dict[str, Any] = {
        "architectures": ["DeepseekV3ForCausalLM" if v3 else "DeepseekV2ForCausalLM"],
        **config.model_dump(exclude={"rope_scaling"}),
        "num_key_value_heads": config.num_attention_heads,
        "hidden_act": "silu",
        "attention_bias": False,
        "moe_layer_freq": 1,
        "torch_dtype": dtype,
        "rope_scaling": None,
        "rope_interleave": True,
    }
    if config.n_shared_experts is None:
        raw["n_shared_experts"] = 0
    if config.n_routed_experts is None:
        # transformers has no dense variant: no layer routes when all are below this index.
        num_layers = config.num_hidden_layers + config.num_nextn_predict_layers
        raw |= {"n_routed_experts": 1, "first_k_dense_replace": num_layers}
    if config.rope_scaling is not None:
        raw["rope_scaling"] = {"type": "yarn", **config.rope_scaling.model_dump()}
    return raw


def read_model_config(path: Path) -> ModelConfig:
    """Read `config.json` from a file or model directory."""
    file = path / "config.json" if path.is_dir() else path
    try:
        raw = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(f"{file}: not found; is this a model directory?") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{file}: not valid JSON ({error}); fetch it again") from error
    if not isinstance(raw, dict):
        raise CheckpointError(f"{file}: expected a JSON object; fetch it again")
    return model_config_from_hf(cast(dict[str, Any], raw))


def first_error(error: ValidationError) -> str:
    """The first pydantic complaint on one line: `section.field: message (got value)`."""
    detail = error.errors()[0]
    where = ".".join(str(part) for part in detail["loc"])
    message = detail["msg"].removeprefix("Value error, ")
    if not where:
        return message
    return f"{where}: {message} (got {detail['input']!r})"
