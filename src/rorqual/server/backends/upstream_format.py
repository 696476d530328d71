"""Our request in OpenAI's words for an upstream, and its chunks in ours."""

from collections.abc import Mapping
from typing import Any, Final

from rorqual.engine.tool_calls import ToolCallArguments, ToolCallStart, new_call_id
from rorqual.server.backends.base import (
    Chunk,
    Finish,
    GenerationRequest,
    TextInput,
    TokenLogprob,
)

_SAME_NAME: Final = (
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "n",
    "seed",
    "stop",
    "presence_penalty",
    "frequency_penalty",
    "repetition_penalty",
    "logit_bias",
    "min_tokens",
    "ignore_eos",
    "stop_token_ids",
)
_FINISHES: Final[dict[str, Finish]] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
}


def upstream_body(request: GenerationRequest, model: str, max_tokens: int) -> dict[str, Any]:
    """The body of the request to the upstream, always streamed."""
    body: dict[str, Any] = {
        "model": model,
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": max_tokens,
    }
    sampling = request.sampling
    for name in _SAME_NAME:
        if name in sampling:
            value = sampling[name]
            body[name] = list(value) if isinstance(value, tuple) else value
    given = request.input
    if isinstance(given, TextInput):
        prompt = given.prompt if isinstance(given.prompt, str) else list(given.prompt)
        body["prompt"] = prompt
        if given.suffix:
            body["suffix"] = given.suffix
        if "logprobs" in sampling:
            body["logprobs"] = sampling["logprobs"]
        return body
    body["messages"] = [dict(message) for message in given.messages]
    if "logprobs" in sampling:
        body |= {"logprobs": True, "top_logprobs": sampling["logprobs"]}
    if given.tools:
        named = {"type": "function", "function": {"name": given.named_tool}}
        body["tools"] = [dict(tool) for tool in given.tools]
        body["tool_choice"] = named if given.tool_choice == "named" else given.tool_choice
        if given.one_call:
            body["parallel_tool_calls"] = False
    if given.response_format is not None:
        body["response_format"] = dict(given.response_format)
    if given.thinking is not None:
        wanted = {"thinking": given.thinking, "enable_thinking": given.thinking}
        body["chat_template_kwargs"] = wanted
    if given.continue_last:
        body |= {"continue_final_message": True, "add_generation_prompt": False}
    return body


def chunk_of(choice: Mapping[str, Any], *, is_chat: bool) -> Chunk:
    """One choice of an upstream's event."""
    chunk = Chunk(int(choice.get("index") or 0))
    if is_chat:
        delta = choice.get("delta") or {}
        chunk.content = delta.get("content") or ""
        chunk.reasoning = delta.get("reasoning_content") or delta.get("reasoning") or ""
        chunk.tools = _tools_of(delta.get("tool_calls") or ())
        entries = (choice.get("logprobs") or {}).get("content") or ()
        chunk.logprobs = [_logprob(entry) for entry in entries]
    else:
        chunk.content = choice.get("text") or ""
        chunk.logprobs = _legacy_logprobs(choice.get("logprobs") or {})
    # The upstream says how many tokens there were only at the end; until then an event is one.
    written = bool(chunk.content or chunk.reasoning or chunk.tools)
    chunk.num_tokens = max(len(chunk.logprobs), int(written))
    chunk.num_reasoning_tokens = int(bool(chunk.reasoning) and not chunk.content)
    finish = choice.get("finish_reason")
    if finish is not None:
        chunk.finish = _FINISHES.get(finish, "stop")
    return chunk


def _tools_of(raw: Any) -> tuple[ToolCallStart | ToolCallArguments, ...]:
    events: list[ToolCallStart | ToolCallArguments] = []
    for call in raw:
        index, function = int(call.get("index") or 0), call.get("function") or {}
        if function.get("name"):
            events.append(ToolCallStart(index, call.get("id") or new_call_id(), function["name"]))
        if function.get("arguments"):
            events.append(ToolCallArguments(index, function["arguments"]))
    return tuple(events)


def _logprob(entry: Mapping[str, Any]) -> TokenLogprob:
    data = entry.get("bytes")
    return TokenLogprob(
        None,
        entry["token"],
        entry["token"].encode() if data is None else bytes(data),
        entry["logprob"],
        tuple(_logprob(other) for other in entry.get("top_logprobs") or ()),
    )


def _legacy_logprobs(raw: Mapping[str, Any]) -> list[TokenLogprob]:
    tokens, values = raw.get("tokens") or [], raw.get("token_logprobs") or []
    tops = raw.get("top_logprobs") or [None] * len(tokens)
    found: list[TokenLogprob] = []
    for token, value, top in zip(tokens, values, tops, strict=False):
        others = tuple(
            TokenLogprob(None, text, text.encode(), other) for text, other in (top or {}).items()
        )
        found.append(TokenLogprob(None, token, token.encode(), value or 0.0, others))
    return found
