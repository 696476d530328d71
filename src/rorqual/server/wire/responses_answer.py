"""Answers of OpenAI's /v1/responses: items, whole or as numbered events.

Thinking is open here, so it comes as the text of a reasoning item, not as a summary. A text item
ends when another item begins; calls end with the answer, since an upstream may write several at a
time.
"""

import time
from dataclasses import dataclass, field
from typing import Any, Literal

from rorqual.engine import Usage
from rorqual.engine.tool_calls import ToolCallArguments, ToolCallStart
from rorqual.server.backends import Chunk
from rorqual.server.errors import Dialect
from rorqual.server.wire.answer import event, logprob_entry
from rorqual.server.wire.responses_items import item_id

_Event = dict[str, Any]
_INCOMPLETE = {"length": "max_output_tokens", "cancelled": "max_output_tokens",
               "content_filter": "content_filter"}  # fmt: skip

_ERROR_CODES = {
    "rate_limit_error": "rate_limit_exceeded",
    "invalid_request_error": "invalid_prompt",
}


@dataclass(slots=True)
class _Item:
    """One item being written."""

    kind: Literal["reasoning", "message", "function_call"]
    id: str
    index: int
    call: ToolCallStart | None = None
    pieces: list[str] = field(default_factory=list[str])
    logprobs: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    status: Literal["in_progress", "completed", "incomplete"] = "in_progress"

    @property
    def text(self) -> str:
        return "".join(self.pieces)

    @property
    def text_type(self) -> str:
        return "reasoning_text" if self.kind == "reasoning" else "output_text"

    def part(self) -> dict[str, Any]:
        """The one part of a message or of a reasoning item."""
        part: dict[str, Any] = {"type": self.text_type, "text": self.text}
        if self.kind == "message":
            part |= {"annotations": [], "logprobs": list(self.logprobs)}
        return part

    def shown(self) -> dict[str, Any]:
        """The item as it stands; one that has just begun has no part yet."""
        head = {"id": self.id, "type": self.kind, "status": self.status}
        if self.call is not None:
            call = {"call_id": self.call.id, "name": self.call.name, "arguments": self.text}
            return head | call
        content = [self.part()] if self.pieces else []
        if self.kind == "reasoning":
            return head | {"summary": [], "content": content}
        return head | {"role": "assistant", "content": content}


