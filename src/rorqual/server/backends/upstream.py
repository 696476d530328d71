"""A server with OpenAI's API as a backend: vLLM, SGLang, llama.cpp's server, a commercial endpoint.

It is looked at every few seconds; while it does not answer, requests are refused at once. A request
is tried again only until its first token: afterwards a second try could say something else.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, Final

from rorqual.config.http import ServedModel, WatchConfig
from rorqual.engine import Usage
from rorqual.errors import CapacityError, ConfigError, EngineError, RequestError, RorqualError
from rorqual.server.backends.base import (
    BackendState,
    BackendStats,
    ChatInput,
    Chunk,
    GenerationRequest,
    ModelInfo,
    OnChunks,
    Prepared,
    TextInput,
)
from rorqual.server.backends.http_client import Reply, UpstreamClient
from rorqual.server.backends.upstream_format import chunk_of, upstream_body

_CONNECT_SECONDS: Final = 5.0
_SILENCE_SECONDS: Final = 300.0
_FRAME_TOKENS: Final = 64  # what a template may print around messages, generously
_MESSAGE_TOKENS: Final = 16
_TRIED_AGAIN: Final = frozenset({408, 425, 429, 500, 502, 503, 504})


class _Failed(Exception):
    """One try failed; `again` says whether another may do better."""

    def __init__(self, error: RorqualError, *, again: bool) -> None:
        super().__init__(str(error))
        self.error = error
        self.again = again


class UpstreamBackend:
    """One model of one upstream."""

    def __init__(self, model: ServedModel, watch: WatchConfig) -> None:
        assert model.upstream is not None
        self._info = ModelInfo(
            model.name,
            model.title or model.name,
            model.context_tokens,
            model.thinking,
            int(time.time()),
            0,
        )
        self._name = model.upstream_model or model.name
        self._watch = watch
        self._client = UpstreamClient(
            model.upstream,
            _authorization(model.upstream_key_file),
            connect_seconds=_CONNECT_SECONDS,
            silence_seconds=_SILENCE_SECONDS,
        )
        self._running: dict[str, asyncio.Task[None]] = {}
        self._watcher: asyncio.Task[None] | None = None
        self._state: BackendState = "loading"
        self._last_error: str | None = None
        self._totals = {"prompt": 0, "completion": 0, "cached": 0}

    @property
    def info(self) -> ModelInfo:
        return self._info

    async def start(self) -> None:
        self._watcher = asyncio.create_task(self._watch_over(), name="upstream-watch")

    async def stop(self) -> None:
        tasks = [*self._running.values(), *([self._watcher] if self._watcher else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._client.close()
        self._state = "down"

    async def prepare(self, request: GenerationRequest) -> Prepared:
        given = request.input
        if isinstance(given, TextInput) and given.echo and "logprobs" in request.sampling:
            raise RequestError(
                "echo with logprobs is not passed on to upstream models; use a model of our own "
                "engine",
                code="unsupported_parameter",
                param="echo",
            )
        prompt_tokens = _most_tokens(given)
        wanted = request.sampling.get("max_tokens")
        if wanted is None:
            wanted = min(request.default_tokens or self._info.context_tokens,
                         self._info.context_tokens)  # fmt: skip
        body = upstream_body(request, self._name, wanted)
        most = request.sampling.get("n", 1) * wanted
        return Prepared(request, prompt_tokens, most, body)

    def submit(self, prepared: Prepared, on_chunks: OnChunks) -> None:
        name = prepared.request.id
        task = asyncio.create_task(self._run(prepared, on_chunks), name=f"upstream-{name}")
        self._running[name] = task
        task.add_done_callback(lambda _: self._running.pop(name, None))

    def cancel(self, request_id: str) -> None:
        task = self._running.get(request_id)
        if task is not None:
            task.cancel()

    def stats(self) -> BackendStats:
        return BackendStats(
            state=self._state,
            num_running=len(self._running),
            num_waiting=0,
            completion_tokens=self._totals["completion"],
            prompt_tokens=self._totals["prompt"],
            cached_tokens=self._totals["cached"],
            num_restarts=0,
            last_error=self._last_error,
        )

    def tokenize(self, text: str) -> list[int]:
        raise self._no_tokenizer()

    def tokenize_chat(self, chat: ChatInput) -> list[int]:
        raise self._no_tokenizer()

    def detokenize(self, token_ids: list[int]) -> str:
        raise self._no_tokenizer()

    def _no_tokenizer(self) -> RequestError:
        return RequestError(
            f"model {self._info.name} is served by an upstream, whose tokenizer is not known here; "
            "ask it there",
            code="unsupported_parameter",
            param="model",
        )

    async def _watch_over(self) -> None:
        while True:
            try:
                look = self._client.ask("GET", "/models", silence_seconds=_CONNECT_SECONDS)
                async with look as answer:
                    await answer.text()
                healthy = answer.status < 500
                self._last_error = None if healthy else f"/models answers {answer.status}"
            except OSError as error:
                healthy, self._last_error = False, f"{type(error).__name__}: {error}"
            self._state = "ready" if healthy else "down"
            await asyncio.sleep(self._watch.health_seconds)

    async def _run(self, prepared: Prepared, on_chunks: OnChunks) -> None:
        """Try until the first token; then pass on what comes."""
        open_choices = set(range(prepared.request.sampling.get("n", 1)))
        counts: dict[int, int] = dict.fromkeys(open_choices, 0)
        reasoning: dict[int, int] = dict.fromkeys(open_choices, 0)
        usage: Usage | None = None
        ends: list[Chunk] = []
        error: RorqualError | None = None
        try:
            async for chunk, found in self._tries(prepared):
                usage = found or usage
                if chunk is None:
                    continue
                counts[chunk.index] = counts.get(chunk.index, 0) + chunk.num_tokens
                reasoning[chunk.index] = reasoning.get(chunk.index, 0) + chunk.num_reasoning_tokens
                if chunk.finish is None:
                    on_chunks([chunk])
                else:
                    ends.append(chunk)  # until the usage is known
        except _Failed as failed:
            error = failed.error
        except asyncio.CancelledError:
            ends = [Chunk(index, finish="cancelled") for index in sorted(open_choices)]
        if not ends and error is None:
            error = EngineError("the upstream ended its answer without a finish_reason")
        if error is not None:
            on_chunks([Chunk(0, finish="error", error=error)])
            return
        for place, chunk in enumerate(ends):
            chunk.usage = self._usage(chunk.index, place, counts, reasoning, usage, len(ends))
        on_chunks(ends)

    def _usage(
        self,
        index: int,
        place: int,
        counts: Mapping[int, int],
        reasoning: Mapping[int, int],
        usage: Usage | None,
        num_choices: int,
    ) -> Usage:
        """A choice's part: the upstream counts all choices together, the rest goes to the last."""
        if usage is None:
            return Usage(0, 0, counts[index], reasoning[index])
        if place == 0:
            self._totals["prompt"] += usage.prompt_tokens
            self._totals["cached"] += usage.cached_tokens
            self._totals["completion"] += usage.completion_tokens
        if num_choices == 1:
            return usage
        return Usage(usage.prompt_tokens, usage.cached_tokens, counts[index], reasoning[index])

    async def _tries(self, prepared: Prepared) -> AsyncIterator[tuple[Chunk | None, Usage | None]]:
        for attempt in range(1, self._watch.attempts + 1):
            begun = False
            try:
                async for found in self._one_try(prepared):
                    begun = begun or (found[0] is not None and found[0].num_tokens > 0)
                    yield found
                return
            except _Failed as failed:
                self._last_error = str(failed)
                if begun or not failed.again or attempt == self._watch.attempts:
                    raise
            except (OSError, ValueError) as error:  # gone, or not what it says it is
                self._last_error = f"{type(error).__name__}: {error}"
                if begun or attempt == self._watch.attempts:
                    text = f"the upstream failed ({type(error).__name__}); try again"
                    raise _Failed(EngineError(text), again=False) from error
            await asyncio.sleep(0.1 * 2 ** (attempt - 1))

    async def _one_try(
        self, prepared: Prepared
    ) -> AsyncIterator[tuple[Chunk | None, Usage | None]]:
        is_chat = isinstance(prepared.request.input, ChatInput)
        path = "/chat/completions" if is_chat else "/completions"
        async with self._client.ask("POST", path, prepared.payload) as answer:
            if answer.status != 200:
                raise await _refusal(answer)
            ended = False
            async for data in answer.events():
                event = json.loads(data)
                if "error" in event:
                    text = f"the upstream failed: {_message_of(event)}"
                    raise _Failed(EngineError(text), again=True)
                for choice in event.get("choices") or ():
                    found = chunk_of(choice, is_chat=is_chat)
                    ended = ended or found.finish is not None
                    yield found, None
                if event.get("usage"):
                    yield None, usage_of(event["usage"])
            if not ended and not answer.is_done:
                text = "the upstream ended its answer in the middle; try again"
                raise _Failed(EngineError(text), again=True)


