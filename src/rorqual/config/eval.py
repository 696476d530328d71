"""What an evaluation asks, and how answers are sampled."""

from pydantic import BaseModel, ConfigDict, Field

from rorqual.config.tasks import TaskShare


class EvalSampling(BaseModel):
    """How each problem is answered; with the weights it determines every completion."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    samples_per_problem: int = Field(4, gt=0, description="completions drawn for each problem")
    temperature: float = Field(1.0, ge=0, description="0 is greedy, and then one sample says all")
    max_new_tokens: int = Field(256, gt=0, description="longer completions are truncated")
    seed: int = Field(0, ge=0, description="of the problems and of every sample")
    thinking: bool | None = Field(
        None,
        description="true opens <think> in the prompt, false closes it empty, none lets the model "
        "choose",
    )


class EvalConfig(EvalSampling):
    """How much is asked, and how it is answered."""

    num_problems: int = Field(
        200,
        gt=0,
        description="held-out problems in all, spread evenly over tasks, levels and languages",
    )


class EvalRunConfig(BaseModel):
    """An evaluation: `[eval]` and one `[[tasks]]` a family, whose weight and thinking are not read.

    The shares that a model was trained on can be given as they are.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    eval: EvalConfig = Field(EvalConfig(), description="the evaluation")  # pyright: ignore[reportCallIssue]
    tasks: tuple[TaskShare, ...] = Field((), description="what is asked, unless options say it")
