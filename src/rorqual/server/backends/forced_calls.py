"""A tool call that the client demands: the prompt opens it, a structure keeps its arguments valid.

With one function in question the answer begins inside the call's markup, and what the model writes
is arguments that fit the function's schema; with several it writes name and arguments as one JSON
object. Where the model would think first, thinking is closed: the call comes whatever it thinks.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rorqual.engine.reasoning import ReasoningMarkers, ReasoningSplitter
from rorqual.engine.structure import Structure
from rorqual.engine.tool_calls import FENCE_OPEN, ToolCallArguments, ToolCallStart, new_call_id
from rorqual.errors import RequestError
from rorqual.server.backends.base import ChatInput
from rorqual.tokenizer import Tokenizer
from rorqual.tokenizer.special import TOOL_CALL_BEGIN, TOOL_CALLS_BEGIN, TOOL_SEP


@dataclass(frozen=True, slots=True)
class ForcedCall:
    """The function (None: the model names it), the prompt, and what must follow it."""

    name: str | None
    prompt_ids: list[int]
    structure: Structure


def force_call(
    tokenizer: Tokenizer, markers: ReasoningMarkers | None, chat: ChatInput
) -> ForcedCall | None:
    """The call that must be made, None if the model may choose."""
    if chat.tool_choice not in ("required", "named"):
        return None
    functions = _functions(chat)
    special = tokenizer.special_tokens
    if TOOL_CALLS_BEGIN not in special:
        raise RequestError(
            f"tool_choice={chat.tool_choice}: this model has no markup for tool calls; use auto",
            code="unsupported_parameter",
            param="tool_choice",
        )
    ids = tokenizer.encode_messages(
        chat.messages, tools=list(chat.tools), add_generation_prompt=True, thinking=chat.thinking
    )
    if markers is not None and ReasoningSplitter.for_prompt(tokenizer, markers, ids).in_reasoning:
        ids = [*ids, *markers.end_ids, *tokenizer.encode("\n\n")]
    if len(functions) > 1:
        schema = {"anyOf": [_call_schema(function) for function in functions]}
        return ForcedCall(None, ids, Structure.json_schema(schema, param="tools"))
    name = functions[0]["name"]
    ids += [special[TOOL_CALLS_BEGIN], *call_head(tokenizer, name)]
    return ForcedCall(name, ids, Structure.json_schema(_parameters(functions[0]), param="tools"))


def call_head(tokenizer: Tokenizer, name: str) -> list[int]:
    """Ids of a call up to where its arguments begin."""
    special = tokenizer.special_tokens
    return [
        special[TOOL_CALL_BEGIN],
        *tokenizer.encode("function"),
        special[TOOL_SEP],
        *tokenizer.encode(f"{name}\n{FENCE_OPEN}"),
    ]


def named_call(text: str) -> tuple[ToolCallStart | ToolCallArguments, ...]:
    """The call in name-and-arguments JSON; nothing if the answer was cut off before its end."""
    try:
        found = json.loads(text)
    except ValueError:
        return ()
    arguments = json.dumps(found["arguments"], ensure_ascii=False)
    return (ToolCallStart(0, new_call_id(), found["name"]), ToolCallArguments(0, arguments))


def _call_schema(function: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {"name": {"const": function["name"]}, "arguments": _parameters(function)},
        "required": ["name", "arguments"],
        "additionalProperties": False,
    }


def _parameters(function: Mapping[str, Any]) -> Mapping[str, Any]:
    return function.get("parameters") or {"type": "object"}


def _functions(chat: ChatInput) -> list[Mapping[str, Any]]:
    """The functions in question."""
    functions = [tool["function"] for tool in chat.tools]
    if chat.named_tool is not None:
        functions = [found for found in functions if found["name"] == chat.named_tool]
    if not functions:
        raise RequestError(
            f"tool_choice asks for {chat.named_tool or 'a call'}, which is not among tools; add it",
            param="tool_choice",
        )
    return functions
