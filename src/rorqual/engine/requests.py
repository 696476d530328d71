"""What is asked of the engine and what comes back: requests, sampling parameters, deltas, figures.

Plain values; names are vLLM's where they mean the same. A request is checked when it is made, so
that nothing impossible reaches the scheduler.
"""

import enum
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rorqual.engine.structure import Structure
from rorqual.errors import RequestError, RorqualError

FinishReason = Literal["stop", "length", "cancelled", "deadline", "error"]

MAX_SAMPLES: Final = 128
MAX_LOGPROBS: Final = 20
MAX_STOP_STRINGS: Final = 16
MAX_LOGIT_BIASES: Final = 1024
LARGEST_SEED: Final = 2**64 - 1
LARGEST_COUNT: Final = 2**31 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """How the tokens of a request are drawn and when they end.

    temperature 0 is greedy. top_k 0 and min_p 0 keep every token; top_p is the mass that stays.
    max_tokens None: until the model ends or the context is full; 0 only reads the prompt (with
    prompt_logprobs: scoring). logprobs k: of each token and the k likeliest, under the model's own
    distribution, before temperature, penalties and truncation. policy_stats: also the drawn
    token's log-probability and the entropy of the distribution it was drawn from (rollouts); NaN
    where the token was forced. seeds: one for each of the n samples, which then draw what n
    requests with these seeds would, while they share one reading of the prompt.
    thinking_budget: reasoning tokens after which the end marker is forced. structure constrains the
    answer, not the thinking before it.
    """

    n: int = 1
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    include_stop_str_in_output: bool = False
    skip_special_tokens: bool = True
    ignore_eos: bool = False
    max_tokens: int | None = None
    min_tokens: int = 0
    seed: int | None = None
    seeds: tuple[int, ...] | None = None
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    policy_stats: bool = False
    thinking_budget: int | None = None
    structure: Structure | None = None

    def __post_init__(self) -> None:
        _within("n", self.n, 1, MAX_SAMPLES)
        _within("temperature", self.temperature, 0.0, 100.0)
        _within("top_k", self.top_k, 0, LARGEST_COUNT)
        _within("min_p", self.min_p, 0.0, 1.0)
        _within("presence_penalty", self.presence_penalty, -2.0, 2.0)
        _within("frequency_penalty", self.frequency_penalty, -2.0, 2.0)
        _within("min_tokens", self.min_tokens, 0, LARGEST_COUNT)
        if not 0 < self.top_p <= 1:
            raise _refused("top_p", f"top_p={self.top_p} is not in (0, 1]; 1 keeps all")
        if not 0 < self.repetition_penalty <= 100:
            raise _refused(
                "repetition_penalty",
                f"repetition_penalty={self.repetition_penalty} is not in (0, 100]; 1 is none",
            )
        if self.max_tokens is not None:
            _within("max_tokens", self.max_tokens, 0, LARGEST_COUNT)
        if self.thinking_budget is not None:
            _within("thinking_budget", self.thinking_budget, 0, LARGEST_COUNT)
        if self.seeds is not None and (len(self.seeds) != self.n or self.seed is not None):
            raise _refused(
                "seeds", f"{len(self.seeds)} seeds for n={self.n}; give one each and no seed"
            )
        for seed in self.seeds or () if self.seed is None else (self.seed,):
            _within("seed", seed, 0, LARGEST_SEED)
        for name, value in (("logprobs", self.logprobs), ("prompt_logprobs", self.prompt_logprobs)):
            if value is not None:
                _within(name, value, 0, MAX_LOGPROBS)
        self._check_lists()
        if self.policy_stats and (self.top_k or self.top_p < 1 or self.min_p):
            raise _refused(
                "policy_stats",
                "policy_stats beside top_k, top_p or min_p, which would bias every importance "
                "ratio computed from them; leave those out",
            )
        if self.structure is not None and self.min_tokens:
            raise _refused(
                "min_tokens",
                f"min_tokens={self.min_tokens} beside a structure, which alone says where the "
                "answer may end; leave min_tokens out",
            )

    def _check_lists(self) -> None:
        if len(self.stop) > MAX_STOP_STRINGS or not all(self.stop):
            raise _refused(
                "stop", f"stop takes at most {MAX_STOP_STRINGS} strings, none empty; shorten it"
            )
        if len(self.stop_token_ids) > MAX_LOGIT_BIASES:
            raise _refused("stop_token_ids", f"more than {MAX_LOGIT_BIASES} ids; send fewer")
        if len(self.logit_bias) > MAX_LOGIT_BIASES:
            raise _refused("logit_bias", f"more than {MAX_LOGIT_BIASES} entries; send fewer")
        for bias in self.logit_bias.values():
            _within("logit_bias", bias, -100.0, 100.0)

    @property
    def has_penalties(self) -> bool:
        """Whether earlier tokens change the logits."""
        return bool(
            self.presence_penalty or self.frequency_penalty or self.repetition_penalty != 1.0
        )