def usage_of(raw: Mapping[str, Any]) -> Usage:
    """An upstream's usage, in whichever of the known forms."""
    details = raw.get("prompt_tokens_details") or {}
    more = raw.get("completion_tokens_details") or {}
    cached = details.get("cached_tokens") or raw.get("prompt_cache_hit_tokens") or 0
    return Usage(
        raw.get("prompt_tokens") or 0,
        cached,
        raw.get("completion_tokens") or 0,
        more.get("reasoning_tokens") or 0,
    )


def _most_tokens(given: ChatInput | TextInput) -> int:
    """At most so many tokens: a byte-level vocabulary never makes more tokens than bytes."""
    if isinstance(given, TextInput):
        text = given.prompt if isinstance(given.prompt, str) else ""
        own = len(given.prompt) if not isinstance(given.prompt, str) else 0
        suffix = given.suffix or ""
        return len((text + suffix).encode("utf-8", "surrogatepass")) + own + _FRAME_TOKENS
    written = json.dumps([list(given.messages), list(given.tools)], ensure_ascii=False)
    size = len(written.encode("utf-8", "surrogatepass"))
    return size + _MESSAGE_TOKENS * len(given.messages) + _FRAME_TOKENS


async def _refusal(answer: Reply) -> _Failed:
    """What an upstream's error status means to our client."""
    text = await answer.text()
    try:
        message = _message_of(json.loads(text))
    except ValueError:
        message = text[:200]
    status = answer.status
    if status in (400, 404, 413, 422):
        error: RorqualError = RequestError(f"the upstream refuses the request: {message}")
    elif status == 429 or status == 503:
        error = CapacityError(f"the upstream is busy: {message}")
    else:
        error = EngineError(f"the upstream answers {status}")
    return _Failed(error, again=status in _TRIED_AGAIN)


def _message_of(body: Any) -> str:
    error = body.get("error", body) if isinstance(body, dict) else body
    message = error.get("message", error) if isinstance(error, dict) else error
    return str(message)[:300]


def _authorization(key_file: str | None) -> dict[str, str]:
    if key_file is None:
        return {}
    try:
        key = Path(key_file).read_text(encoding="utf-8").strip()
    except OSError as error:
        raise ConfigError(
            f"upstream_key_file={key_file}: {error.strerror}; write the upstream's key into it"
        ) from error
    return {"Authorization": f"Bearer {key}"}
