"""What the planner is told beside the model's shape: the `[plan]` table of a preset.

It holds a training run as published (tokens, GPUs, price) and the published figures that the
planner's own results are compared with, each with its source. Everything has a default, so any
preset with a `[model]` table, and any published `config.json`, can be planned.
"""

import difflib
import tomllib
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rorqual.config.model import ModelConfig, first_error, read_model_config
from rorqual.errors import ConfigError

_Table = TypeVar("_Table", bound=BaseModel)


class PublishedFigure(BaseModel):
    """A figure somebody printed, and where."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    value: float = Field(description="the figure, in the unit of the planner's quantity")
    source: str = Field(min_length=1, description="document and section")


class TrainingPhase(BaseModel):
    """Tokens trained at one sequence length."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    train_tokens: float = Field(gt=0, description="tokens seen in this phase")
    sequence_tokens: int = Field(gt=0, description="length of every training sequence")


class TrainingStage(BaseModel):
    """One row of a published training bill."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$", description="snake_case name, used in keys")
    phases: tuple[TrainingPhase, ...] = Field((), description="empty: token counts unpublished")
    gpu_hours: float | None = Field(None, gt=0, description="published; None: not published")
    source: str = Field("", description="where gpu_hours and phases were published")


class PlanConfig(BaseModel):
    """Assumptions and published facts behind a plan."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sequence_tokens: int = Field(4096, gt=0, description="length at which FLOPs are counted")
    gpu: str = Field("H800", description="a name in the planner's GPU table")
    num_gpus: int = Field(8, gt=0, description="GPUs the run is spread over")
    gpu_hour_usd: float = Field(2.0, gt=0, description="rental price of one GPU for one hour")
    mfu: float | None = Field(
        None, gt=0, le=1, description="share of peak BF16, causal FLOPs; None: no GPU time is given"
    )
    mfu_noncausal: float | None = Field(
        None, gt=0, le=1, description="the same run's share with the full attention square counted"
    )
    measured_tokens_per_day: float | None = Field(
        None, gt=0, description="published throughput of num_gpus; None: not published"
    )
    stages: tuple[TrainingStage, ...] = Field((), description="the training bill, row by row")
    adam_moment_bytes: int = Field(4, gt=0, description="bytes per Adam moment (V3: BF16, 2)")
    micro_batch_tokens: int = Field(4096, gt=0, description="tokens whose activations are alive")
    weight_bytes: float = Field(2, gt=0, description="bytes per weight when serving (V3: FP8, 1)")
    cache_element_bytes: float = Field(2, gt=0, description="bytes per cached element (BF16: 2)")
    serve_context_tokens: int = Field(4096, gt=0, description="cached tokens per served sequence")
    serve_sequences: int = Field(1, gt=0, description="sequences served at once")
    cpu_bytes_per_second: float = Field(25e9, gt=0, description="memory bandwidth of the CPU")
    cpu_flops_per_second: float = Field(150e9, gt=0, description="large-GEMM rate of the CPU")
    published: dict[str, PublishedFigure] = Field(
        default_factory=dict, description="planner quantity key -> published figure"
    )


def read_plan(path: Path, overrides: tuple[str, ...] = ()) -> tuple[ModelConfig, PlanConfig]:
    """Model and plan from a preset TOML, a `config.json` or a model directory.

    `overrides` are `model.key=value` and `plan.key=value`, applied last. Tables of the preset that
    configure other rooms are left to them.
    """
    if path.suffix == ".toml":
        tables = _read_tables(path)
    else:
        tables = {"model": read_model_config(path).model_dump(), "plan": {}}
    for override in overrides:
        _apply(tables, override)
    return _build(ModelConfig, tables, "model", path), _build(PlanConfig, tables, "plan", path)


def _read_tables(path: Path) -> dict[str, dict[str, Any]]:
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid TOML ({error}); correct that line") from error
    if not isinstance(raw.get("model"), dict):
        raise ConfigError(f"{path}: no [model] table; add one with DeepSeek's config fields")
    plan = raw.get("plan", {})
    if not isinstance(plan, dict):
        raise ConfigError(f"{path}: plan={plan!r}, expected a [plan] table")
    return {"model": raw["model"], "plan": plan}


def _apply(tables: dict[str, dict[str, Any]], override: str) -> None:
    where, separator, text = override.partition("=")
    section, dot, key = where.partition(".")
    if not separator or not dot or section not in tables or not key:
        raise ConfigError(f"{override!r}: expected model.key=value or plan.key=value")
    try:
        value: Any = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text  # an unquoted word, as one types it in a shell
    tables[section][key] = None if value == "none" else value


def _build(
    kind: type[_Table], tables: dict[str, dict[str, Any]], section: str, path: Path
) -> _Table:
    for key in tables[section]:
        if key not in kind.model_fields:
            nearest = difflib.get_close_matches(key, list(kind.model_fields), n=1)
            hint = f"did you mean {nearest[0]}?" if nearest else "remove it"
            raise ConfigError(f"{path}: unknown key {section}.{key}; {hint}")
    try:
        return kind(**tables[section])
    except ValidationError as error:
        raise ConfigError(f"{path}: [{section}] {first_error(error)}") from error
