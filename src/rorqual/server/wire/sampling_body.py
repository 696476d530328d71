"""How tokens are drawn: the fields that /chat/completions and /completions have in common."""

from collections.abc import Mapping
from typing import Annotated, Any, Final

from pydantic import Field

from rorqual.config.http import GenerationConfig
from rorqual.errors import RequestError
from rorqual.server.wire.fields import StrictBody

MAX_STOP_CHARACTERS: Final = 4096  # so much of an answer may be held back until it is no stop
StopText = Annotated[str, Field(max_length=MAX_STOP_CHARACTERS)]


class StreamOptions(StrictBody):
    """What a stream says besides."""

    include_usage: bool = False
    include_obfuscation: bool = False


class SamplingBody(StrictBody):
    """What both bodies share; some fields are vLLM's."""

    model: str | None = Field(None, max_length=200)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    n: int = Field(1, ge=1, le=128)
    stop: StopText | list[StopText] | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None
    seed: int | None = Field(None, ge=0, le=2**63 - 1)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    logit_bias: dict[str, float] | None = None
    user: str | None = Field(None, max_length=512)
    user_id: str | None = Field(None, max_length=512)
    top_k: int | None = Field(None, ge=0)
    min_p: float | None = Field(None, ge=0, le=1)
    repetition_penalty: float | None = Field(None, gt=0, le=100)
    min_tokens: int | None = Field(None, ge=0)
    ignore_eos: bool | None = None
    stop_token_ids: list[int] | None = None

    def sampling(self) -> dict[str, Any]:
        """The fields of SamplingParams that were set."""
        stop = [self.stop] if isinstance(self.stop, str) else self.stop
        values: dict[str, Any] = {
            "temperature": self.temperature,
            "top_p": self.top_p,
            "n": self.n,
            "stop": None if stop is None else tuple(stop),
            "seed": self.seed,
            "frequency_penalty": self.frequency_penalty,
            "presence_penalty": self.presence_penalty,
            "logit_bias": _by_token_id(self.logit_bias),
            "top_k": self.top_k,
            "min_p": self.min_p,
            "repetition_penalty": self.repetition_penalty,
            "min_tokens": self.min_tokens,
            "ignore_eos": self.ignore_eos,
            "stop_token_ids": None if self.stop_token_ids is None else tuple(self.stop_token_ids),
        }
        return {name: value for name, value in values.items() if value is not None}


def check_samples(n: int, config: GenerationConfig) -> None:
    """RequestError if more answers are asked for than one request may have."""
    if n > config.max_samples:
        raise RequestError(f"n={n}; at most {config.max_samples}, send more requests", param="n")


def _by_token_id(raw: Mapping[str, float] | None) -> dict[int, float] | None:
    """Token ids as numbers."""
    if raw is None:
        return None
    try:
        return {int(token): bias for token, bias in raw.items()}
    except ValueError:
        raise RequestError(
            "logit_bias: a key is not a token id; expected numbers", param="logit_bias"
        ) from None
