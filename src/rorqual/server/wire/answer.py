"""What every wire format's writer does: bytes for a stream, or one object in the end."""

import json
from collections.abc import Mapping
from typing import Any, Final, Protocol

from rorqual import __version__
from rorqual.engine import Usage
from rorqual.server.backends import Chunk, TokenLogprob
from rorqual.server.errors import Dialect

FINGERPRINT: Final = f"rorqual-{__version__}"
# Made once: json.dumps with options builds an encoder at every call, and streams call it per token.
_encode: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


class AnswerWriter(Protocol):
    """Turns a generation's chunks into one format. Either streamed or whole, not both.

    `usage` is known when the last chunks come, None before.
    """

    dialect: Dialect

    def begin(self) -> bytes:
        """What a stream starts with."""
        ...

    def write(self, chunks: list[Chunk], usage: Usage | None) -> bytes:
        """A stream's next events."""
        ...

    def end(self, usage: Usage) -> bytes:
        """What a stream ends with."""
        ...

    def fail(self, body: dict[str, Any]) -> bytes:
        """What a stream ends with when it fails after it began."""
        ...

    def keep_alive(self) -> bytes:
        """What a stream sends when there is nothing to say."""
        ...

    def add(self, chunks: list[Chunk]) -> None:
        """Keep chunks for `whole`."""
        ...

    def whole(self, usage: Usage) -> dict[str, Any]:
        """The answer as one object."""
        ...


class OpenAIStream:
    """What streams of chats and of texts have in common: their events, and how they end.

    head: what all events begin with. null_usage: those before the end say that there is none.
    """

    def __init__(
        self, head: Mapping[str, Any], *, include_usage: bool, null_usage: bool = False
    ) -> None:
        self._include_usage = include_usage
        self._before = f'data: {to_json(head)[:-1]},"choices":'
        self._after = ',"usage":null}\n\n' if null_usage else "}\n\n"

    def end(self, usage: Usage) -> bytes:
        trailer = self._event([], usage) if self._include_usage else b""
        return trailer + b"data: [DONE]\n\n"

    def fail(self, body: dict[str, Any]) -> bytes:
        return event(body) + b"data: [DONE]\n\n"

    def keep_alive(self) -> bytes:
        return b": keep-alive\n\n"

    def _event(self, choices: list[dict[str, Any]], usage: Usage | None = None) -> bytes:
        """One event with these choices."""
        after = self._after
        if usage is not None:
            after = f',"usage":{to_json(usage_object(usage))}}}\n\n'
        return f"{self._before}{to_json(choices)}{after}".encode("utf-8", "replace")


def to_json(value: Any) -> str:
    """Compact JSON."""
    return _encode(value)


def event(value: Any, name: str | None = None) -> bytes:
    """One server-sent event."""
    head = "" if name is None else f"event: {name}\n"
    return f"{head}data: {to_json(value)}\n\n".encode("utf-8", "replace")


def usage_object(usage: Usage) -> dict[str, Any]:
    """Usage as OpenAI and DeepSeek say it, both in one."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_cache_hit_tokens": usage.cached_tokens,
        "prompt_cache_miss_tokens": usage.prompt_tokens - usage.cached_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
    }


def logprob_entry(found: TokenLogprob) -> dict[str, Any]:
    """A token's log-probability and the likeliest in its place, as OpenAI says them."""
    return {**_token(found), "top_logprobs": [_token(other) for other in found.top]}


def _token(found: TokenLogprob) -> dict[str, Any]:
    return {"token": found.text, "logprob": found.logprob, "bytes": list(found.data)}
