"""How much a model thinks: switches and efforts of three APIs, one answer."""

from dataclasses import dataclass
from typing import Final, Literal

from pydantic import Field

from rorqual.config.http import GenerationConfig
from rorqual.errors import RequestError
from rorqual.server.backends import ModelInfo
from rorqual.server.wire.fields import StrictBody

Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]
_LOW: Final = ("minimal", "low")


class ThinkingSwitch(StrictBody):
    """DeepSeek's and Anthropic's `thinking`."""

    type: Literal["enabled", "disabled", "adaptive"]
    budget_tokens: int | None = Field(None, ge=0)
    display: Literal["summarized", "omitted"] | None = None


@dataclass(frozen=True, slots=True)
class ThinkingPlan:
    """thinking: what the template is told (None: it does not ask). budget None: no bound."""

    thinking: bool | None
    budget_tokens: int | None
    is_on: bool


def plan_thinking(
    info: ModelInfo,
    config: GenerationConfig,
    *,
    switch: ThinkingSwitch | None,
    effort: Effort | None,
    wanted: bool | None = None,
    by_default: bool = True,
) -> ThinkingPlan:
    """What a request's fields come to on this model."""
    if switch is not None:
        wanted = switch.type != "disabled"
    elif effort is not None and wanted is None:
        wanted = effort != "none"
    if info.thinking == "never":
        if switch is not None and switch.type == "enabled":
            raise RequestError(
                f"thinking is enabled, but model {info.name} does not think; leave thinking out",
                code="unsupported_parameter",
                param="thinking",
            )
        return ThinkingPlan(None, None, False)
    is_on = by_default if wanted is None else wanted
    if not is_on:
        # A model that always thinks is made to end its thinking at once.
        return ThinkingPlan(*((False, None) if info.thinking == "choice" else (None, 0)), False)
    budget = effort_tokens(config, effort or "high")
    if switch is not None and switch.budget_tokens is not None:
        budget = switch.budget_tokens
    return ThinkingPlan(True if info.thinking == "choice" else None, budget, True)


def forced_call_plan(info: ModelInfo) -> ThinkingPlan:
    """Where a call is asked for, the answer begins with it."""
    return ThinkingPlan(False if info.thinking == "choice" else None, None, False)


def effort_tokens(config: GenerationConfig, effort: str) -> int:
    """Thinking tokens of an effort."""
    if effort in _LOW:
        return config.thinking_low
    return config.thinking_medium if effort == "medium" else config.thinking_high
