"""A claim of the papers, and the small experiment that tests it: arms, seeds, an equal budget.

The file is the promise: it is committed before its runs, and the rule of judgement stands in
reproduce/figures.py. `[claim]`, then an `[arms.NAME]` each; the first is what the claim favours.
"""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from rorqual.config.model import first_error
from rorqual.config.presets import find_preset
from rorqual.config.sections import read_config_file
from rorqual.errors import ConfigError

_FOLDER = "reproduce"  # of the presets


class Arm(BaseModel):
    """One way of training."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    title: str = Field(description="what people read")
    title_zh: str = Field(description="the same in Chinese")
    settings: tuple[str, ...] = Field((), description="overrides of the base: train.balancing=none")


class Claim(BaseModel):
    """What is said, who said it, and how it is tried."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    statement: str = Field(description="the claim in one sentence")
    statement_zh: str = Field(description="the same in Chinese")
    source: str = Field(description="paper and section")
    base: str = Field("laptop", description="preset that every arm starts from")
    settings: tuple[str, ...] = Field((), description="overrides that all arms share")
    seeds: tuple[int, ...] = Field((1, 2, 3), min_length=2, description="one run an arm and seed")
    flops: float | None = Field(None, gt=0, description="training budget of every run")
    seconds: float | None = Field(None, gt=0, description="or its wall time")
    measure: str = Field(
        "bits_per_byte", pattern="^(bits_per_byte|max_violation)$", description="lower is better"
    )

    @model_validator(mode="after")
    def _one_budget(self) -> "Claim":
        if (self.flops is None) == (self.seconds is None):
            raise ValueError("set one of flops and seconds, the budget that the arms share")
        return self


class ClaimConfig(BaseModel):
    """The whole file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    claim: Claim = Field(description="what is tried")
    arms: dict[str, Arm] = Field(min_length=2, description="by name, the favoured one first")


def list_claims() -> tuple[str, ...]:
    """Names of the claims that ship, sorted."""
    folder = find_preset("tiny").parent / _FOLDER
    return tuple(sorted(file.stem for file in folder.glob("*.toml")))


def read_claim(name: str) -> ClaimConfig:
    """A shipped claim by name, or a TOML file; its arms are not looked into."""
    path = find_preset(name if name.endswith(".toml") else f"{_FOLDER}/{name}")
    raw: dict[str, Any] = read_config_file(path)
    try:
        return ClaimConfig(**raw)
    except ValidationError as error:
        raise ConfigError(f"{path}: {first_error(error)}") from error
