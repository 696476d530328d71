"""The body of OpenAI's /v1/responses, as a conversation in the shape of chat completions."""

import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, Literal

from pydantic import Field

from rorqual.config.http import GenerationConfig
from rorqual.errors import RequestError
from rorqual.server.backends import ChatInput, GenerationRequest, ModelInfo
from rorqual.server.wire.chat_body import MAX_TOOLS, check_function
from rorqual.server.wire.fields import FieldTable, StrictBody
from rorqual.server.wire.responses_items import Item, conversation
from rorqual.server.wire.thinking import Effort, ThinkingPlan, forced_call_plan, plan_thinking
from rorqual.tokenizer.messages import check_object

_LOGPROBS: Final = "message.output_text.logprobs"
_FUNCTION_KEYS: Final = frozenset({"type", "name", "description", "parameters", "strict"})
_FORMAT_KEYS: Final = frozenset({"type", "name", "description", "schema", "strict"})
Includable = Literal[
    "message.output_text.logprobs",
    "reasoning.encrypted_content",
    "message.input_image.image_url",
    "file_search_call.results",
    "web_search_call.results",
    "web_search_call.action.sources",
    "computer_call_output.output.image_url",
    "code_interpreter_call.outputs",
]
_Key = Annotated[str, Field(max_length=64)]
_Value = Annotated[str, Field(max_length=512)]


class ReasoningOptions(StrictBody):
    """How much the model thinks. Its thinking is given in full, so a summary adds nothing."""

    effort: Effort | None = None
    summary: Literal["auto", "concise", "detailed"] | None = None
    generate_summary: Literal["auto", "concise", "detailed"] | None = None
    context: Literal["auto"] | None = None
    mode: Literal["standard"] | None = None


class TextOptions(StrictBody):
    """The answer's form."""

    format: dict[str, Any] | None = None
    verbosity: Literal["low", "medium", "high"] | None = None


class ResponsesBody(StrictBody):
    """POST /v1/responses."""

    model: str | None = Field(None, max_length=200)
    input: str | list[dict[str, Any]]
    instructions: str | None = None
    previous_response_id: str | None = Field(None, max_length=64)
    store: bool = True
    stream: bool = False
    background: bool = False
    max_output_tokens: int | None = Field(None, ge=1)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    top_logprobs: int | None = Field(None, ge=0, le=20)
    include: list[Includable] | None = Field(None, max_length=16)
    reasoning: ReasoningOptions | None = None
    text: TextOptions | None = None
    tools: list[dict[str, Any]] | None = Field(None, max_length=MAX_TOOLS)
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool = True
    truncation: Literal["auto", "disabled"] | None = None
    metadata: dict[_Key, _Value] | None = Field(None, max_length=16)
    user: str | None = Field(None, max_length=512)

    @property
    def wants_logprobs(self) -> bool:
        """Whether the answer's text comes with log-probabilities."""
        return _LOGPROBS in (self.include or ())


RESPONSES_TABLE: Final = FieldTable(
    ResponsesBody,
    frozenset(
        {
            "image",
            "max_tool_calls",
            "prompt_cache_key",
            "prompt_cache_options",
            "prompt_cache_retention",
            "safety_identifier",
            "service_tier",
            "stream_options",
        }
    ),
    {
        "access_programs": "leave it out",
        "background_options": "leave it out, and keep the connection open",
        "context_management": "send fewer items instead",
        "conversation": "use previous_response_id",
        "moderation": "nothing is moderated; leave it out",
        "prompt": "templates are not kept here; use instructions and input",
        "messages": "use input",
        "max_tokens": "use max_output_tokens",
        "max_completion_tokens": "use max_output_tokens",
        "response_format": "use text.format",
        "reasoning_effort": "use reasoning.effort",
        "functions": "use tools",
        "n": "send more requests",
        "stop": "use /chat/completions",
        "seed": "use /chat/completions",
    },
)


def responses_request(
    body: ResponsesBody,
    items: Sequence[Item],
    info: ModelInfo,
    config: GenerationConfig,
    *,
    request_id: str,
    cache_salt: bytes,
) -> tuple[GenerationRequest, tuple[str, ...]]:
    """The request, and fields that turn out to have no effect. items: history and input."""
    _refuse_what_is_not_done(body)
    if not items:
        raise RequestError("input: is empty; expected text or items", param="input")
    check_num_items(items, config)
    reasoning = body.reasoning or ReasoningOptions()
    plan = plan_thinking(info, config, switch=None, effort=reasoning.effort)
    choice, named_tool = _tool_choice(body)
    if choice in ("required", "named") and plan.is_on:
        plan = forced_call_plan(info)
    messages = conversation(items)
    if body.instructions is not None:
        messages.insert(0, {"role": "system", "content": body.instructions})
    given = ChatInput(
        messages=tuple(messages),
        tools=tuple(_tool(tool, i) for i, tool in enumerate(body.tools or ())),
        tool_choice=choice,
        named_tool=named_tool,
        one_call=not body.parallel_tool_calls,
        response_format=_form(body, messages),
        schema_param="text.format.schema",
        thinking=plan.thinking,
    )
    request = GenerationRequest(
        id=request_id,
        model=info.name,
        input=given,
        sampling=_sampling(body, plan),
        default_tokens=config.max_tokens,
        cache_salt=cache_salt,
    )
    return request, _unused(body, reasoning, info)


