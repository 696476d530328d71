"""The body of /chat/completions: OpenAI's and DeepSeek's fields, and a few of vLLM's."""

import json
import re
from collections.abc import Mapping
from typing import Any, Final, Literal

from pydantic import Field

from rorqual.config.http import GenerationConfig
from rorqual.errors import RequestError
from rorqual.server.backends import ChatInput, GenerationRequest, ModelInfo
from rorqual.server.wire.fields import FieldTable, StrictBody
from rorqual.server.wire.sampling_body import SamplingBody, check_samples
from rorqual.server.wire.thinking import (
    Effort,
    ThinkingPlan,
    ThinkingSwitch,
    forced_call_plan,
    plan_thinking,
)

MAX_TOOLS: Final = 128
_TOOL_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_MESSAGE_KEYS: Final = (
    "role",
    "content",
    "reasoning_content",
    "tool_calls",
    "tool_call_id",
    "name",
)
_UNSET_IN_THINKING: Final = ("temperature", "top_p")


class TemplateKwargs(StrictBody):
    """The two switches that templates of thinking models read; nothing else reaches a template."""

    thinking: bool | None = None
    enable_thinking: bool | None = None


class ChatBody(SamplingBody):
    """POST /chat/completions."""

    messages: list[dict[str, Any]] = Field(min_length=1)
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    logprobs: bool = False
    top_logprobs: int | None = Field(None, ge=0, le=20)
    response_format: dict[str, Any] | None = None
    tools: list[dict[str, Any]] | None = Field(None, max_length=MAX_TOOLS)
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool = True
    thinking: ThinkingSwitch | None = None
    reasoning_effort: Effort | None = None
    modalities: list[Literal["text"]] | None = None
    chat_template_kwargs: TemplateKwargs | None = None


_IGNORED: Final = frozenset(
    {
        "store",
        "metadata",
        "service_tier",
        "prompt_cache_key",
        "prompt_cache_retention",
        "safety_identifier",
        "verbosity",
    }
)
_REFUSED: Final = {
    "functions": "use tools",
    "function_call": "use tool_choice",
    "audio": "leave it out: models here read and write text",
    "prediction": "leave it out",
    "web_search_options": "leave it out",
    "chat_template": "templates come with the model; leave it out",
    "best_of": "use n",
    "echo": "use /completions",
    "suffix": "use /completions",
    "prompt": "use messages",
}
OPENAI_CHAT: Final = FieldTable(ChatBody, _IGNORED, _REFUSED)
DEEPSEEK_CHAT: Final = FieldTable(
    ChatBody, _IGNORED | {"frequency_penalty", "presence_penalty"}, _REFUSED
)


def chat_request(
    body: ChatBody,
    info: ModelInfo,
    config: GenerationConfig,
    *,
    request_id: str,
    cache_salt: bytes,
    like_deepseek: bool,
) -> tuple[GenerationRequest, ThinkingPlan, tuple[str, ...]]:
    """The request, how it thinks, and fields that turn out to have no effect."""
    if len(body.messages) > config.max_messages:
        raise RequestError(
            f"messages: {len(body.messages)} of them; at most {config.max_messages}, send fewer",
            param="messages",
        )
    check_samples(body.n, config)
    kwargs = body.chat_template_kwargs or TemplateKwargs()
    wanted = kwargs.thinking if kwargs.thinking is not None else kwargs.enable_thinking
    plan = plan_thinking(
        info, config, switch=body.thinking, effort=body.reasoning_effort, wanted=wanted
    )
    choice, named_tool = _tool_choice(body)
    if choice in ("required", "named") and plan.is_on:
        if like_deepseek and body.thinking is not None:
            raise RequestError(
                f"tool_choice={choice} cannot be combined with thinking; disable thinking",
                code="unsupported_parameter",
                param="tool_choice",
            )
        plan = forced_call_plan(info)
    sampling = chat_sampling(body)
    unused: tuple[str, ...] = ()
    if like_deepseek and plan.is_on:  # inert there, too: the model's own settings are used
        unused = tuple(name for name in _UNSET_IN_THINKING if sampling.pop(name, None) is not None)
    if info.thinking == "never" and body.reasoning_effort not in (None, "none"):
        unused += ("reasoning_effort",)
    if plan.budget_tokens is not None:
        sampling["thinking_budget"] = plan.budget_tokens
    given = ChatInput(
        messages=tuple(_message(raw, i) for i, raw in enumerate(body.messages)),
        tools=tuple(_checked_tool(tool, i) for i, tool in enumerate(body.tools or ())),
        tool_choice=choice,
        named_tool=named_tool,
        one_call=not body.parallel_tool_calls,
        response_format=_response_format(body),
        thinking=plan.thinking,
        continue_last=body.messages[-1].get("prefix") is True,
    )
    request = GenerationRequest(
        id=request_id,
        model=info.name,
        input=given,
        sampling=sampling,
        default_tokens=config.max_tokens,
        cache_salt=cache_salt,
    )
    return request, plan, unused


