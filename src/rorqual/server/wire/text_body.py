"""The body of /completions: text to be continued, a gap to be filled, a text to be scored."""

from dataclasses import replace
from typing import Any, Final

from pydantic import Field

from rorqual.config.http import GenerationConfig
from rorqual.errors import RequestError
from rorqual.server.backends import GenerationRequest, ModelInfo, TextInput
from rorqual.server.wire.fields import FieldTable
from rorqual.server.wire.sampling_body import SamplingBody, check_samples


class TextBody(SamplingBody):
    """POST /completions."""

    prompt: str | list[str] | list[int] | list[list[int]]
    suffix: str | None = None
    echo: bool = False
    max_tokens: int | None = Field(None, ge=0)
    logprobs: int | None = Field(None, ge=0, le=20)


_REFUSED: Final = {
    "best_of": "use n",
    "messages": "use /chat/completions",
    "tools": "use /chat/completions",
    "thinking": "completions do not think; use /chat/completions",
    "response_format": "use /chat/completions",
}
TEXT_TABLE: Final = FieldTable(TextBody, frozenset({"store", "metadata", "service_tier"}), _REFUSED)
_DEFAULT_TOKENS: Final = 16  # OpenAI's


def text_requests(
    body: TextBody,
    info: ModelInfo,
    config: GenerationConfig,
    *,
    request_id: str,
    cache_salt: bytes,
) -> list[GenerationRequest]:
    """One request a prompt."""
    check_samples(body.n, config)
    prompts = prompts_of(body.prompt)
    if len(prompts) * body.n > config.max_prompts:
        raise RequestError(
            f"prompt: {len(prompts)} prompts with n={body.n}; at most {config.max_prompts} answers "
            "in one request, send more requests",
            param="prompt",
        )
    if body.suffix and not all(isinstance(prompt, str) for prompt in prompts):
        raise RequestError("suffix needs a prompt that is text; send text", param="suffix")
    if body.suffix and body.echo:
        raise RequestError("echo cannot be combined with suffix; leave it out", param="echo")
    if body.max_tokens == 0 and not body.echo:
        raise RequestError("max_tokens=0 without echo asks for nothing; raise it",
                           param="max_tokens")  # fmt: skip
    first = GenerationRequest(
        id=request_id,
        model=info.name,
        input=TextInput(prompt="", suffix=body.suffix, echo=body.echo),
        sampling=_sampling(body),
        default_tokens=config.max_tokens if body.suffix else _DEFAULT_TOKENS,
        cache_salt=cache_salt,
    )
    return [
        replace(
            first,
            id=request_id if number == 0 else f"{request_id}.{number}",
            input=TextInput(prompt=prompt, suffix=body.suffix, echo=body.echo),
        )
        for number, prompt in enumerate(prompts)
    ]


def prompts_of(raw: str | list[Any]) -> list[str | tuple[int, ...]]:
    """The prompts in each of the four forms that OpenAI's API has."""
    if isinstance(raw, str):
        return [raw]
    if not raw:
        raise RequestError("prompt is empty; send text", param="prompt")
    if isinstance(raw[0], int):
        return [tuple(raw)]
    if isinstance(raw[0], str):
        return list(raw)
    return [tuple(ids) for ids in raw]


def _sampling(body: TextBody) -> dict[str, Any]:
    own: dict[str, Any] = {
        "max_tokens": body.max_tokens,
        "logprobs": body.logprobs,
        "prompt_logprobs": body.logprobs if body.echo else None,
    }
    return body.sampling() | {name: value for name, value in own.items() if value is not None}
