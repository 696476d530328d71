"""The dense families that R1 was distilled into: Llama, Qwen2 and Qwen3, by their published fields.

One network in three variants: RMSNorm before grouped-query attention and a SwiGLU feed-forward.
Qwen2 adds biases to q, k and v; Qwen3 normalises each query and key head. All rotate the two
halves of a head against each other (`rotate_half`), unlike DeepSeek's neighbouring pairs.

NOTE: `attn_factor` in a published YaRN table (DeepSeek-R1-0528-Qwen3-8B) multiplies the default
attention factor, as vLLM and llama.cpp read it; transformers ignores that key and reads
`attention_factor`, which replaces the default.
"""

import difflib
import json
import math
from pathlib import Path
from typing import Any, Literal, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from rorqual.config.model import ModelConfig, first_error, model_config_from_hf, yarn_mscale
from rorqual.errors import CheckpointError, ConfigError

DENSE_FAMILIES = ("llama", "qwen2", "qwen3")
_ARCHITECTURES = {
    "llama": "LlamaForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
}
# Present in published files, without effect on what the network computes.
_INERT_KEYS = frozenset(
    """architectures auto_map transformers_version use_cache pretraining_tp attention_dropout
    torch_dtype dtype initializer_range quantization_config rope_parameters sliding_window
    max_window_layers is_llama_config rope_interleaved transformers.js_config output_router_logits
    return_dict output_hidden_states output_attentions chunk_size_feed_forward problem_type
    id2label label2id is_encoder_decoder _name_or_path use_mrope unsloth_fixed
    _attn_implementation_autoset""".split()
)
# Published with one value only; anything else would silently compute another network.
_FIXED_VALUES: dict[str, Any] = {
    "hidden_act": "silu",
    "mlp_bias": False,
    "use_sliding_window": False,
    "rope_interleaved": False,
    "use_mrope": False,
}
_ROPE_NAMES = frozenset(("rope_type", "type", "rope_theta", "partial_rotary_factor"))


class Llama3RopeConfig(BaseModel):
    """Llama 3.1's context extension: slow rotations divided by factor, fast ones left alone."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rope_type: Literal["llama3"] = Field("llama3", description="which extension this is")
    factor: float = Field(ge=1, description="what the slowest rotations are divided by")
    low_freq_factor: float = Field(gt=0, description="fewer turns than this in a context: divided")
    high_freq_factor: float = Field(gt=0, description="more turns than this in a context: kept")
    original_max_position_embeddings: int = Field(gt=0, description="context before extension")

    @model_validator(mode="after")
    def _ordered(self) -> "Llama3RopeConfig":
        if self.high_freq_factor <= self.low_freq_factor:
            raise ValueError(
                f"high_freq_factor={self.high_freq_factor} is not above low_freq_factor="
                f"{self.low_freq_factor}; the published values are 4 and 1"
            )
        return self


class DenseYarnConfig(BaseModel):
    """YaRN (arXiv 2309.00071) as transformers reads it for these families."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rope_type: Literal["yarn"] = Field("yarn", description="which extension this is")
    factor: float = Field(ge=1, description="context extension factor s")
    original_max_position_embeddings: int = Field(gt=0, description="context before extension")
    beta_fast: float = Field(32, description="rotations above which a dimension is left alone")
    beta_slow: float = Field(1, description="rotations below which a dimension is interpolated")
    attention_factor: float | None = Field(
        None, gt=0, description="multiplies cosines and sines; None: 0.1 ln(factor) + 1"
    )