class ResponseAnswer:
    """Writes one response. head: what the response object says of its request."""

    dialect: Dialect = "openai"

    def __init__(self, head: dict[str, Any], *, logprobs: bool) -> None:
        self._head = head | {"created_at": int(time.time())}
        self._logprobs = logprobs
        self._items: list[_Item] = []
        self._open: _Item | None = None  # a text item
        self._calls: dict[int, _Item] = {}
        self._entries: list[dict[str, Any]] = []  # of text that was held back
        self._finish = "stop"
        self._number = 0
        self._has_begun = False
        self._ended: tuple[dict[str, Any], list[_Event]] | None = None

    def begin(self) -> bytes:
        self._has_begun = True
        response = self._response("in_progress", None)
        return self._encoded(
            [{"type": f"response.{name}", "response": response}
             for name in ("created", "in_progress")]
        )  # fmt: skip

    def write(self, chunks: list[Chunk], usage: Usage | None) -> bytes:
        return self._encoded(self._taken(chunks))

    def end(self, usage: Usage) -> bytes:
        response = self.whole(usage)
        assert self._ended is not None
        name = "completed" if response["status"] == "completed" else "incomplete"
        return self._encoded([*self._ended[1], {"type": f"response.{name}", "response": response}])

    def fail(self, body: dict[str, Any]) -> bytes:
        error = body["error"]
        code = _ERROR_CODES.get(error["type"], "server_error")
        head = b"" if self._has_begun else self.begin()
        for item in self._items:
            if item.status == "in_progress":
                item.status = "incomplete"
        failed = self._response("failed", None)
        failed["error"] = {"code": code, "message": error["message"]}
        return head + self._encoded([{"type": "response.failed", "response": failed}])

    def keep_alive(self) -> bytes:
        return b": keep-alive\n\n"

    def add(self, chunks: list[Chunk]) -> None:
        self._taken(chunks)

    def whole(self, usage: Usage) -> dict[str, Any]:
        """The response object; asked for again, it is the same one."""
        if self._ended is None:
            reason = _INCOMPLETE.get(self._finish)
            events: list[_Event] = []
            left = [item for item in self._items if item.status == "in_progress"]
            for item in left:
                is_cut = reason is not None and item is self._items[-1]
                self._close(events, item, "incomplete" if is_cut else "completed")
            response = self._response("completed" if reason is None else "incomplete", usage)
            if reason is not None:
                response["incomplete_details"] = {"reason": reason}
            response["completed_at"] = int(time.time()) if reason is None else None
            self._ended = (response, events)
        return self._ended[0]

    def _taken(self, chunks: list[Chunk]) -> list[_Event]:
        events: list[_Event] = []
        for chunk in chunks:
            if self._logprobs and not chunk.tools:
                self._entries += [logprob_entry(e) for e in chunk.logprobs if not e.is_reasoning]
            if chunk.reasoning:
                self._text(events, "reasoning", chunk.reasoning)
            if chunk.content:
                self._text(events, "message", chunk.content)
            for found in chunk.tools:
                self._tool(events, found)
            if chunk.finish is not None:
                self._finish = chunk.finish
        return events

    def _text(self, events: list[_Event], kind: Literal["reasoning", "message"], text: str) -> None:
        item = self._open
        if item is None or item.kind != kind:
            self._close_text(events)
            item = self._open = self._begun(events, kind)
            part = self._about(item, "response.content_part.added", part=item.part())
            events.append(part)
        item.pieces.append(text)
        delta = self._about(item, f"response.{item.text_type}.delta", delta=text)
        if kind == "message":
            delta["logprobs"] = self._entries
            item.logprobs += self._entries
            self._entries = []
        events.append(delta)

    def _tool(self, events: list[_Event], found: ToolCallStart | ToolCallArguments) -> None:
        if isinstance(found, ToolCallStart):
            self._close_text(events)
            self._calls[found.index] = self._begun(events, "function_call", found)
            return
        item = self._calls[found.index]
        item.pieces.append(found.text)
        events.append(self._about(item, "response.function_call_arguments.delta", delta=found.text))

    def _begun(
        self,
        events: list[_Event],
        kind: Literal["reasoning", "message", "function_call"],
        call: ToolCallStart | None = None,
    ) -> _Item:
        index = len(self._items)
        short = {"reasoning": "rs", "message": "msg"}.get(kind, "fc")
        name = item_id(short, self._head["id"], str(index))  # pyright: ignore[reportArgumentType]
        item = _Item(kind, name, index, call)
        self._items.append(item)
        shown = {"output_index": index, "item": item.shown()}
        events.append({"type": "response.output_item.added", **shown})
        return item

    def _close_text(self, events: list[_Event]) -> None:
        if self._open is not None:
            self._close(events, self._open, "completed")
            self._open = None

    def _close(
        self, events: list[_Event], item: _Item, status: Literal["completed", "incomplete"]
    ) -> None:
        item.status = status
        if item.kind == "function_call":
            name = "response.function_call_arguments.done"
            events.append(self._about(item, name, arguments=item.text))
        else:
            if item.kind == "message":
                item.logprobs += self._entries
                self._entries = []
            done = self._about(item, f"response.{item.text_type}.done", text=item.text)
            if item.kind == "message":
                done["logprobs"] = item.logprobs
            part = self._about(item, "response.content_part.done", part=item.part())
            events += [done, part]
        shown = {"output_index": item.index, "item": item.shown()}
        events.append({"type": "response.output_item.done", **shown})

    def _about(self, item: _Item, name: str, **more: Any) -> _Event:
        """An event of an item."""
        where: _Event = {"type": name, "item_id": item.id, "output_index": item.index}
        if item.kind != "function_call":
            where["content_index"] = 0
        return where | more

    def _response(self, status: str, usage: Usage | None) -> dict[str, Any]:
        return {
            **self._head,
            "status": status,
            "completed_at": None,
            "error": None,
            "incomplete_details": None,
            "output": [item.shown() for item in self._items],
            "usage": None if usage is None else _usage(usage),
        }

    def _encoded(self, events: list[_Event]) -> bytes:
        """Server-sent events, numbered in their order."""
        encoded: list[bytes] = []
        for value in events:
            numbered = {"type": value["type"], "sequence_number": self._number, **value}
            encoded.append(event(numbered, value["type"]))
            self._number += 1
        return b"".join(encoded)


def _usage(usage: Usage) -> dict[str, Any]:
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }
