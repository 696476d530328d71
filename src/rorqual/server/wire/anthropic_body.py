"""The body of Anthropic's /v1/messages, as a conversation in OpenAI's shape."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

from pydantic import Field

from rorqual.config.http import GenerationConfig
from rorqual.errors import RequestError
from rorqual.server.backends import ChatInput, GenerationRequest, ModelInfo
from rorqual.server.wire.chat_body import MAX_TOOLS
from rorqual.server.wire.fields import FieldTable, StrictBody
from rorqual.server.wire.sampling_body import StopText
from rorqual.server.wire.thinking import Effort, ThinkingPlan, ThinkingSwitch, plan_thinking


class Metadata(StrictBody):
    """Whom the request is for."""

    user_id: str | None = Field(None, max_length=512)


class OutputConfig(StrictBody):
    """How much effort, and in which form."""

    effort: Effort | None = None
    format: dict[str, Any] | None = None


class ToolChoice(StrictBody):
    """Whether and which tool."""

    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool = False


class MessagesBody(StrictBody):
    """POST /anthropic/v1/messages."""

    model: str = Field(max_length=200)
    messages: list[dict[str, Any]] = Field(min_length=1)
    max_tokens: int = Field(ge=1)
    system: str | list[dict[str, Any]] | None = None
    temperature: float | None = Field(None, ge=0, le=1)
    top_p: float | None = Field(None, gt=0, le=1)
    top_k: int | None = Field(None, ge=0)
    stop_sequences: list[StopText] | None = Field(None, max_length=16)
    stream: bool = False
    thinking: ThinkingSwitch | None = None
    tools: list[dict[str, Any]] | None = Field(None, max_length=MAX_TOOLS)
    tool_choice: ToolChoice | None = None
    metadata: Metadata | None = None
    output_config: OutputConfig | None = None


ANTHROPIC_TABLE: Final = FieldTable(
    MessagesBody,
    frozenset(
        {
            "container",
            "mcp_servers",
            "service_tier",
            "context_management",
            "inference_geo",
            "cache_control",
        }
    ),
    {"max_tokens_to_sample": "use max_tokens", "prompt": "use messages"},
)


def messages_request(
    body: MessagesBody,
    info: ModelInfo,
    config: GenerationConfig,
    *,
    request_id: str,
    cache_salt: bytes,
) -> tuple[GenerationRequest, ThinkingPlan]:
    """The request, and how it thinks (not at all unless asked to, as in the original)."""
    if len(body.messages) > config.max_messages:
        raise RequestError(
            f"messages: {len(body.messages)} of them; at most {config.max_messages}, send fewer",
            param="messages",
        )
    output = body.output_config or OutputConfig()
    plan = plan_thinking(info, config, switch=body.thinking, effort=output.effort, by_default=False)
    choice = body.tool_choice or ToolChoice(type="auto")
    if choice.type in ("any", "tool") and plan.is_on:
        raise RequestError(
            f"tool_choice.type={choice.type} cannot be combined with thinking; disable thinking",
            param="tool_choice",
        )
    messages = _system(body.system) + [
        converted
        for index, message in enumerate(body.messages)
        for converted in _converted(message, f"messages.{index}")
    ]
    sampling: dict[str, Any] = {
        "max_tokens": body.max_tokens,
        "temperature": body.temperature,
        "top_p": body.top_p,
        "top_k": body.top_k,
        "stop": None if body.stop_sequences is None else tuple(body.stop_sequences),
        "thinking_budget": plan.budget_tokens,
    }
    given = ChatInput(
        messages=tuple(messages),
        tools=tuple(_tool(tool, index) for index, tool in enumerate(body.tools or ())),
        tool_choice={"any": "required", "tool": "named"}.get(choice.type, choice.type),
        named_tool=choice.name if choice.type == "tool" else None,
        one_call=choice.disable_parallel_tool_use,
        response_format=_form(output.format),
        schema_param="output_config.format.schema",
        thinking=plan.thinking,
        continue_last=body.messages[-1].get("role") == "assistant",
    )
    request = GenerationRequest(
        id=request_id,
        model=info.name,
        input=given,
        sampling={name: value for name, value in sampling.items() if value is not None},
        cache_salt=cache_salt,
    )
    return request, plan


def _form(wanted: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    if wanted is None:
        return None
    if wanted.get("type") != "json_schema" or not isinstance(wanted.get("schema"), dict):
        raise RequestError(
            "output_config.format: expected {'type': 'json_schema', 'schema': {...}}",
            param="output_config.format",
        )
    return {"type": "json_schema", "json_schema": {"schema": wanted["schema"]}}


def _system(system: str | list[dict[str, Any]] | None) -> list[dict[str, Any]]:
    if not system:
        return []
    return [{"role": "system", "content": _text(system, "system")}]


def _text(content: object, where: str) -> str:
    """The text of a string or of text blocks."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise _invalid(where, "expected a string or a list of blocks")
    texts: list[str] = []
    for index, block in enumerate(content):
        if not isinstance(block, dict) or block.get("type") != "text":
            kind = block.get("type") if isinstance(block, dict) else type(block).__name__
            raise _invalid(f"{where}.{index}", f"a block of type {kind!r}; only text is read here")
        if not isinstance(block.get("text"), str):
            raise _invalid(f"{where}.{index}.text", "expected a string")
        texts.append(block["text"])
    return "".join(texts)


