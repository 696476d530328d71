"""Whole answers put together from deltas; names as vLLM's."""

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from rorqual.engine.requests import (
    Delta,
    FinishReason,
    PolicyStats,
    Request,
    TokenLogprobs,
    Usage,
)
from rorqual.errors import RorqualError


@dataclass(slots=True)
class CompletionOutput:
    """One answer; `text` without its thinking, which is `reasoning`."""

    index: int
    text: str = ""
    reasoning: str = ""
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprobs] | None = None
    policy_stats: list[PolicyStats] | None = None
    finish_reason: FinishReason | None = None
    stop_reason: int | str | None = None
    usage: Usage | None = None
    error: RorqualError | None = None
    routes: NDArray[np.int16] | None = None

    @property
    def cumulative_logprob(self) -> float | None:
        """Sum of the tokens' log-probabilities, if they were asked for."""
        return None if self.logprobs is None else sum(one.logprob for one in self.logprobs)

    def add(self, delta: Delta) -> None:
        """One more delta."""
        self.text += delta.text
        self.reasoning += delta.reasoning
        self.token_ids += delta.token_ids
        if delta.logprobs is not None:
            self.logprobs = (self.logprobs or []) + delta.logprobs
        if delta.policy_stats is not None:
            self.policy_stats = (self.policy_stats or []) + delta.policy_stats
        if delta.finish_reason is not None:
            self.finish_reason, self.stop_reason = delta.finish_reason, delta.stop_reason
            self.usage, self.error, self.routes = delta.usage, delta.error, delta.routes


@dataclass(slots=True)
class RequestOutput:
    """A request's answers, in the order of their index."""

    request_id: str
    prompt_token_ids: list[int]
    outputs: list[CompletionOutput]
    prompt: str | None = None
    prompt_logprobs: list[TokenLogprobs | None] | None = None

    @classmethod
    def of(cls, request: Request, prompt: str | None) -> "RequestOutput":
        """The empty answers of a request."""
        outputs = [CompletionOutput(index) for index in range(request.params.n)]
        return cls(request.id, list(request.prompt_ids), outputs, prompt)

    def add(self, deltas: Iterable[Delta]) -> None:
        """What a step brought."""
        for delta in deltas:
            self.outputs[delta.index].add(delta)
            if delta.prompt_logprobs is not None:
                self.prompt_logprobs = delta.prompt_logprobs

    @property
    def finished(self) -> bool:
        """Whether every answer has ended."""
        return all(output.finish_reason is not None for output in self.outputs)

    @property
    def num_cached_tokens(self) -> int:
        """Prompt tokens that were read from the prefix cache."""
        usage = self.outputs[0].usage
        return 0 if usage is None else usage.cached_tokens