def response_head(body: ResponsesBody, model: str, response_id: str) -> dict[str, Any]:
    """What a response object says of its request."""
    form = None if body.text is None else body.text.format
    reasoning = body.reasoning or ReasoningOptions()
    return {
        "id": response_id,
        "object": "response",
        "model": model,
        "background": False,
        "instructions": body.instructions,
        "max_output_tokens": body.max_output_tokens,
        "max_tool_calls": None,
        "metadata": body.metadata or {},
        "parallel_tool_calls": body.parallel_tool_calls,
        "previous_response_id": body.previous_response_id,
        "reasoning": {"effort": reasoning.effort, "summary": None},
        "store": body.store,
        "temperature": body.temperature,
        "text": {"format": form or {"type": "text"}},
        "tool_choice": "auto" if body.tool_choice is None else body.tool_choice,
        "tools": [{"strict": False, **tool} for tool in body.tools or ()],
        "top_logprobs": body.top_logprobs or 0,
        "top_p": body.top_p,
        "truncation": "disabled",
        "user": body.user,
    }


def check_num_items(items: Sequence[Item], config: GenerationConfig) -> None:
    """RequestError if a conversation has more items than it may have messages."""
    if len(items) > config.max_messages:
        raise RequestError(
            f"input: {len(items)} items; at most {config.max_messages}, send fewer", param="input"
        )


def in_these_words(error: RequestError) -> RequestError:
    """What a backend finds wrong with messages is wrong with the input that they were made of."""
    if error.param is None or not error.param.startswith("messages"):
        return error
    return RequestError(str(error).replace("messages", "input", 1), code=error.code, param="input")


def _refuse_what_is_not_done(body: ResponsesBody) -> None:
    if body.background:
        raise _unsupported("background", "keep the connection open and leave it out")
    if body.truncation == "auto":
        raise _unsupported("truncation", "no item is dropped here; send fewer, or leave it out")
    if body.top_logprobs is not None and not body.wants_logprobs:
        raise RequestError(
            f"top_logprobs needs include=[{_LOGPROBS!r}]; add it", param="top_logprobs"
        )


def _sampling(body: ResponsesBody, plan: ThinkingPlan) -> dict[str, Any]:
    values: dict[str, Any] = {
        "max_tokens": body.max_output_tokens,
        "temperature": body.temperature,
        "top_p": body.top_p,
        "logprobs": (body.top_logprobs or 0) if body.wants_logprobs else None,
        "thinking_budget": plan.budget_tokens,
    }
    return {name: value for name, value in values.items() if value is not None}


def _unused(body: ResponsesBody, reasoning: ReasoningOptions, info: ModelInfo) -> tuple[str, ...]:
    unused: list[str] = []
    if info.thinking == "never" and reasoning.effort not in (None, "none"):
        unused.append("reasoning.effort")
    if reasoning.summary is not None or reasoning.generate_summary is not None:
        unused.append("reasoning.summary")
    if body.text is not None and body.text.verbosity is not None:
        unused.append("text.verbosity")
    if set(body.include or ()) - {_LOGPROBS}:
        unused.append("include")
    return tuple(unused)


def _tool(tool: Mapping[str, Any], index: int) -> dict[str, Any]:
    """A function as chat completions describe it."""
    where = f"tools[{index}]"
    if tool.get("type") != "function":
        raise _unsupported(f"{where}.type", "only tools of type function are called here")
    function = {
        name: value
        for name, value in check_object(tool, where).items()
        if value is not None and name != "type"
    }
    unknown = set(function) - _FUNCTION_KEYS
    if unknown:
        raise _unsupported(f"{where}.{min(unknown)}", "leave it out")
    check_function(function, where)
    return {"type": "function", "function": function}


def _tool_choice(body: ResponsesBody) -> tuple[str, str | None]:
    """(auto | none | required | named, the function's name)."""
    choice = "auto" if body.tool_choice is None else body.tool_choice
    name = None
    if isinstance(choice, dict):
        name = choice.get("name")
        if choice.get("type") != "function" or not isinstance(name, str):
            raise RequestError(
                "tool_choice: expected {'type': 'function', 'name': ...}", param="tool_choice"
            )
    elif choice not in ("auto", "none", "required"):
        raise RequestError(
            f"tool_choice={choice[:40]!r}; expected auto, none, required or a function",
            param="tool_choice",
        )
    if not body.tools and choice not in ("auto", "none"):
        raise RequestError("tool_choice needs tools; add them", param="tool_choice")
    return ("named", name) if isinstance(choice, dict) else (choice, None)


def _form(body: ResponsesBody, messages: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The answer's form as chat completions ask for it."""
    wanted = None if body.text is None else body.text.format
    if wanted is None:
        return None
    kind = check_object(wanted, "text.format").get("type")
    unknown = set(wanted) - _FORMAT_KEYS
    if unknown:
        raise _unsupported(f"text.format.{min(unknown)}", "leave it out")
    if kind == "text":
        return None
    if kind == "json_object":
        if "json" not in json.dumps(messages, ensure_ascii=False).lower():
            raise RequestError(
                "text.format is json_object, but no message says 'json'; ask for JSON in one",
                param="input",
            )
        return {"type": "json_object"}
    if kind != "json_schema":
        raise RequestError(
            "text.format.type: expected text, json_object or json_schema",
            param="text.format.type",
        )
    if not isinstance(wanted.get("schema"), dict):
        raise RequestError(
            "text.format.schema: expected a JSON schema object", param="text.format.schema"
        )
    described = {
        name: value for name, value in wanted.items() if name != "type" and value is not None
    }
    return {"type": "json_schema", "json_schema": described}


def _unsupported(name: str, instead: str) -> RequestError:
    return RequestError(
        f"{name} is not supported here; {instead}", code="unsupported_parameter", param=name
    )
