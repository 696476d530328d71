"""How a model is trained by reinforcement learning; names as in TRL's GRPOConfig where they match.

Rollouts are always drawn at temperature 1 from the whole distribution: anything else would bias
the importance ratios, so there is no field for it.
"""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from rorqual.config.tasks import TaskShare


class RLConfig(BaseModel):
    """GRPO and its kin."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: Path = Field(description="model directory or run folder to start from")
    seed: int = Field(0, ge=0, description="problems, rollouts and order")
    max_steps: int = Field(200, gt=0, description="optimizer steps of num_iterations each")
    time_budget_seconds: float | None = Field(
        None, gt=0, description="stop early after this long; learning-rate decay follows it"
    )
    prompts_per_step: int = Field(8, gt=0, description="groups that a step learns from")
    num_generations: int = Field(16, ge=2, description="G: completions per prompt")
    max_completion_length: int = Field(64, gt=0, description="tokens; longer ones are truncated")
    thinking: Literal["free", "forced"] = Field(
        "free", description="forced: the prompt already opens <think>"
    )
    num_iterations: int = Field(1, gt=0, description="mu: updates per batch of rollouts")
    loss_type: Literal["grpo", "dr_grpo", "dapo"] = Field(
        "dr_grpo",
        description="how token losses are averaged: per sequence (GRPO), by a constant (Dr. GRPO), "
        "over all tokens (DAPO)",
    )
    scale_rewards: Literal["none", "group", "batch"] = Field(
        "none", description="what advantages are divided by: nothing or a standard deviation"
    )
    epsilon: float = Field(0.2, gt=0, lt=1, description="lower clip of the ratio")
    epsilon_high: float = Field(0.28, gt=0, description="upper clip of the ratio (DAPO: 0.28)")
    beta: float = Field(0.0, ge=0, description="weight of the KL term; 0 keeps no reference")
    ref_sync_steps: int | None = Field(
        None, gt=0, description="replace the reference by the policy this often (R1-Zero: 400)"
    )
    mask_truncated_completions: bool = Field(
        False, description="truncated completions teach nothing, instead of earning 0"
    )
    overlong_buffer_tokens: int = Field(
        0, ge=0, description="DAPO's soft punishment over the last tokens before the limit; 0: off"
    )
    max_refills: int = Field(
        3, ge=0, description="dynamic sampling: extra batches drawn to replace zero-variance groups"
    )
    rewards: tuple[str, ...] = Field(
        ("accuracy",),
        min_length=1,
        description="accuracy, format, language, random, or file.py:function",
    )
    reward_weights: tuple[float, ...] | None = Field(None, description="one per reward; None: 1")
    reward_timeout_seconds: float = Field(
        10.0, gt=0, description="a user's reward function, once loaded, is stopped after this long"
    )
    optimizer: Literal["adamw", "muon"] = Field("adamw", description="as in [train]")
    learning_rate: float = Field(1e-4, gt=0, description="peak")
    min_learning_rate_ratio: float = Field(0.1, ge=0, le=1, description="at the end of the cosine")
    warmup_steps: int = Field(10, ge=1, description="Adam's first steps are large: always warm up")
    beta1: float = Field(0.9, ge=0, lt=1, description="AdamW first moment")
    beta2: float = Field(0.95, ge=0, lt=1, description="AdamW second moment")
    adam_eps: float = Field(1e-8, gt=0, description="AdamW denominator")
    weight_decay: float = Field(0.0, ge=0, description="decoupled, on matrices only")
    clip_grad_norm: float = Field(1.0, gt=0, description="global gradient norm limit")
    row_tokens: int = Field(
        1024, gt=0, description="rows this long hold prompts, each with as many of its completions"
    )
    rows_per_micro_batch: int = Field(8, gt=0, description="rows per forward and backward")
    curriculum: bool = Field(False, description="levels follow the rolling pass rate")
    raise_level_above: float = Field(0.7, gt=0, le=1, description="pass rate to move up")
    lower_level_below: float = Field(0.1, ge=0, lt=1, description="pass rate to move down")
    probe_problems: int = Field(16, ge=0, description="per family and level before the first step")
    eval_steps: int = Field(20, gt=0, description="between evaluations on held-out problems")
    eval_problems: int = Field(96, gt=0, description="held-out problems per evaluation")
    eval_samples: int = Field(1, gt=0, description="samples per held-out problem")
    checkpoint_seconds: float = Field(120, gt=0, description="between checkpoints")
    kernels: Literal["auto", "native", "twin"] = Field("auto", description="which kernels run")
    num_threads: int | None = Field(None, gt=0, description="CPU threads; None: physical cores")
    stop_on_collapse: bool = Field(True, description="stop at the best checkpoint on a collapse")

    @model_validator(mode="after")
    def _consistent(self) -> "RLConfig":
        weights = self.reward_weights
        if weights is not None and len(weights) != len(self.rewards):
            raise ValueError(
                f"reward_weights has {len(weights)} numbers for {len(self.rewards)} rewards; give "
                "one each"
            )
        if self.overlong_buffer_tokens >= self.max_completion_length:
            raise ValueError(
                f"overlong_buffer_tokens={self.overlong_buffer_tokens} leaves nothing of "
                f"max_completion_length={self.max_completion_length}; lower it"
            )
        if self.lower_level_below >= self.raise_level_above:
            raise ValueError(
                f"lower_level_below={self.lower_level_below} is not below raise_level_above="
                f"{self.raise_level_above}; lower it"
            )
        return self


class RLRunConfig(BaseModel):
    """A reinforcement learning run: `[rl]` and one `[[tasks]]` per family."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rl: RLConfig = Field(description="the training")
    tasks: tuple[TaskShare, ...] = Field(min_length=1, description="what it trains on")
