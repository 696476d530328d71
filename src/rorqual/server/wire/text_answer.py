"""Answers of /completions, with the log-probabilities that evaluation harnesses read."""

import math
from collections.abc import Sequence
from typing import Any

from rorqual.engine import Usage
from rorqual.server.backends import Chunk, TokenLogprob
from rorqual.server.errors import Dialect
from rorqual.server.wire.answer import FINGERPRINT, OpenAIStream, usage_object


class _Choice:
    """One text being put together; `echoed` is its prompt where it was asked for."""

    def __init__(self, echoed: str | None) -> None:
        self.echoed = echoed
        self.has_begun = False
        self.length = 0
        self.texts: list[str] = []
        self.logprobs: list[dict[str, Any]] = []
        self.finish: str | None = None


class TextAnswer(OpenAIStream):
    """Writes text completions. echoed: each choice's prompt as text, None without echo."""

    def __init__(
        self,
        *,
        request_id: str,
        model: str,
        created: int,
        dialect: Dialect,
        echoed: Sequence[str | None],
        logprobs: int | None,
        include_usage: bool,
    ) -> None:
        self.dialect: Dialect = dialect
        self._head = {
            "id": request_id,
            "object": "text_completion",
            "created": created,
            "model": model,
            "system_fingerprint": FINGERPRINT,
        }
        super().__init__(self._head, include_usage=include_usage)
        self._logprobs = logprobs
        self._choices = [_Choice(text) for text in echoed]

    def begin(self) -> bytes:
        return b""

    def write(self, chunks: list[Chunk], usage: Usage | None) -> bytes:
        events: list[bytes] = []
        for chunk in chunks:
            choice = self._choices[chunk.index]
            text, logprobs = self._taken(choice, chunk)
            if not text and not logprobs and chunk.finish is None:
                continue
            value = self._choice(chunk.index, text, logprobs, chunk.finish)
            final = usage if chunk.finish and self.dialect == "deepseek" else None
            events.append(self._event([value], final))
        return b"".join(events)

    def add(self, chunks: list[Chunk]) -> None:
        for chunk in chunks:
            choice = self._choices[chunk.index]
            text, logprobs = self._taken(choice, chunk)
            choice.texts.append(text)
            if logprobs is not None:
                choice.logprobs.append(logprobs)
            choice.finish = chunk.finish or choice.finish

    def whole(self, usage: Usage) -> dict[str, Any]:
        choices: list[dict[str, Any]] = []
        for index, choice in enumerate(self._choices):
            logprobs = _joined(choice.logprobs) if self._logprobs is not None else None
            choices.append(
                self._choice(index, "".join(choice.texts), logprobs, choice.finish or "stop")
            )
        return {**self._head, "choices": choices, "usage": usage_object(usage)}

    def _taken(self, choice: _Choice, chunk: Chunk) -> tuple[str, dict[str, Any] | None]:
        """A chunk's text and log-probabilities; the first brings the echoed prompt along."""
        text, tokens = chunk.content, list(chunk.logprobs)
        if not choice.has_begun:
            choice.has_begun = True
            if choice.echoed is not None:
                text = choice.echoed + text
                tokens = [*(chunk.prompt_logprobs or ()), *tokens]
        logprobs = None
        if self._logprobs is not None:
            logprobs = _legacy(tokens, choice.length)
        choice.length += len(text)
        return text, logprobs

    def _choice(
        self, index: int, text: str, logprobs: dict[str, Any] | None, finish: str | None
    ) -> dict[str, Any]:
        reason = "length" if finish == "cancelled" else finish
        return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": reason}


def _legacy(tokens: list[TokenLogprob], offset: int) -> dict[str, Any]:
    """OpenAI's four parallel lists. A prompt's first token has no log-probability."""
    value: dict[str, Any] = {
        "tokens": [],
        "token_logprobs": [],
        "top_logprobs": [],
        "text_offset": [],
    }
    for found in tokens:
        is_first = math.isnan(found.logprob)
        value["tokens"].append(found.text)
        value["token_logprobs"].append(None if is_first else found.logprob)
        value["top_logprobs"].append(None if is_first else _top(found))
        value["text_offset"].append(offset)
        offset += len(found.text)
    return value


def _top(found: TokenLogprob) -> dict[str, float]:
    return {other.text: other.logprob for other in found.top}


def _joined(parts: list[dict[str, Any]]) -> dict[str, Any]:
    names = ("tokens", "token_logprobs", "top_logprobs", "text_offset")
    return {name: [value for part in parts for value in part[name]] for name in names}
