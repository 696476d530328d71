"""A run: one TOML file with [model], [data] and [train], then `section.key=value` overrides."""

import difflib
import json
import tomllib
from typing import Any, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from rorqual.config.data import DataConfig
from rorqual.config.model import ModelConfig, first_error
from rorqual.config.presets import find_preset
from rorqual.config.train import TrainConfig
from rorqual.errors import ConfigError


class RunConfig(BaseModel):
    """Everything that determines a pretraining run."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    model: ModelConfig = Field(description="the network")
    data: DataConfig = Field(description="the corpus and its tokens")
    train: TrainConfig = Field(description="the training")

    @model_validator(mode="after")
    def _consistent(self) -> "RunConfig":
        wanted, trained = self.model.vocab_size, self.data.vocab_size
        if self.data.tokenizer is None and trained != wanted:
            raise ValueError(
                f"data.vocab_size={trained} differs from model.vocab_size={wanted}; set both alike"
            )
        if self.train.sequence_length > self.model.max_position_embeddings:
            raise ValueError(
                f"train.sequence_length={self.train.sequence_length} exceeds "
                f"model.max_position_embeddings={self.model.max_position_embeddings}; raise the "
                "latter"
            )
        return self


def load_run_config(name_or_path: str, overrides: tuple[str, ...] = ()) -> RunConfig:
    """Read a preset by name or a TOML (or a run's config.json) by path, then apply overrides."""
    path = find_preset(name_or_path)
    try:
        if path.suffix == ".json":
            raw = json.loads(path.read_text(encoding="utf-8"))
        else:
            raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid {path.suffix[1:].upper()} ({error})") from error
    for override in overrides:
        _apply(raw, override)
    return run_config_from(raw, str(path))


def run_config_from(raw: dict[str, Any], source: str) -> RunConfig:
    """Validate a nested dictionary; `source` names it in errors."""
    for section, values in raw.items():
        if section not in RunConfig.model_fields:
            raise ConfigError(f"{source}: {_unknown(section, list(RunConfig.model_fields))}")
        if not isinstance(values, dict):
            raise ConfigError(f"{source}: [{section}] is not a table; write [{section}] first")
        known = _section_fields(section)
        table = cast(dict[str, Any], values)
        for key in table:
            if key not in known:
                raise ConfigError(f"{source}: {_unknown(f'{section}.{key}', known, section)}")
    try:
        return RunConfig(**raw)
    except ValidationError as error:
        raise ConfigError(f"{source}: {first_error(error)}") from error


def _section_fields(section: str) -> list[str]:
    kinds: dict[str, type[BaseModel]] = {
        "model": ModelConfig,
        "data": DataConfig,
        "train": TrainConfig,
    }
    return list(kinds[section].model_fields)


def _unknown(key: str, known: list[str], section: str = "") -> str:
    last = key.rsplit(".", 1)[-1]
    nearest = difflib.get_close_matches(last, known, n=1)
    prefix = f"{section}." if section else ""
    hint = f"did you mean {prefix}{nearest[0]}?" if nearest else f"known: {', '.join(known)}"
    return f"unknown key {key}; {hint}"


def _apply(raw: dict[str, Any], override: str) -> None:
    """Set `section.key=value` in place; the value is TOML, or a bare word taken as a string."""
    path, separator, text = override.partition("=")
    section, dot, key = path.strip().partition(".")
    if not separator or not dot or not key:
        raise ConfigError(f"override {override!r}: expected section.key=value")
    if section not in RunConfig.model_fields:
        raise ConfigError(
            f"override {override!r}: {_unknown(section, list(RunConfig.model_fields))}"
        )
    try:
        value: Any = tomllib.loads(f"value = {text.strip()}")["value"]
    except tomllib.TOMLDecodeError:
        value = text.strip()
    table = raw.setdefault(section, {})
    if value == "none":
        value = None
    table[key] = value
