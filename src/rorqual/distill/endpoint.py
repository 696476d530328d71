"""A teacher behind an OpenAI-compatible API: text in, text out, with patience and plain errors.

Refusals that repeating cannot cure (a wrong key, an unknown model) end the run at once; overload,
server faults and broken connections are tried again, waiting longer each time. The key is read from
the environment and sent to the configured address only: redirects are not followed.
"""

import http.client
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from rorqual.config.distill import EndpointConfig
from rorqual.errors import ConfigError, RequestError
from rorqual.tasks.answers import THINK_BEGIN, THINK_END

_WORTH_REPEATING = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
_FIRST_WAIT_SECONDS, _LONGEST_WAIT_SECONDS = 1.0, 60.0
_MOST_BYTES = 16 * 2**20
_SHOWN_CHARACTERS = 200


@dataclass(frozen=True, slots=True)
class Reply:
    """A completion as our tasks read it. Token counts: the endpoint's own, 0 if it gives none."""

    text: str
    ended: bool
    prompt_tokens: int
    completion_tokens: int


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *arguments: Any, **named: Any) -> None:
        """A redirect is an error: it would carry the key elsewhere."""
        del arguments, named


class Endpoint:
    """POSTs to /v1/chat/completions."""

    def __init__(self, config: EndpointConfig, sleep: Callable[[float], None] = time.sleep):
        self.config, self._sleep = config, sleep
        base = config.base_url.rstrip("/").removesuffix("/v1")
        self.url = f"{base}/v1/chat/completions"
        self._opener = urllib.request.build_opener(_NoRedirect())
        self._headers = {"Content-Type": "application/json"}
        if config.api_key_variable is not None:
            key = os.environ.get(config.api_key_variable)
            if not key:
                raise ConfigError(
                    f"endpoint.api_key_variable: {config.api_key_variable} is not set; export the "
                    "key under that name, or drop the field if none is needed"
                )
            self._headers["Authorization"] = f"Bearer {key}"

    def ask(self, prompts: Sequence[str], *, max_tokens: int, temperature: float) -> list[Reply]:
        """One reply to each prompt; RequestError if one of them cannot be had."""

        def one(prompt: str) -> Reply:
            return self._ask_one(
                {
                    "model": self.config.model,
                    "messages": [{"role": "user", "content": prompt}],
                    "max_tokens": max_tokens,
                    "temperature": temperature,
                }
            )

        with ThreadPoolExecutor(self.config.parallel_requests) as pool:
            return list(pool.map(one, prompts))

    def _ask_one(self, body: dict[str, Any]) -> Reply:
        wait, problem = _FIRST_WAIT_SECONDS, ""
        for attempt in range(self.config.max_attempts):
            if attempt:
                self._sleep(wait)
                wait = min(2 * wait, _LONGEST_WAIT_SECONDS)
            try:
                return self._read(self._post(body))
            except urllib.error.HTTPError as error:
                problem = f"HTTP {error.code}: {_excerpt(error)}"
                if error.code not in _WORTH_REPEATING:
                    raise self._failure(problem, "correct [endpoint]") from error
                wait = max(wait, _retry_after(error))
            except (OSError, http.client.HTTPException) as error:
                problem = f"no answer ({error})"
        raise self._failure(
            f"{problem}, {self.config.max_attempts} times", "go on with --resume when it answers"
        )

    def _post(self, body: dict[str, Any]) -> bytes:
        request = urllib.request.Request(
            self.url, json.dumps(body).encode(), self._headers, method="POST"
        )
        with self._opener.open(request, timeout=self.config.timeout_seconds) as response:
            content = response.read(_MOST_BYTES + 1)
        if len(content) > _MOST_BYTES:
            raise self._failure(f"an answer of more than {_MOST_BYTES} bytes", "check base_url")
        return content

    def _read(self, content: bytes) -> Reply:
        try:
            answer: Any = json.loads(content)
            choice = answer["choices"][0]
            message = choice["message"]
            reasoning, text = message.get("reasoning_content"), message.get("content") or ""
            usage = answer.get("usage") or {}
            counts = [int(usage.get(f"{part}_tokens") or 0) for part in ("prompt", "completion")]
            if reasoning:
                text = f"{THINK_BEGIN}\n{reasoning.strip()}\n{THINK_END}\n\n{text.strip()}"
            return Reply(text, choice.get("finish_reason") == "stop", *counts)
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            shown = content[:_SHOWN_CHARACTERS].decode("utf-8", "replace")
            raise self._failure(
                f"no chat completion ({error!r}) but {shown!r}", "check base_url"
            ) from error

    def _failure(self, problem: str, fix: str) -> RequestError:
        message = f"endpoint {self.url}: {' '.join(problem.split())}; {fix}"
        return RequestError(message, code="teacher_failed", param="endpoint")


def _excerpt(error: urllib.error.HTTPError) -> str:
    """The beginning of an error's body: what the endpoint says is wrong."""
    try:
        return error.read(4 * _SHOWN_CHARACTERS).decode("utf-8", "replace")[:_SHOWN_CHARACTERS]
    except (OSError, http.client.HTTPException):
        return error.reason


def _retry_after(error: urllib.error.HTTPError) -> float:
    """Seconds that the endpoint asks to wait, 0 if it does not say so in seconds."""
    value = error.headers.get("Retry-After", "")
    return min(float(value), _LONGEST_WAIT_SECONDS) if value.isdecimal() else 0.0
