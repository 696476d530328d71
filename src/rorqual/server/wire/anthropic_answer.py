"""Answers of Anthropic's /v1/messages: content blocks, whole or as events."""

import json
from typing import Any, Literal

from rorqual.engine import Usage
from rorqual.engine.tool_calls import ToolCallArguments, ToolCallStart
from rorqual.server.backends import Chunk
from rorqual.server.errors import Dialect
from rorqual.server.wire.answer import event

_Kind = Literal["thinking", "text", "tool_use"]


class MessagesAnswer:
    """Writes one message. Blocks follow each other; each is closed before the next begins."""

    dialect: Dialect = "anthropic"

    def __init__(self, *, request_id: str, model: str, prompt_tokens: int) -> None:
        self._id = request_id
        self._model = model
        self._prompt_tokens = prompt_tokens
        self._blocks: list[dict[str, Any]] = []
        self._open: _Kind | None = None
        self._arguments: list[str] = []
        self._finish = "stop"
        self._stop_string: str | None = None

    def begin(self) -> bytes:
        message = self._message([], None, Usage(self._prompt_tokens, 0, 0, 0))
        return event({"type": "message_start", "message": message}, "message_start")

    def write(self, chunks: list[Chunk], usage: Usage | None) -> bytes:
        events: list[dict[str, Any]] = []
        for chunk in chunks:
            if chunk.reasoning:
                self._text(events, "thinking", chunk.reasoning)
            if chunk.content:
                self._text(events, "text", chunk.content)
            for found in chunk.tools:
                self._tool(events, found)
            if chunk.finish is not None:
                self._finish, self._stop_string = chunk.finish, chunk.stop_string
        return b"".join(event(value, value["type"]) for value in events)

    def end(self, usage: Usage) -> bytes:
        events: list[dict[str, Any]] = []
        self._close(events)
        delta = {"stop_reason": self._stop_reason(), "stop_sequence": self._stop_string}
        events.append({"type": "message_delta", "delta": delta, "usage": _usage(usage)})
        events.append({"type": "message_stop"})
        return b"".join(event(value, value["type"]) for value in events)

    def fail(self, body: dict[str, Any]) -> bytes:
        return event(body, "error")

    def keep_alive(self) -> bytes:
        return event({"type": "ping"}, "ping")

    def add(self, chunks: list[Chunk]) -> None:
        self.write(chunks, None)

    def whole(self, usage: Usage) -> dict[str, Any]:
        self._close([])
        return self._message(self._blocks, self._stop_reason(), usage)

    def _text(self, events: list[dict[str, Any]], kind: Literal["thinking", "text"], text: str
    ) -> None:  # fmt: skip
        if self._open != kind:
            self._close(events)
            block = {"type": kind, kind: ""} | ({"signature": ""} if kind == "thinking" else {})
            self._start(events, kind, block)
        self._blocks[-1][kind] += text
        self._delta(events, {"type": f"{kind}_delta", kind: text})

    def _tool(self, events: list[dict[str, Any]], found: ToolCallStart | ToolCallArguments) -> None:
        if isinstance(found, ToolCallStart):
            self._close(events)
            name = f"toolu_{found.id.removeprefix('call_')}"
            block = {"type": "tool_use", "id": name, "name": found.name, "input": {}}
            self._start(events, "tool_use", block)
            self._arguments = []
            return
        self._arguments.append(found.text)
        self._delta(events, {"type": "input_json_delta", "partial_json": found.text})

    def _start(self, events: list[dict[str, Any]], kind: _Kind, block: dict[str, Any]) -> None:
        self._open = kind
        self._blocks.append(block)
        index = len(self._blocks) - 1
        started = {"type": "content_block_start", "index": index, "content_block": dict(block)}
        events.append(started)

    def _delta(self, events: list[dict[str, Any]], delta: dict[str, Any]) -> None:
        index = len(self._blocks) - 1
        events.append({"type": "content_block_delta", "index": index, "delta": delta})

    def _close(self, events: list[dict[str, Any]]) -> None:
        if self._open is None:
            return
        if self._open == "thinking":
            self._delta(events, {"type": "signature_delta", "signature": ""})
        if self._open == "tool_use":
            self._blocks[-1]["input"] = _arguments("".join(self._arguments))
        events.append({"type": "content_block_stop", "index": len(self._blocks) - 1})
        self._open = None

    def _stop_reason(self) -> str:
        if self._finish == "stop":
            return "end_turn" if self._stop_string is None else "stop_sequence"
        return {"tool_calls": "tool_use"}.get(self._finish, "max_tokens")

    def _message(
        self, blocks: list[dict[str, Any]], stop_reason: str | None, usage: Usage
    ) -> dict[str, Any]:
        return {
            "id": self._id,
            "type": "message",
            "role": "assistant",
            "model": self._model,
            "content": blocks,
            "stop_reason": stop_reason,
            "stop_sequence": self._stop_string,
            "usage": _usage(usage),
        }


def _usage(usage: Usage) -> dict[str, Any]:
    return {
        "input_tokens": usage.prompt_tokens - usage.cached_tokens,
        "cache_read_input_tokens": usage.cached_tokens,
        "cache_creation_input_tokens": 0,
        "output_tokens": usage.completion_tokens,
    }


def _arguments(text: str) -> Any:
    """A call's input; one that the model did not finish is shown as it is."""
    try:
        return json.loads(text) if text else {}
    except ValueError:
        return {"unfinished": text}
