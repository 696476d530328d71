"""Answers of /chat/completions, OpenAI's and DeepSeek's: the second is the first with more."""

from typing import Any, Final

from rorqual.engine import Usage
from rorqual.engine.tool_calls import ToolCallArguments, ToolCallStart
from rorqual.server.backends import Chunk, TokenLogprob
from rorqual.server.errors import Dialect
from rorqual.server.wire.answer import (
    FINGERPRINT,
    OpenAIStream,
    logprob_entry,
    to_json,
    usage_object,
)

_PLAIN_END: Final = ',"logprobs":null,"finish_reason":null}'


class _Choice:
    """One answer being put together."""

    def __init__(self) -> None:
        self.content: list[str] = []
        self.reasoning: list[str] = []
        self.calls: list[dict[str, Any]] = []
        self.logprobs: list[TokenLogprob] = []
        self.finish: str | None = None

    def add(self, chunk: Chunk) -> None:
        self.content.append(chunk.content)
        self.reasoning.append(chunk.reasoning)
        self.logprobs += chunk.logprobs
        for found in chunk.tools:
            if isinstance(found, ToolCallStart):
                function = {"name": found.name, "arguments": ""}
                self.calls.append({"id": found.id, "type": "function", "function": function})
            else:
                self.calls[found.index]["function"]["arguments"] += found.text
        self.finish = chunk.finish or self.finish


class ChatAnswer(OpenAIStream):
    """Writes chat completions. `thinks`: reasoning_content is there even when it is empty."""

    def __init__(
        self,
        *,
        request_id: str,
        model: str,
        created: int,
        dialect: Dialect,
        num_choices: int,
        thinks: bool,
        logprobs: bool,
        include_usage: bool,
    ) -> None:
        self.dialect: Dialect = dialect
        self._head = {
            "id": request_id,
            "object": "chat.completion.chunk",
            "created": created,
            "model": model,
            "system_fingerprint": FINGERPRINT,
        }
        super().__init__(self._head, include_usage=include_usage, null_usage=include_usage)
        self._thinks = thinks
        self._logprobs = logprobs
        self._choices = [_Choice() for _ in range(num_choices)]

    def begin(self) -> bytes:
        delta: dict[str, Any] = {"role": "assistant", "content": None if self._thinks else ""}
        if self._thinks:
            delta["reasoning_content"] = ""
        return b"".join(
            self._event([self._stream_choice(index, delta)]) for index in range(len(self._choices))
        )

    def write(self, chunks: list[Chunk], usage: Usage | None) -> bytes:
        events: list[bytes] = []
        for chunk in chunks:
            if self._is_plain(chunk):
                events.append(self._plain_event(chunk))
                continue
            delta = _delta(chunk)
            if delta or chunk.logprobs:
                choice = self._stream_choice(chunk.index, delta)
                if self._logprobs:
                    choice["logprobs"] = _logprobs(chunk.logprobs)
                events.append(self._event([choice]))
            if chunk.finish is not None:
                last = self._stream_choice(chunk.index, {}, _finish(chunk.finish))
                final = usage if self.dialect == "deepseek" else None
                events.append(self._event([last], final))
        return b"".join(events)

    def _is_plain(self, chunk: Chunk) -> bool:
        """Whether it is a piece of one text and nothing else: nearly every token is."""
        has_one_text = bool(chunk.content) != bool(chunk.reasoning)
        return has_one_text and not (chunk.tools or self._logprobs or chunk.finish)

    def _plain_event(self, chunk: Chunk) -> bytes:
        """What `_event` makes of a plain chunk, with less work."""
        name = "content" if chunk.content else "reasoning_content"
        text = to_json(chunk.content or chunk.reasoning)
        choice = f'[{{"index":{chunk.index},"delta":{{"{name}":{text}}}{_PLAIN_END}]'
        return f"{self._before}{choice}{self._after}".encode("utf-8", "replace")

    def add(self, chunks: list[Chunk]) -> None:
        for chunk in chunks:
            self._choices[chunk.index].add(chunk)

    def whole(self, usage: Usage) -> dict[str, Any]:
        return {
            **self._head,
            "object": "chat.completion",
            "choices": [self._whole_choice(i, c) for i, c in enumerate(self._choices)],
            "usage": usage_object(usage),
        }

    def _whole_choice(self, index: int, choice: _Choice) -> dict[str, Any]:
        content = "".join(choice.content)
        message: dict[str, Any] = {"role": "assistant", "content": content}
        reasoning = "".join(choice.reasoning)
        if self._thinks or reasoning:
            message["reasoning_content"] = reasoning
        if choice.calls:
            message["tool_calls"] = choice.calls
            message["content"] = content or None
        return {
            "index": index,
            "message": message,
            "logprobs": _logprobs(choice.logprobs) if self._logprobs else None,
            "finish_reason": _finish(choice.finish or "stop"),
        }

    def _stream_choice(
        self, index: int, delta: dict[str, Any], finish: str | None = None
    ) -> dict[str, Any]:
        return {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}


def _delta(chunk: Chunk) -> dict[str, Any]:
    delta: dict[str, Any] = {}
    if chunk.reasoning:
        delta["reasoning_content"] = chunk.reasoning
    if chunk.content:
        delta["content"] = chunk.content
    if chunk.tools:
        delta["tool_calls"] = [_tool_delta(found) for found in chunk.tools]
    return delta


def _tool_delta(found: ToolCallStart | ToolCallArguments) -> dict[str, Any]:
    if isinstance(found, ToolCallStart):
        function = {"name": found.name, "arguments": ""}
        return {"index": found.index, "id": found.id, "type": "function", "function": function}
    return {"index": found.index, "function": {"arguments": found.text}}


def _finish(finish: str) -> str:
    """A cut-off answer is too short, whoever cut it."""
    return "length" if finish == "cancelled" else finish


def _logprobs(found: list[TokenLogprob]) -> dict[str, Any]:
    """Of answer and thinking apart, as DeepSeek has it; OpenAI's clients read the first."""
    answer = [logprob_entry(one) for one in found if not one.is_reasoning]
    thinking = [logprob_entry(one) for one in found if one.is_reasoning]
    value: dict[str, Any] = {"content": answer, "refusal": None}
    if thinking:
        value["reasoning_content"] = thinking
    return value