def _converted(message: Mapping[str, Any], where: str) -> list[dict[str, Any]]:
    """One message, or a tool's results and the user's text apart."""
    role, content = message.get("role"), message.get("content")
    if role not in ("user", "assistant", "system"):
        raise _invalid(f"{where}.role", f"{role!r}; expected user or assistant")
    unknown = set(message) - {"role", "content"}
    if unknown:
        raise _invalid(f"{where}.{min(unknown)}", "is not a known field; leave it out")
    if isinstance(content, str):
        return [{"role": role, "content": content}]
    if not isinstance(content, list):
        raise _invalid(f"{where}.content", "expected a string or a list of blocks")
    if role == "assistant":
        return [_assistant(content, f"{where}.content")]
    return _user(role, content, f"{where}.content")


def _user(role: str, blocks: Sequence[Any], where: str) -> list[dict[str, Any]]:
    converted: list[dict[str, Any]] = []
    texts: list[Any] = []
    for index, block in enumerate(blocks):
        if isinstance(block, dict) and block.get("type") == "tool_result":
            name = block.get("tool_use_id")
            if not isinstance(name, str):
                raise _invalid(f"{where}.{index}.tool_use_id", "expected a string")
            content = _text(block.get("content"), f"{where}.{index}.content")
            converted.append({"role": "tool", "tool_call_id": name, "content": content})
        else:
            texts.append(block)
    if texts:
        converted.append({"role": role, "content": _text(texts, where)})
    return converted


def _assistant(blocks: Sequence[Any], where: str) -> dict[str, Any]:
    texts: list[Any] = []
    reasoning: list[str] = []
    calls: list[dict[str, Any]] = []
    for index, block in enumerate(blocks):
        kind = block.get("type") if isinstance(block, dict) else None
        place = f"{where}.{index}"
        if kind == "thinking":
            if not isinstance(block.get("thinking"), str):
                raise _invalid(f"{place}.thinking", "expected a string")
            reasoning.append(block["thinking"])
        elif kind == "tool_use":
            calls.append(_tool_use(block, place))
        elif kind != "redacted_thinking":
            texts.append(block)
    message: dict[str, Any] = {"role": "assistant", "content": _text(texts, where)}
    if reasoning:
        message["reasoning_content"] = "".join(reasoning)
    if calls:
        message["tool_calls"] = calls
    return message


def _tool_use(block: Mapping[str, Any], where: str) -> dict[str, Any]:
    if not isinstance(block.get("name"), str) or not isinstance(block.get("input"), dict):
        raise _invalid(where, "expected a name and an input object")
    arguments = json.dumps(block["input"], ensure_ascii=False)
    function = {"name": block["name"], "arguments": arguments}
    return {"id": str(block.get("id") or ""), "type": "function", "function": function}


def _tool(tool: Mapping[str, Any], index: int) -> dict[str, Any]:
    where = f"tools.{index}"
    if tool.get("type", "custom") != "custom":
        raise _invalid(f"{where}.type", f"{tool['type']!r}; only tools of your own are known here")
    name, schema = tool.get("name"), tool.get("input_schema")
    if not isinstance(name, str) or not 0 < len(name) <= 64:
        raise _invalid(f"{where}.name", "expected 1 to 64 characters")
    if not isinstance(schema, dict):
        raise _invalid(f"{where}.input_schema", "expected a JSON schema object")
    function: dict[str, Any] = {"name": name, "parameters": schema}
    if isinstance(tool.get("description"), str):
        function["description"] = tool["description"]
    return {"type": "function", "function": function}


def _invalid(where: str, problem: str) -> RequestError:
    return RequestError(f"{where}: {problem}", code="invalid_messages", param=where)
