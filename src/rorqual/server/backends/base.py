"""One request type in, chunks out: what the wire formats speak and what generates understands.

A wire format fills a `GenerationRequest`, a backend checks and counts it (`prepare`), and after
admission `submit` makes it call back with chunks, one list per step, until every choice has had
its last. Callbacks come on the event loop's thread, and never from within `submit`: what they do
may submit the next request.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Protocol

from rorqual.engine.requests import Usage
from rorqual.engine.tool_calls import ToolCallArguments, ToolCallStart
from rorqual.errors import RorqualError
from rorqual.release import ELSEWHERE, Trust

Finish = Literal["stop", "length", "tool_calls", "content_filter", "cancelled", "deadline", "error"]
BackendState = Literal["ready", "loading", "restarting", "down"]
Thinking = Literal["never", "choice", "always"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatInput:
    """A conversation to be answered, in OpenAI's shape.

    schema_param: what the request calls the schema of response_format. tool_choice: auto, none,
    required, or a function's name. continue_last: the last message is the
    assistant's and is written on. thinking None: as the model's template has it.
    """

    messages: tuple[Mapping[str, Any], ...]
    tools: tuple[Mapping[str, Any], ...] = ()
    tool_choice: str = "auto"
    named_tool: str | None = None
    one_call: bool = False
    response_format: Mapping[str, Any] | None = None
    schema_param: str = "response_format.json_schema.schema"
    thinking: bool | None = None
    continue_last: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TextInput:
    """Text or ids to be continued, or with a suffix a gap to be filled."""

    prompt: str | tuple[int, ...]
    suffix: str | None = None
    echo: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationRequest:
    """What is asked. `sampling` holds the fields of SamplingParams that the client set.

    default_tokens: the length where the client named none; the context may leave less.
    cache_salt keeps prefixes apart: requests of different salts cannot time each other's.
    deadline: a moment of time.monotonic at which our own engine ends the answer by itself.
    """

    id: str
    model: str
    input: ChatInput | TextInput
    sampling: Mapping[str, Any] = field(default_factory=dict[str, Any])
    default_tokens: int | None = None
    cache_salt: bytes = b""
    deadline: float | None = None


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A token as text and bytes, its log-probability, and the likeliest in its place."""

    token_id: int | None
    text: str
    data: bytes
    logprob: float
    top: tuple["TokenLogprob", ...] = ()
    is_reasoning: bool = False


@dataclass(slots=True)
class Chunk:
    """What one step added to one choice; the last of a choice has finish and usage.

    prompt_logprobs comes once, with the first chunk; its first entry's log-probability is NaN.
    cached_tokens comes with a choice's first token, where the backend knows then what part of the
    prompt it had; else with usage.
    """

    index: int
    content: str = ""
    reasoning: str = ""
    tools: tuple[ToolCallStart | ToolCallArguments, ...] = ()
    num_tokens: int = 0
    num_reasoning_tokens: int = 0
    logprobs: list[TokenLogprob] = field(default_factory=list[TokenLogprob])
    prompt_logprobs: list[TokenLogprob] | None = None
    finish: Finish | None = None
    stop_string: str | None = None
    usage: Usage | None = None
    error: RorqualError | None = None
    cached_tokens: int | None = None

    def takes(self, other: "Chunk") -> bool:
        """Whether `other`, which came later, is more of the same text and nothing else."""
        one_kind = not (self.content or other.content) or not (self.reasoning or other.reasoning)
        return self.index == other.index and one_kind and self._is_text and other._is_text

    def take(self, other: "Chunk") -> None:
        """Add what came later."""
        self.content += other.content
        self.reasoning += other.reasoning
        self.num_tokens += other.num_tokens
        self.num_reasoning_tokens += other.num_reasoning_tokens
        self.logprobs += other.logprobs
        if self.cached_tokens is None:
            self.cached_tokens = other.cached_tokens

    @property
    def _is_text(self) -> bool:
        is_last = self.finish is not None or self.usage is not None or self.error is not None
        return not (is_last or self.tools or self.prompt_logprobs)


def joined(chunks: Iterable[Chunk]) -> list[Chunk]:
    """What goes out together, in as few pieces as say the same."""
    found: list[Chunk] = []
    for chunk in chunks:
        if found and found[-1].takes(chunk):
            found[-1].take(chunk)
        else:
            found.append(chunk)
    return found


LONG_CHARACTERS: Final = 20_000  # above, templates and tokenizers run in a thread


def num_characters(given: ChatInput | TextInput) -> int:
    """How much text a request brings, without looking closely."""
    if isinstance(given, TextInput):
        return len(given.prompt) + len(given.suffix or "")
    return sum(len(str(message.get("content") or "")) for message in given.messages)


OnChunks = Callable[[list[Chunk]], None]


@dataclass(frozen=True, slots=True)
class Prepared:
    """A request that can be served: its counts are what admission and the ledger need.

    `payload` is the backend's own. max_output_tokens is over all choices.
    """

    request: GenerationRequest
    prompt_tokens: int
    max_output_tokens: int
    payload: Any


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """A model as /models lists it."""

    name: str
    title: str
    context_tokens: int
    thinking: Thinking
    created: int
    size_bytes: int
    trust: Trust = ELSEWHERE


@dataclass(frozen=True, slots=True)
class BackendStats:
    """For status, metrics and the choice of where to send a request.

    The last three are `EngineStats`' of speculation, 0 and None where nothing is drafted.
    """

    state: BackendState
    num_running: int
    num_waiting: int
    completion_tokens: int
    prompt_tokens: int
    cached_tokens: int
    num_restarts: int
    last_error: str | None
    drafted_tokens: int = 0
    accepted_tokens: int = 0
    speculation_gain: float | None = None


class Backend(Protocol):
    """The one interface to what generates."""

    @property
    def info(self) -> ModelInfo:
        """The model."""
        ...

    async def start(self) -> None:
        """Begin to load or to watch; returns at once."""
        ...

    async def stop(self) -> None:
        """End everything, in-flight requests with an error."""
        ...

    async def prepare(self, request: GenerationRequest) -> Prepared:
        """Check a request and count its tokens; RequestError if it cannot be served."""
        ...

    def submit(self, prepared: Prepared, on_chunks: OnChunks) -> None:
        """Start generating; failures arrive as chunks with an error."""
        ...

    def cancel(self, request_id: str) -> None:
        """End a request; its choices end as cancelled. Unknown ids are ignored."""
        ...

    def stats(self) -> BackendStats:
        """The present load, at no cost."""
        ...

    def tokenize(self, text: str) -> list[int]:
        """Ids of plain text; RequestError where the model's tokenizer is not known here."""
        ...

    def tokenize_chat(self, chat: ChatInput) -> list[int]:
        """Ids of a rendered conversation."""
        ...

    def detokenize(self, token_ids: list[int]) -> str:
        """Text of ids."""
        ...