def chat_sampling(body: ChatBody) -> dict[str, Any]:
    """The fields of SamplingParams that were set."""
    values = body.sampling()
    max_tokens = body.max_completion_tokens or body.max_tokens
    if max_tokens is not None:
        values["max_tokens"] = max_tokens
    if body.top_logprobs is not None and not body.logprobs:
        raise RequestError("top_logprobs needs logprobs=true; set it", param="top_logprobs")
    if body.logprobs:
        values["logprobs"] = body.top_logprobs or 0
    return values


def _message(raw: Mapping[str, Any], index: int) -> dict[str, Any]:
    """The keys that mean something; `developer` is what others call system."""
    message = {key: raw[key] for key in _MESSAGE_KEYS if raw.get(key) is not None}
    if message.get("role") == "developer":
        message["role"] = "system"
    if message.get("role") == "function":
        raise RequestError(
            f"messages[{index}].role is 'function'; use role 'tool'",
            code="invalid_messages",
            param=f"messages[{index}].role",
        )
    if "content" not in message and message.get("role") == "assistant":
        message["content"] = None if raw.get("tool_calls") else ""
    return message


def _checked_tool(tool: Mapping[str, Any], index: int) -> Mapping[str, Any]:
    where = f"tools[{index}]"
    function = tool.get("function")
    if tool.get("type") != "function" or not isinstance(function, dict):
        raise RequestError(
            f"{where}: expected {{'type': 'function', 'function': {{'name': ...}}}}", param=where
        )
    check_function(function, f"{where}.function")
    return tool


def check_function(function: Mapping[str, Any], where: str) -> None:
    """RequestError unless a function has a name, and parameters that fit its strictness."""
    name = function.get("name")
    if not isinstance(name, str) or not _TOOL_NAME.fullmatch(name):
        raise RequestError(
            f"{where}.name: expected 1 to 64 letters, digits, _ or -", param=f"{where}.name"
        )
    parameters = function.get("parameters")
    if parameters is not None and not isinstance(parameters, dict):
        raise RequestError(
            f"{where}.parameters: expected a JSON schema object", param=f"{where}.parameters"
        )
    if function.get("strict") is True:
        _check_strict(parameters or {}, f"{where}.parameters")


def _check_strict(schema: Mapping[str, Any], where: str) -> None:
    """A strict function's object requires all its properties and allows no others."""
    properties = schema.get("properties", {})
    required = schema.get("required", [])
    complete = isinstance(properties, dict) and isinstance(required, list)
    if not complete or set(properties) != set(map(str, required)):
        raise RequestError(
            f"{where}: strict is true, so every property must be in required; list them all",
            param=where,
        )
    if schema.get("additionalProperties") is not False:
        raise RequestError(
            f"{where}: strict is true, so additionalProperties must be false; add it", param=where
        )


def _tool_choice(body: ChatBody) -> tuple[str, str | None]:
    """(auto | none | required | named, the function's name)."""
    choice = "auto" if body.tool_choice is None else body.tool_choice
    if isinstance(choice, str) and choice not in ("auto", "none", "required"):
        raise RequestError(
            f"tool_choice={choice[:40]!r}; expected auto, none, required or a function",
            param="tool_choice",
        )
    if not body.tools and choice not in ("auto", "none"):
        raise RequestError("tool_choice needs tools; add them", param="tool_choice")
    if isinstance(choice, str):
        return choice, None
    function = choice.get("function")
    name = function.get("name") if isinstance(function, dict) else None
    if choice.get("type") != "function" or not isinstance(name, str):
        raise RequestError(
            "tool_choice: expected {'type': 'function', 'function': {'name': ...}}",
            param="tool_choice",
        )
    return "named", name


def _response_format(body: ChatBody) -> Mapping[str, Any] | None:
    wanted = body.response_format
    if wanted is None or wanted.get("type") == "text":
        return None
    kind = wanted.get("type")
    if kind == "json_object":
        if "json" not in json.dumps(body.messages, ensure_ascii=False).lower():
            raise RequestError(
                "response_format is json_object, but no message says 'json'; ask for JSON in one",
                param="messages",
            )
        return wanted
    described = wanted.get("json_schema")
    if kind != "json_schema" or not isinstance(described, dict):
        raise RequestError(
            "response_format.type: expected text, json_object or json_schema with its schema",
            param="response_format",
        )
    if not isinstance(described.get("schema"), dict):
        raise RequestError(
            "response_format.json_schema.schema: expected a JSON schema object",
            param="response_format.json_schema.schema",
        )
    return wanted
