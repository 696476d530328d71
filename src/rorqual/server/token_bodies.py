"""The bodies of /tokenize and /detokenize, in vLLM's shape."""

from typing import Any, Final

from pydantic import Field, model_validator

from rorqual.server.backends import ChatInput, ModelInfo
from rorqual.server.wire.fields import FieldTable, StrictBody


class TokenizeBody(StrictBody):
    """POST /tokenize: a prompt, or messages."""

    model: str | None = Field(None, max_length=200)
    prompt: str | None = None
    messages: list[dict[str, Any]] | None = Field(None, min_length=1)
    tools: list[dict[str, Any]] | None = None
    thinking: bool | None = None

    @model_validator(mode="after")
    def _one_of_two(self) -> "TokenizeBody":
        if (self.prompt is None) == (self.messages is None):
            raise ValueError("give either prompt or messages")
        return self


class DetokenizeBody(StrictBody):
    """POST /detokenize."""

    model: str | None = Field(None, max_length=200)
    tokens: list[int]


TOKENIZE_TABLE: Final = FieldTable(
    TokenizeBody, frozenset({"add_special_tokens", "add_generation_prompt", "return_token_strs"})
)
DETOKENIZE_TABLE: Final = FieldTable(DetokenizeBody)


def tokenized_chat(body: TokenizeBody, info: ModelInfo) -> ChatInput:
    """The conversation as it would be answered."""
    assert body.messages is not None
    return ChatInput(
        messages=tuple(body.messages),
        tools=tuple(body.tools or ()),
        thinking=body.thinking if info.thinking == "choice" else None,
    )
