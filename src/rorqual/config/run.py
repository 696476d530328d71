"""A run: one TOML file with [model], [data] and [train], then `section.key=value` overrides."""

from pydantic import BaseModel, ConfigDict, Field, model_validator

from rorqual.config.data import DataConfig
from rorqual.config.model import ModelConfig
from rorqual.config.sections import load_config
from rorqual.config.train import TrainConfig


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
    return load_config(RunConfig, name_or_path, overrides)
