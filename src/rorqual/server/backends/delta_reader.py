"""What an engine's deltas say, as chunks: calls parsed, reasoning counted, tokens spelt out."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rorqual.engine import Delta, Request, TokenLogprobs, Usage
from rorqual.engine.reasoning import ReasoningMarkers, ReasoningSplitter
from rorqual.engine.tool_calls import (
    ContentText,
    ToolCallArguments,
    ToolCallParser,
    ToolCallStart,
    new_call_id,
)
from rorqual.server.backends.base import Chunk, TokenLogprob
from rorqual.server.backends.forced_calls import ForcedCall, named_call
from rorqual.tokenizer import Tokenizer
from rorqual.tokenizer.special import TOOL_CALL_BEGIN


@dataclass(frozen=True, slots=True)
class EngineCall:
    """What the engine gets, and how its text is to be read. strict: schemas by function."""

    request: Request
    reads_tools: bool
    forced: ForcedCall | None
    one_call: bool
    strict: Mapping[str, Mapping[str, Any]] = field(default_factory=dict[str, Mapping[str, Any]])


@dataclass(frozen=True, slots=True)
class StrictCall:
    """A strict function's call that the model has begun: what stands before it, and how many
    tokens were written up to where its arguments begin."""

    index: int
    name: str
    ids_before: list[int]
    num_written: int


class _Choice:
    """One answer being read."""

    def __init__(self, splitter: ReasoningSplitter | None, call: EngineCall) -> None:
        self.splitter = splitter
        self.tools = ToolCallParser() if call.reads_tools else None
        self.num_calls = 0
        self.ended_calls = False
        self.written = ""
        self.ids: list[int] = []
        self.num_reasoning_tokens = 0


class DeltaReader:
    """Turns a request's deltas into chunks: tool calls parsed, log-probabilities spelt out."""

    def __init__(
        self, tokenizer: Tokenizer, markers: ReasoningMarkers | None, call: EngineCall
    ) -> None:
        self._tokenizer = tokenizer
        self._call = call
        request = call.request
        self._choices: dict[int, _Choice] = {}
        for index in range(request.params.n):
            splitter = None
            if request.split_reasoning and markers is not None:
                splitter = ReasoningSplitter.for_prompt(tokenizer, markers, request.prompt_ids)
            self._choices[index] = _Choice(splitter, call)
        self.wants_end = False
        self.strict_call: StrictCall | None = None
        self.usage: Usage | None = None  # of the part before a strict call

    @property
    def num_open(self) -> int:
        """Choices that have not ended."""
        return len(self._choices)

    def read(self, deltas: list[Delta]) -> list[Chunk]:
        """The chunks of one step."""
        chunks: list[Chunk] = []
        for delta in deltas:
            choice = self._choices.get(delta.index)
            if self.strict_call is not None:
                self.usage = delta.usage or self.usage  # the follower says the rest
            elif choice is not None:
                chunks.append(self._chunk(choice, delta))
            if delta.error is not None or (delta.finish_reason == "cancelled" and not delta.usage):
                # The whole request was refused, dropped or lost: no more will come.
                self._choices.clear()
            elif delta.finish_reason is not None:
                self._choices.pop(delta.index, None)
        return chunks

    def _chunk(self, choice: _Choice, delta: Delta) -> Chunk:
        chunk = Chunk(delta.index, delta.text, delta.reasoning, num_tokens=len(delta.token_ids))
        chunk.cached_tokens = delta.cached_tokens
        if self._call.strict:
            choice.ids += delta.token_ids
        labels = [self._is_reasoning(choice, token) for token in delta.token_ids]
        chunk.num_reasoning_tokens = sum(labels)
        if delta.usage is not None:  # the engine's own count: an end token is no thinking
            rest = delta.usage.reasoning_tokens - choice.num_reasoning_tokens
            chunk.num_reasoning_tokens = min(max(rest, 0), chunk.num_tokens)
        choice.num_reasoning_tokens += chunk.num_reasoning_tokens
        if delta.logprobs is not None:
            pairs = zip(delta.logprobs, labels, strict=False)
            chunk.logprobs = [self._logprob(one, reasoning) for one, reasoning in pairs]
        if delta.prompt_logprobs is not None:
            chunk.prompt_logprobs = self._prompt_logprobs(delta.prompt_logprobs)
        ended = delta.finish_reason is not None
        if choice.tools is not None and not delta.error:
            self._read_tools(choice, chunk, ended)
        elif self._call.forced is not None:
            self._read_forced(choice, chunk, ended)
        if ended:
            self._end(choice, chunk, delta)
        return chunk

    def _end(self, choice: _Choice, chunk: Chunk, delta: Delta) -> None:
        chunk.finish, chunk.usage, chunk.error = delta.finish_reason, delta.usage, delta.error
        if isinstance(delta.stop_reason, str):
            chunk.stop_string = delta.stop_reason
        if choice.ended_calls or (choice.num_calls and delta.finish_reason == "stop"):
            chunk.finish = "tool_calls"

    def _is_reasoning(self, choice: _Choice, token_id: int) -> bool:
        return choice.splitter is not None and choice.splitter.feed(token_id) == "reasoning"

    def _read_tools(self, choice: _Choice, chunk: Chunk, ended: bool) -> None:
        parser = choice.tools
        assert parser is not None
        events = parser.feed(chunk.content)
        if ended:
            events += parser.finish()
        contents: list[str] = []
        calls: list[ToolCallStart | ToolCallArguments] = []
        for event in events:
            if isinstance(event, ContentText):
                contents.append(event.text)
            elif not choice.ended_calls:
                if isinstance(event, ToolCallStart):
                    if choice.num_calls and self._call.one_call:
                        choice.ended_calls = self.wants_end = True
                        continue
                    choice.num_calls += 1
                    if event.name in self._call.strict and not ended:
                        self._begin_strict(choice, event)
                calls.append(event)
                if self.strict_call is not None:
                    break
        chunk.content = "".join(contents)
        chunk.tools = tuple(calls)

    def _begin_strict(self, choice: _Choice, event: ToolCallStart) -> None:
        """From here on another request writes the arguments, bound to the function's schema."""
        begin = self._tokenizer.special_tokens[TOOL_CALL_BEGIN]
        cut = len(choice.ids) - 1 - choice.ids[::-1].index(begin)
        self.strict_call = StrictCall(event.index, event.name, choice.ids[:cut], len(choice.ids))
        self.wants_end = True

    def _read_forced(self, choice: _Choice, chunk: Chunk, ended: bool) -> None:
        """Everything the model writes is the arguments of the call, or name and arguments."""
        forced = self._call.forced
        assert forced is not None
        text, chunk.content = chunk.content, ""
        if forced.name is None:
            choice.written += text
            chunk.tools = named_call(choice.written) if ended else ()
            choice.num_calls += bool(chunk.tools)
            return
        start = () if choice.num_calls else (ToolCallStart(0, new_call_id(), forced.name),)
        choice.num_calls = 1
        chunk.tools = (*start, *((ToolCallArguments(0, text),) if text else ()))

    def _logprob(self, found: TokenLogprobs, is_reasoning: bool) -> TokenLogprob:
        top = tuple(self._token(token, value) for token, value in found.top)
        text, data = self._spell(found.token_id)
        return TokenLogprob(found.token_id, text, data, found.logprob, top, is_reasoning)

    def _prompt_logprobs(self, found: "list[TokenLogprobs | None]") -> list[TokenLogprob]:
        """Log-probabilities of the prompt's tokens; what nothing stands before has none: NaN."""
        ids = self._call.request.prompt_ids
        return [
            self._token(ids[place], math.nan) if one is None else self._logprob(one, False)
            for place, one in enumerate(found)
        ]

    def _token(self, token_id: int, logprob: float) -> TokenLogprob:
        text, data = self._spell(token_id)
        return TokenLogprob(token_id, text, data, logprob)

    def _spell(self, token_id: int) -> tuple[str, bytes]:
        table = self._tokenizer.token_bytes
        data = table[token_id] if token_id < len(table) else b""
        return data.decode("utf-8", "replace"), data
