"""Supervised fine-tuning on conversations, and corpora of worked examples.

A fine-tuning file has `[sft]`, any number of `[[tasks]]` and `[train]`; a corpus file has
`[corpus]` and `[[tasks]]`.
"""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from rorqual.config.tasks import TaskShare
from rorqual.config.train import TrainConfig

LossOn = Literal["assistant", "all"]


class SFTConfig(BaseModel):
    """What is fine-tuned, and on which conversations."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: Path = Field(description="model directory or run folder to start from")
    num_examples: int = Field(0, ge=0, description="worked examples drawn from [[tasks]]")
    files: tuple[Path, ...] = Field(
        (), description="JSONL of messages, prompt/completion or instruction/input/output"
    )
    epochs: int = Field(1, gt=0, description="passes over the conversations")
    loss_on: LossOn = Field(
        "assistant", description="which tokens teach: what the assistant wrote, or all of them"
    )
    held_out_fraction: float = Field(
        0.02, ge=0, le=0.5, description="share of the conversations kept for validation"
    )


class TuneConfig(BaseModel):
    """How: the fields of a pretraining run that matter here, named as there.

    The token budget follows from the data. The learning rate rises, then falls on a cosine to the
    end.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: int = Field(0, ge=0, description="worked examples and order of the data")
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="of activations; auto: bfloat16 where the hardware multiplies it"
    )
    kernels: Literal["auto", "native", "twin"] = Field("auto", description="which kernels run")
    num_threads: int | None = Field(None, gt=0, description="CPU threads; None: physical cores")
    sequence_length: int = Field(
        512, gt=1, description="tokens per packed row; longer conversations are left out"
    )
    sequences_per_step: int = Field(8, gt=0, description="rows per optimizer step, all processes")
    sequences_per_micro_batch: int = Field(8, gt=0, description="rows per forward and process")
    optimizer: Literal["adamw", "muon"] = Field("adamw", description="as in pretraining")
    learning_rate: float = Field(5e-6, gt=0, description="peak (V3's fine-tuning: 5e-6)")
    learning_rate_min: float = Field(1e-6, ge=0, description="at the end (V3: 1e-6)")
    warmup_fraction: float = Field(0.03, ge=0, lt=1, description="linear rise from 0")
    beta1: float = Field(0.9, ge=0, lt=1, description="AdamW first moment")
    beta2: float = Field(0.95, ge=0, lt=1, description="AdamW second moment")
    adam_eps: float = Field(1e-8, gt=0, description="AdamW denominator")
    weight_decay: float = Field(0.1, ge=0, description="decoupled, on matrices only")
    clip_grad_norm: float = Field(1.0, gt=0, description="global gradient norm limit")
    balancing: Literal["loss_free", "aux_loss", "none"] = Field(
        "loss_free", description="of the experts' load, as in pretraining"
    )
    bias_update_speed: float = Field(1e-3, ge=0, description="gamma of the selection bias")
    mtp_weight: float = Field(0.1, ge=0, description="lambda of the MTP loss")
    validation_fraction: float = Field(0.1, gt=0, le=1, description="between validations")
    validation_tokens: int = Field(32768, gt=0, description="held-out tokens used, at most")
    checkpoint_seconds: float = Field(300, gt=0, description="between checkpoints")
    keep_checkpoints: int = Field(2, gt=0, description="older ones are removed")
    spike_factor: float = Field(
        10.0, gt=1, description="skip a step whose gradient norm exceeds this times the median"
    )
    max_skipped_steps: int = Field(10, gt=0, description="stop after this many skips in a row")

    def train_config(self, token_budget: int) -> TrainConfig:
        """The configuration that the training step reads."""
        return TrainConfig(
            **self.model_dump(),
            token_budget=token_budget,
            document_mask=True,
            mtp_weight_late=self.mtp_weight,
            decay_start_fraction=self.warmup_fraction,
            decay_end_fraction=1.0,
        )


class SFTRunConfig(BaseModel):
    """A fine-tuning run: `[sft]`, `[[tasks]]`, `[train]`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sft: SFTConfig = Field(description="the conversations")
    tasks: tuple[TaskShare, ...] = Field((), description="what worked examples are drawn from")
    train: TuneConfig = Field(TuneConfig(), description="the training")  # pyright: ignore[reportCallIssue]

    @model_validator(mode="after")
    def _consistent(self) -> "SFTRunConfig":
        if bool(self.tasks) != (self.sft.num_examples > 0):
            raise ValueError(
                f"sft.num_examples={self.sft.num_examples} with {len(self.tasks)} [[tasks]]; "
                "worked examples need both, set num_examples above 0 exactly if there are tasks"
            )
        if not self.tasks and not self.sft.files:
            raise ValueError("nothing to train on; add [[tasks]] with num_examples, or sft.files")
        return self


class CorpusConfig(BaseModel):
    """Worked examples as a source of the pretraining corpus."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    root: Path = Field(Path("data"), description="data folder they are added to")
    name: str = Field("tasks", description="what the source is called; one so called is replaced")
    num_examples: int = Field(
        20_000, gt=0, description="how many are drawn; repetitions are dropped"
    )
    seed: int = Field(0, ge=0, description="of the problems")


class CorpusRunConfig(BaseModel):
    """A corpus of worked examples: `[corpus]` and `[[tasks]]`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    corpus: CorpusConfig = Field(CorpusConfig(), description="where it goes")  # pyright: ignore[reportCallIssue]
    tasks: tuple[TaskShare, ...] = Field(min_length=1, description="what it is drawn from")
