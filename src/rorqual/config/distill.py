"""How what a teacher can do is handed to a student: traces, logits, or the student's own samples.

A file has `[distill]`, one `[[tasks]]` per family and, where they apply, `[model]` (a student from
scratch) and `[endpoint]` (a teacher behind an API).
"""

from pathlib import Path
from typing import Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from rorqual.config.model import ModelConfig
from rorqual.config.tasks import TaskShare


class DistillConfig(BaseModel):
    """One distillation. A step learns from prompts_per_step x samples_per_prompt sequences."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: Literal["traces", "logits", "on_policy"] = Field(
        description="traces: cross entropy on the teacher's right answers; logits: forward KL on "
        "the teacher's samples; on_policy: reverse KL on the student's own samples"
    )
    teacher: Path | None = Field(None, description="model directory or run folder; or [endpoint]")
    student: Path | None = Field(
        None, description="model directory or run folder to start from; or [model]"
    )
    seed: int = Field(0, ge=0, description="problems, samples, order, and weights from [model]")
    max_steps: int = Field(200, gt=0, description="optimizer steps")
    time_budget_seconds: float | None = Field(
        None, gt=0, description="stop early after this long, evaluations included"
    )
    prompts_per_step: int = Field(
        8, gt=0, description="problems a step draws, or a batch of traces"
    )
    samples_per_prompt: int = Field(4, gt=0, description="completions per problem")
    max_completion_length: int = Field(64, gt=0, description="tokens; longer ones are truncated")
    thinking: Literal["free", "forced"] = Field(
        "free", description="forced: the prompt already opens <think>"
    )
    teacher_temperature: float = Field(
        1.0, gt=0, description="of the teacher's samples (traces and logits)"
    )
    trace_problems: int = Field(
        512, gt=0, description="traces: problems the teacher is asked before the first step"
    )
    traces_per_problem: int = Field(2, gt=0, description="traces: different right ones kept of one")
    optimizer: Literal["adamw", "muon"] = Field("adamw", description="as in [train]")
    learning_rate: float = Field(1e-3, gt=0, description="peak")
    min_learning_rate_ratio: float = Field(0.1, ge=0, le=1, description="at the end of the cosine")
    warmup_steps: int = Field(10, ge=1, description="Adam's first steps are large: always warm up")
    beta1: float = Field(0.9, ge=0, lt=1, description="AdamW first moment")
    beta2: float = Field(0.95, ge=0, lt=1, description="AdamW second moment")
    adam_eps: float = Field(1e-8, gt=0, description="AdamW denominator")
    weight_decay: float = Field(0.0, ge=0, description="decoupled, on matrices only")
    clip_grad_norm: float = Field(1.0, gt=0, description="global gradient norm limit")
    bias_update_speed: float = Field(
        0.0, ge=0, description="gamma of the routers' selection bias; 0 freezes it"
    )
    row_tokens: int = Field(
        1024, gt=0, description="rows this long hold prompts, each with as many of its completions"
    )
    rows_per_micro_batch: int = Field(8, gt=0, description="rows per forward and backward")
    eval_steps: int = Field(20, gt=0, description="between evaluations on held-out problems")
    eval_problems: int = Field(96, gt=0, description="held-out problems per evaluation")
    eval_samples: int = Field(1, gt=0, description="samples per held-out problem")
    checkpoint_seconds: float = Field(120, gt=0, description="between checkpoints")
    kernels: Literal["auto", "native", "twin"] = Field("auto", description="which kernels run")
    num_threads: int | None = Field(None, gt=0, description="CPU threads; None: physical cores")


class EndpointConfig(BaseModel):
    """An OpenAI-compatible chat endpoint. The key stays in the environment."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    base_url: str = Field(
        pattern=r"^https?://[^\s?#]+$", description="http(s) address, with or without /v1"
    )
    model: str = Field(min_length=1, description="what the endpoint calls the teacher")
    api_key_variable: str | None = Field(
        None, description="environment variable that holds the key; None: no key is sent"
    )
    timeout_seconds: float = Field(120.0, gt=0, description="of one attempt")
    max_attempts: int = Field(5, gt=0, description="of one request, waiting longer each time")
    parallel_requests: int = Field(4, gt=0, description="requests under way at once")


class DistillRunConfig(BaseModel):
    """A distillation run: `[distill]`, `[[tasks]]`, and `[model]` or `[endpoint]` where asked."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    distill: DistillConfig = Field(description="the training")
    tasks: tuple[TaskShare, ...] = Field(min_length=1, description="what teacher or student answer")
    model: ModelConfig | None = Field(None, description="a student from scratch")
    endpoint: EndpointConfig | None = Field(None, description="a teacher behind an API")

    @model_validator(mode="after")
    def _consistent(self) -> "DistillRunConfig":
        distill = self.distill
        if (distill.teacher is None) == (self.endpoint is None):
            raise ValueError("give exactly one teacher: distill.teacher or [endpoint]")
        if (distill.student is None) == (self.model is None):
            raise ValueError("give exactly one student: distill.student or [model]")
        if self.endpoint is not None and distill.method != "traces":
            raise ValueError(
                f"distill.method={distill.method} needs the teacher's logits, which an [endpoint] "
                "does not give; use method traces or distill.teacher"
            )
        if self.endpoint is not None and self.model is not None:
            raise ValueError("[endpoint] brings no tokenizer for a [model]; use distill.student")
        return self

    @model_serializer(mode="wrap")
    def _without_absent_sections(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """As a file would be written: a section that is not there is not null either."""
        return {name: value for name, value in handler(self).items() if value is not None}
