"""How a model is pretrained: budget, batch, schedules, optimizer, balancing, safety.

Fractions are of the token budget, so one preset scales from seconds to trillions of tokens; the
values V3 used are named in the descriptions (DeepSeek-V3 sections 2.1.2, 2.2 and 4.2).
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class TrainConfig(BaseModel):
    """One training run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: int = Field(0, ge=0, description="initial weights, data order and samples")
    token_budget: int | None = Field(None, gt=0, description="tokens to train on")
    time_budget_seconds: float | None = Field(
        None, gt=0, description="instead: measure the speed at the start, then fix token_budget"
    )
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="of activations; auto: bfloat16 where the hardware multiplies it"
    )
    kernels: Literal["auto", "native", "twin"] = Field("auto", description="which kernels run")
    num_threads: int | None = Field(None, gt=0, description="CPU threads; None: physical cores")
    sequence_length: int = Field(512, gt=1, description="tokens per row (V3: 4096)")
    sequences_per_step: int = Field(8, gt=0, description="rows per optimizer step, all processes")
    sequences_per_step_start: int | None = Field(
        None, gt=0, description="batch ramp: rows per step at the start (V3: 3072 of 15360)"
    )
    batch_ramp_fraction: float = Field(
        0.0,
        ge=0,
        le=1,
        description="share of the budget over which the batch grows (V3: 469/14800)",
    )
    sequences_per_micro_batch: int = Field(8, gt=0, description="rows per forward and process")
    document_mask: bool = Field(
        True, description="attention stays inside a document (V3: false, V4: true)"
    )
    loss_on_prompts: bool = Field(
        True, description="whether the user's turns in conversations are predicted too"
    )
    optimizer: Literal["adamw", "muon"] = Field(
        "adamw", description="muon: Muon for hidden matrices and experts, AdamW for the rest"
    )
    learning_rate: float = Field(2.2e-4, gt=0, description="peak (V3: 2.2e-4)")
    learning_rate_min: float = Field(2.2e-5, ge=0, description="after the cosine (V3: 2.2e-5)")
    learning_rate_final: float | None = Field(
        None, ge=0, description="constant over the last final_fraction (V3: 7.3e-6)"
    )
    warmup_fraction: float = Field(0.01, ge=0, lt=1, description="linear rise from 0")
    decay_start_fraction: float = Field(0.68, ge=0, le=1, description="cosine begins (V3: 10/14.8)")
    decay_end_fraction: float = Field(0.97, gt=0, le=1, description="cosine ends (V3: 14.3/14.8)")
    final_fraction: float = Field(0.011, ge=0, lt=1, description="V3: 167/14800")
    beta1: float = Field(0.9, ge=0, lt=1, description="AdamW first moment")
    beta2: float = Field(0.95, ge=0, lt=1, description="AdamW second moment")
    adam_eps: float = Field(1e-8, gt=0, description="AdamW denominator")
    weight_decay: float = Field(0.1, ge=0, description="decoupled, on matrices only")
    clip_grad_norm: float = Field(1.0, gt=0, description="global gradient norm limit")
    balancing: Literal["loss_free", "aux_loss", "none"] = Field(
        "loss_free",
        description="loss_free: selection bias plus the sequence loss at [model] aux_loss_alpha; "
        "aux_loss: that loss alone; none: neither",
    )
    bias_update_speed: float = Field(1e-3, ge=0, description="gamma of the selection bias")
    bias_freeze_fraction: float = Field(
        0.966, ge=0, le=1, description="gamma is 0 beyond this share (V3: 14.3/14.8)"
    )
    mtp_weight: float = Field(0.3, ge=0, description="lambda of the MTP loss at first")
    mtp_weight_late: float = Field(0.1, ge=0, description="lambda after mtp_switch_fraction")
    mtp_switch_fraction: float = Field(0.676, ge=0, le=1, description="V3: 10/14.8")
    validation_fraction: float = Field(0.05, gt=0, le=1, description="between validations")
    validation_tokens: int = Field(32768, gt=0, description="held-out tokens per language")
    checkpoint_seconds: float = Field(300, gt=0, description="between checkpoints")
    keep_checkpoints: int = Field(2, gt=0, description="older ones are removed")
    sample_fractions: tuple[float, ...] = Field(
        (0.1, 0.5, 1.0), description="shares of the budget at which samples are written"
    )
    sample_prompts: tuple[str, ...] = Field((), description="what the samples continue")
    sample_tokens: int = Field(64, gt=0, description="new tokens per sample")
    spike_factor: float = Field(
        10.0, gt=1, description="skip a step whose gradient norm exceeds this times the median"
    )
    max_skipped_steps: int = Field(10, gt=0, description="stop after this many skips in a row")

    @model_validator(mode="after")
    def _consistent(self) -> "TrainConfig":
        if (self.token_budget is None) == (self.time_budget_seconds is None):
            raise ValueError("set exactly one of token_budget and time_budget_seconds in [train]")
        if self.decay_end_fraction < self.decay_start_fraction:
            raise ValueError(
                f"decay_end_fraction={self.decay_end_fraction} is before decay_start_fraction="
                f"{self.decay_start_fraction}; raise it"
            )
        start = self.sequences_per_step_start
        if start is not None and start > self.sequences_per_step:
            raise ValueError(
                f"sequences_per_step_start={start} exceeds sequences_per_step="
                f"{self.sequences_per_step}; the ramp only grows"
            )
        return self