class DenseConfig(BaseModel):
    """The shape of one Llama, Qwen2 or Qwen3 network."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    model_type: Literal["llama", "qwen2", "qwen3"] = Field(description="which published family")
    vocab_size: int = Field(gt=0, description="rows of the embedding and the head")
    hidden_size: int = Field(gt=0, description="width of the residual stream (H)")
    intermediate_size: int = Field(gt=0, description="width of the feed-forward layers")
    num_hidden_layers: int = Field(gt=0, description="transformer layers")
    num_attention_heads: int = Field(gt=0, description="query heads (N)")
    num_key_value_heads: int = Field(gt=0, description="cached heads, each shared by N / this many")
    head_dim: int = Field(gt=0, multiple_of=2, description="width of a head (D)")
    rms_norm_eps: float = Field(1e-6, gt=0, description="added to the mean square in RMSNorm")
    rope_theta: float = Field(10000.0, gt=0, description="RoPE base")
    rope_scaling: Llama3RopeConfig | DenseYarnConfig | None = Field(
        None, discriminator="rope_type", description="context extension; None: plain RoPE"
    )
    tie_word_embeddings: bool = Field(False, description="head shares the embedding's weight")
    attention_bias: bool = Field(False, description="biases on q, k and v (Qwen2)")
    max_position_embeddings: int = Field(gt=0, description="longest context in tokens")
    bos_token_id: int | None = Field(None, ge=0, description="first token; None: the family has no")
    eos_token_id: int | tuple[int, ...] | None = Field(
        None, description="token or tokens that end an answer"
    )
    pad_token_id: int | None = Field(None, description="padding token; None: end token")

    @model_validator(mode="after")
    def _consistent(self) -> "DenseConfig":
        if self.num_attention_heads % self.num_key_value_heads:
            raise ValueError(
                f"num_attention_heads={self.num_attention_heads} is not a multiple of "
                f"num_key_value_heads={self.num_key_value_heads}; each cached head serves equally "
                "many query heads"
            )
        if self.attention_bias != (self.model_type == "qwen2"):
            raise ValueError(
                f"attention_bias={self.attention_bias} with model_type={self.model_type}; only "
                "qwen2 has biases, and always has them"
            )
        return self

    @property
    def qk_norm(self) -> bool:
        """Whether each query and key head is normalised (RMSNorm over D) before rotation."""
        return self.model_type == "qwen3"

    @property
    def eos_token_ids(self) -> tuple[int, ...]:
        """The end tokens as a tuple; empty where the file names none."""
        if self.eos_token_id is None:
            return ()
        return self.eos_token_id if isinstance(self.eos_token_id, tuple) else (self.eos_token_id,)

    @property
    def softmax_scale(self) -> float:
        """1/sqrt(head_dim); YaRN's attention factor is in the cosines and sines instead."""
        return self.head_dim**-0.5

    @property
    def rope_attention_factor(self) -> float:
        """What cosines and sines are multiplied by: 1 except under YaRN."""
        if not isinstance(self.rope_scaling, DenseYarnConfig):
            return 1.0
        given = self.rope_scaling.attention_factor
        return yarn_mscale(self.rope_scaling.factor, 1.0) if given is None else given

    def rope_frequencies(self) -> list[float]:
        """Radians per position of each rotated pair (i, i + D/2), extension included. [D/2]"""
        half = self.head_dim // 2
        plain = [self.rope_theta ** (-index / half) for index in range(half)]
        if isinstance(self.rope_scaling, Llama3RopeConfig):
            return [frequency / llama3_divisor(frequency, self.rope_scaling) for frequency in plain]
        if isinstance(self.rope_scaling, DenseYarnConfig):
            return _yarn_frequencies(plain, self.rope_theta, self.rope_scaling)
        return plain


def llama3_divisor(frequency: float, scaling: Llama3RopeConfig) -> float:
    """What Llama 3.1 divides a rotation frequency by: between 1 (fast) and `factor` (slow)."""
    turns = scaling.original_max_position_embeddings * frequency / (2 * math.pi)
    if turns < scaling.low_freq_factor:
        return scaling.factor
    if turns > scaling.high_freq_factor:
        return 1.0
    span = scaling.high_freq_factor - scaling.low_freq_factor
    kept = (turns - scaling.low_freq_factor) / span
    return 1.0 / ((1 - kept) / scaling.factor + kept)


def _yarn_frequencies(plain: list[float], theta: float, scaling: DenseYarnConfig) -> list[float]:
    """YaRN section 3.2: a ramp between interpolated and untouched dimensions."""
    half = len(plain)

    def dimension_at(rotations: float) -> float:
        context = scaling.original_max_position_embeddings
        return half * math.log(context / (rotations * 2 * math.pi)) / math.log(theta)

    low = max(math.floor(dimension_at(scaling.beta_fast)), 0)
    high = min(math.ceil(dimension_at(scaling.beta_slow)), 2 * half - 1)
    span = max(high - low, 0.001)
    found: list[float] = []
    for index, frequency in enumerate(plain):
        interpolated = min(max((index - low) / span, 0.0), 1.0)
        found.append(frequency * (interpolated / scaling.factor + 1 - interpolated))
    return found


def dense_config_from_hf(raw: dict[str, Any]) -> DenseConfig:
    """A DenseConfig from a published config.json; ConfigError names what does not fit."""
    family = raw.get("model_type")
    if family not in DENSE_FAMILIES:
        raise ConfigError(
            f"config.json: model_type={family!r}, expected one of {', '.join(DENSE_FAMILIES)}"
        )
    _check_fixed(raw)
    values: dict[str, Any] = {}
    for key, value in raw.items():
        if key in DenseConfig.model_fields:
            values[key] = value
        elif key not in _INERT_KEYS | _FIXED_VALUES.keys() | {"layer_types"}:
            nearest = difflib.get_close_matches(key, list(DenseConfig.model_fields), n=1)
            hint = f"did you mean {nearest[0]}?" if nearest else "remove it"
            raise ConfigError(f"config.json: unknown key {key!r}; {hint}")
    if family == "llama" and values.get("num_key_value_heads") is None:
        values["num_key_value_heads"] = values.get("num_attention_heads")
    if values.get("head_dim") is None:
        values["head_dim"] = _default_head_dim(raw)
    if family == "qwen2":
        values["attention_bias"] = raw.get("attention_bias", True)
    values.update(_rope_from(raw))
    try:
        return DenseConfig(**values)
    except ValidationError as error:
        raise ConfigError(f"config.json: {first_error(error)}") from error


