"""Which problems a stage uses, how hard, in which language, and how often they are thought out."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class TaskShare(BaseModel):
    """One family's part in a mixture."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(description="a shipped task, or file.py:ClassName of your own")
    levels: tuple[int, ...] = Field((1,), min_length=1, description="drawn evenly; 1 is easiest")
    languages: tuple[Literal["en", "zh"], ...] = Field(
        ("en", "zh"), min_length=1, description="drawn evenly"
    )
    weight: float = Field(1.0, gt=0, description="share of the mixture, relative to the others")
    thinking: float = Field(
        1.0, ge=0, le=1, description="share of worked examples that think before they answer"
    )
    follow_up: float = Field(
        0.0,
        ge=0,
        le=1,
        description="share of worked examples that come behind one or two others that may do so",
    )
