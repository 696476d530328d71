"""A claim of the papers, and the small experiment that tests it: arms, seeds, an equal budget.

The file is the promise: it is committed before its runs, and the rule of judgement stands in
reproduce/figures.py. `[claim]`, then an `[arms.NAME]` each; the first is what the claim favours.
"""

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from rorqual.config.model import first_error
from rorqual.config.presets import find_preset
from rorqual.config.sections import read_config_file
from rorqual.errors import ConfigError

_FOLDER = "reproduce"  # of the presets; the recipes lie in a folder below


class Arm(BaseModel):
    """One way of training."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    title: str = Field(description="what people read")
    title_zh: str = Field(description="the same in Chinese")
    settings: tuple[str, ...] = Field((), description="overrides of the base: train.balancing=none")
    num_key_value_heads: int | None = Field(
        None, gt=0, description="grouped-query attention with this many cached heads; None: MLA"
    )
    stage: str | None = Field(None, description="the recipe's stage that is this arm")


class Claim(BaseModel):
    """What is said, who said it, and how it is tried: in pretraining runs, or in a recipe's stages.

    A pretraining claim has `base` and a budget, a recipe's has `recipe`. The first arm's FLOPs are
    the budget of a recipe's arms: the others are read where they had spent as much.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    statement: str = Field(description="the claim in one sentence")
    statement_zh: str = Field(description="the same in Chinese")
    source: str = Field(description="paper and section")
    base: str = Field("laptop", description="preset that every arm starts from")
    recipe: str | None = Field(None, description="recipe whose stages are the arms, once a seed")
    settings: tuple[str, ...] = Field((), description="overrides that all arms share")
    seeds: tuple[int, ...] = Field((1, 2, 3), min_length=2, description="one run an arm and seed")
    flops: float | None = Field(None, gt=0, description="training budget of every run")
    seconds: float | None = Field(None, gt=0, description="or its wall time")
    measure: Literal["bits_per_byte", "max_violation", "errors"] = Field(
        "bits_per_byte", description="lower is better; errors: wrong answers, of a recipe's stages"
    )

    @model_validator(mode="after")
    def _one_budget(self) -> "Claim":
        given = [budget for budget in (self.flops, self.seconds, self.recipe) if budget is not None]
        if len(given) != 1:
            raise ValueError("set one of flops, seconds and recipe, the budget that the arms share")
        if (self.measure == "errors") != (self.recipe is not None):
            raise ValueError("measure=errors goes with a recipe, and a recipe with measure=errors")
        return self


class ClaimConfig(BaseModel):
    """The whole file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    claim: Claim = Field(description="what is tried")
    arms: dict[str, Arm] = Field(min_length=2, description="by name, the favoured one first")

    @model_validator(mode="after")
    def _arms_fit(self) -> "ClaimConfig":
        for name, arm in self.arms.items():
            if (arm.stage is not None) != (self.claim.recipe is not None):
                raise ValueError(f"arms.{name}: stage goes with claim.recipe, in every arm")
            if arm.stage is not None and (arm.settings or arm.num_key_value_heads):
                raise ValueError(f"arms.{name}: a stage is set in the recipe, not here")
        return self


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


def claim_recipe(claim: Claim) -> Path:
    """The recipe's file: one that ships with the claims, by name, or a TOML file."""
    assert claim.recipe is not None
    is_file = claim.recipe.endswith(".toml")
    return find_preset(claim.recipe if is_file else f"{_FOLDER}/recipes/{claim.recipe}")