def dense_config_to_hf(config: DenseConfig, *, dtype: str) -> dict[str, Any]:
    """The config.json dictionary that transformers, vLLM and SGLang read; dtype e.g. 'float32'."""
    raw: dict[str, Any] = {
        "architectures": [_ARCHITECTURES[config.model_type]],
        **config.model_dump(mode="json", exclude={"rope_scaling"}),
        "hidden_act": "silu",
        "torch_dtype": dtype,
        "rope_scaling": None,
    }
    if config.rope_scaling is not None:
        raw["rope_scaling"] = config.rope_scaling.model_dump(exclude_none=True)
    return raw


def any_config_from_hf(raw: dict[str, Any]) -> ModelConfig | DenseConfig:
    """The config of any family that the engine serves, by its `model_type`."""
    family = raw.get("model_type")
    if family in DENSE_FAMILIES:
        return dense_config_from_hf(raw)
    if family in ("deepseek_v3", "deepseek_v2"):
        return model_config_from_hf(raw)
    raise ConfigError(
        f"config.json: model_type={family!r}, expected one of deepseek_v3, deepseek_v2, "
        f"{', '.join(DENSE_FAMILIES)}; other families are not served here"
    )


def read_any_config(path: Path) -> ModelConfig | DenseConfig:
    """Read `config.json` from a file or model directory, of any family that the engine serves."""
    file = path / "config.json" if path.is_dir() else path
    try:
        raw: Any = json.loads(file.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{file}: not valid JSON ({error}); fetch it again") from error
    except OSError as error:
        raise CheckpointError(f"{file}: not found; is this a model directory?") from error
    if not isinstance(raw, dict):
        raise CheckpointError(f"{file}: expected a JSON object; fetch it again")
    return any_config_from_hf(cast("dict[str, Any]", raw))


def _check_fixed(raw: dict[str, Any]) -> None:
    for key, expected in _FIXED_VALUES.items():
        if raw.get(key, expected) != expected:
            raise ConfigError(f"config.json: {key}={raw[key]!r}, only {expected!r} is supported")
    kinds = cast("list[str]", raw.get("layer_types") or [])
    other = sorted(set(kinds) - {"full_attention"})
    if other:
        raise ConfigError(
            f"config.json: layer_types names {other[0]!r}, only 'full_attention' is supported"
        )


def _default_head_dim(raw: dict[str, Any]) -> int | None:
    """What the families take where a file does not say: Qwen3 128, the others an equal share."""
    hidden, heads = raw.get("hidden_size"), raw.get("num_attention_heads")
    if raw["model_type"] == "qwen3":
        return 128
    if not isinstance(hidden, int) or not isinstance(heads, int) or heads <= 0:
        return None  # those fields' own errors come first
    if hidden % heads:
        raise ConfigError(
            f"config.json: hidden_size={hidden} is not a multiple of num_attention_heads={heads}; "
            "give head_dim"
        )
    return hidden // heads


def _rope_from(raw: dict[str, Any]) -> dict[str, Any]:
    """rope_theta and rope_scaling from either spelling."""
    parameters: dict[str, Any] = dict(raw.get("rope_parameters") or {})
    scaling: dict[str, Any] = dict(raw.get("rope_scaling") or {}) or parameters
    theta = raw.get("rope_theta", parameters.get("rope_theta", 10000.0))
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    if scaling.get("partial_rotary_factor", 1.0) != 1.0:
        raise ConfigError(
            f"config.json: partial_rotary_factor={scaling['partial_rotary_factor']!r}, only 1 is "
            "supported"
        )
    if kind == "default":
        return {"rope_theta": theta, "rope_scaling": None}
    if kind not in ("llama3", "yarn"):
        raise ConfigError(
            f"config.json: rope type {kind!r} is not one of 'default', 'llama3', 'yarn'; convert "
            "the checkpoint or remove rope_scaling"
        )
    values = {key: value for key, value in scaling.items() if key not in _ROPE_NAMES}
    if kind == "yarn" and "attn_factor" in values:
        # vLLM's and llama.cpp's key: beside the default factor, not instead of it.
        values["attention_factor"] = float(values.pop("attn_factor")) * yarn_mscale(
            float(values.get("factor", 1.0)), 1.0
        )
    return {"rope_theta": theta, "rope_scaling": {"rope_type": kind, **values}}