def _refused(param: str, message: str) -> RequestError:
    return RequestError(message, param=param)


def _within(name: str, value: float, low: float, high: float | None) -> None:
    # `not (low <= value)` also catches NaN.
    if not (low <= value) or (high is not None and not (value <= high)):
        limit = f"from {low} to {high}" if high is not None else f"at least {low}"
        raise _refused(name, f"{name}={value}; expected {limit}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One prompt and how to answer it.

    Requests are served in the order (priority, arrival), lower first; arrival None: as submitted.
    Cached prefixes are shared only between requests of equal `cache_salt`. `record_routes` keeps
    the experts that every generated token went to as it was fed. `split_reasoning`:
    whether thinking is told apart from the answer, where the tokenizer has markers for it.
    `deadline`: a moment on the engine's clock (time.monotonic, which all processes of a machine
    share) at which the request ends, queued or running, with what it has.
    """

    id: str
    prompt_ids: Sequence[int]
    params: SamplingParams = field(default_factory=SamplingParams)
    priority: int = 0
    arrival: float | None = None
    cache_salt: bytes = b""
    record_routes: bool = False
    split_reasoning: bool = True
    deadline: float | None = None


class Usage(NamedTuple):
    """Tokens of one sequence: prompt, of them read from the prefix cache, written, reasoning."""

    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    reasoning_tokens: int


class TokenLogprobs(NamedTuple):
    """A token's log-probability and the likeliest alternatives, best first."""

    token_id: int
    logprob: float
    top: tuple[tuple[int, float], ...]


class PolicyStats(NamedTuple):
    """What rollouts keep of a draw: its log-probability and the distribution's entropy, in nats."""

    logprob: float
    entropy: float


@dataclass(slots=True)
class Delta:
    """What one step added to one sequence of a request.

    `text` is answer, `reasoning` thinking; either may lag behind the ids (held back characters).
    The last delta of a sequence has a finish_reason and, unless the engine itself failed, its
    usage; `stop_reason` is the stop string or token id that ended it, `error` what went wrong.
    `prompt_logprobs` and `cached_tokens` (of the prompt, read from the prefix cache) come once,
    with the sequence's first delta; `routes` [tokens fed, MoE layers, K] with the last.
    """

    request_id: str
    index: int
    token_ids: list[int]
    text: str = ""
    reasoning: str = ""
    logprobs: list[TokenLogprobs] | None = None
    policy_stats: list[PolicyStats] | None = None
    finish_reason: FinishReason | None = None
    stop_reason: int | str | None = None
    usage: Usage | None = None
    error: RorqualError | None = None
    prompt_logprobs: "list[TokenLogprobs | None] | None" = None
    routes: NDArray[np.int16] | None = None
    cached_tokens: int | None = None


OnDelta = Callable[[list[Delta]], None]
"""One call per step and request, with one delta for each of its sequences that moved."""


class SequenceState(enum.Enum):
    """Where a sequence stands: in the queue, holding blocks, or done."""

    WAITING = enum.auto()
    RUNNING = enum.auto()
    FINISHED = enum.auto()


@dataclass(frozen=True, slots=True)
class EngineStats:
    """The engine's figures: the present load, and totals since it started.

    free_blocks can be had at once (blank, or cached prefixes that nobody uses). cached_tokens were
    read from the prefix cache instead of computed; runner_seconds and sampler_seconds are the parts
    of step_seconds that the network and the drawing of tokens took; recomputed_tokens were fed
    again after a pre-emption. Speculation: drafted_tokens were fed beside the last token,
    accepted_tokens of them were what was drawn; speculation_gain is the speed of writing with
    drafts over that without, as last measured, None before. last_error says why a step crashed,
    None if none has.
    """

    num_running: int
    num_waiting: int
    total_blocks: int
    free_blocks: int
    prefix_blocks: int
    waiting_tokens: int
    tokens_per_step: int
    num_steps: int
    step_seconds: float
    runner_seconds: float
    sampler_seconds: float
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    recomputed_tokens: int
    num_preemptions: int
    num_finished: int
    num_cancelled: int
    num_failed: int
    last_error: str | None
    drafted_tokens: int = 0
    accepted_tokens: int = 0
    speculation_gain: float | None = None
