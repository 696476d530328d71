"""A server with OpenAI's API as a backend: vLLM, SGLang, llama.cpp's server, a commercial endpoint.

It is looked at every few seconds; while it does not answer, requests are refused at once. A request
is tried again only until its first token: afterwards a second try could say something else.
"""

import asyncio
import json
import time
from collections.abc import Mapping, Sequence
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
from rorqual.server.backends.http_client import UpstreamClient
from rorqual.server.backends.http_connection import Reply
from rorqual.server.backends.upstream_format import chunk_of, upstream_body

_CONNECT_SECONDS: Final = 5.0
_SILENCE_SECONDS: Final = 300.0
_FRAME_TOKENS: Final = 64  # what a template may print around messages, generously
_MESSAGE_TOKENS: Final = 16
_STRANGE: Final = (ValueError, TypeError, KeyError, AttributeError)  # events of another form
# Made once: json.dumps with options builds an encoder at every call.
_encode: Final = json.JSONEncoder(ensure_ascii=False).encode
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
                look = await self._client.ask("GET", "/models", silence_seconds=_CONNECT_SECONDS)
                healthy = look.status < 500
                self._last_error = None if healthy else f"/models answers {look.status}"
            except OSError as error:
                healthy, self._last_error = False, f"{type(error).__name__}: {error}"
            self._state = "ready" if healthy else "down"
            await asyncio.sleep(self._watch.health_seconds)

    async def _run(self, prepared: Prepared, on_chunks: OnChunks) -> None:
        """Try until the first token; then pass on what comes."""
        found = _Found(prepared, on_chunks)
        error: RorqualError | None = None
        try:
            await self._try(prepared, found)
        except _Failed as failed:
            error = failed.error
        except asyncio.CancelledError:
            found.cancel()
        if not found.is_whole and error is None:
            error = EngineError("the upstream ended its answer without a finish_reason")
        if error is None or found.has_ended:
            found.end()
            self._count(found.usage)
        else:
            on_chunks([Chunk(0, finish="error", error=error)])

    def _count(self, usage: Usage | None) -> None:
        if usage is not None:
            self._totals["prompt"] += usage.prompt_tokens
            self._totals["cached"] += usage.cached_tokens
            self._totals["completion"] += usage.completion_tokens

    async def _try(self, prepared: Prepared, found: "_Found") -> None:
        for attempt in range(1, self._watch.attempts + 1):
            try:
                return await self._try_once(prepared, found)
            except _Failed as failed:
                self._last_error = str(failed)
                if found.has_begun or not failed.again or attempt == self._watch.attempts:
                    raise
            except (OSError, *_STRANGE) as error:  # gone, or not what it says it is
                self._last_error = f"{type(error).__name__}: {error}"
                if found.has_begun or attempt == self._watch.attempts:
                    text = f"the upstream failed ({type(error).__name__}); try again"
                    raise _Failed(EngineError(text), again=False) from error
            found.forget()
            await asyncio.sleep(0.1 * 2 ** (attempt - 1))

    async def _try_once(self, prepared: Prepared, found: "_Found") -> None:
        path = "/chat/completions" if found.is_chat else "/completions"
        answer = await self._client.ask("POST", path, prepared.payload, on_events=found.take)
        if answer.status != 200:
            raise _refusal(answer)
        if not found.is_whole and not answer.is_done:
            text = "the upstream ended its answer in the middle; try again"
            raise _Failed(EngineError(text), again=True)


class _Found:
    """What an answer has brought so far. Its text is passed on at once; its ends are kept until
    the usage behind them is known, and go with the last of its text if they can: what comes
    together is committed together."""

    def __init__(self, prepared: Prepared, on_chunks: OnChunks) -> None:
        self.is_chat = isinstance(prepared.request.input, ChatInput)
        self.has_begun = False
        self.has_ended = False  # and said so
        self.usage: Usage | None = None
        self._ends: list[Chunk] = []
        self._on_chunks = on_chunks
        self._num_choices = prepared.request.sampling.get("n", 1)
        self._counts = dict.fromkeys(range(self._num_choices), 0)
        self._reasoning = dict.fromkeys(range(self._num_choices), 0)

    @property
    def is_whole(self) -> bool:
        """Whether every choice has ended."""
        return len({chunk.index for chunk in self._ends}) >= self._num_choices

    def take(self, events: Sequence[bytes], is_done: bool) -> None:
        """Some events of the stream, and whether they were the last."""
        chunks: list[Chunk] = []
        try:
            for event in events:
                # json.loads would guess the encoding of bytes, at every event.
                self._read(json.loads(event.decode("utf-8", "surrogatepass")), chunks)
            if is_done and self.is_whole:
                chunks += self._last_chunks()
        finally:
            if chunks:
                self._on_chunks(chunks)

    def _read(self, event: Mapping[str, Any], chunks: list[Chunk]) -> None:
        if "error" in event:
            text = f"the upstream failed: {_message_of(event)}"
            raise _Failed(EngineError(text), again=True)
        for choice in event.get("choices") or ():
            chunk = chunk_of(choice, is_chat=self.is_chat)
            index, tokens = chunk.index, chunk.num_tokens
            self._counts[index] = self._counts.get(index, 0) + tokens
            self._reasoning[index] = self._reasoning.get(index, 0) + chunk.num_reasoning_tokens
            self.has_begun = self.has_begun or tokens > 0
            if chunk.finish is not None:
                self._ends.append(chunk)
            elif tokens:  # the first event often names the role alone
                chunks.append(chunk)
        if event.get("usage"):
            self.usage = usage_of(event["usage"])

    def forget(self) -> None:
        """Before another try: the ends of an answer without a token."""
        self._ends = []

    def cancel(self) -> None:
        """All choices end where they are."""
        self._ends = [Chunk(index, finish="cancelled") for index in range(self._num_choices)]

    def end(self) -> None:
        """Passes on the ends, if nobody has."""
        if not self.has_ended:
            self._on_chunks(self._last_chunks())

    def _last_chunks(self) -> list[Chunk]:
        """The ends, each with its choice's part of the usage: upstreams count all together."""
        self.has_begun = self.has_ended = True
        for chunk in self._ends:
            index, usage = chunk.index, self.usage
            if usage is None:
                chunk.usage = Usage(0, 0, self._counts[index], self._reasoning[index])
            elif len(self._ends) == 1:
                chunk.usage = usage
            else:
                chunk.usage = Usage(
                    usage.prompt_tokens,
                    usage.cached_tokens,
                    self._counts[index],
                    self._reasoning[index],
                )
        return self._ends


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
    written = _encode([list(given.messages), list(given.tools)])
    size = len(written.encode("utf-8", "surrogatepass"))
    return size + _MESSAGE_TOKENS * len(given.messages) + _FRAME_TOKENS


def _refusal(answer: Reply) -> _Failed:
    """What an upstream's error status means to our client."""
    try:
        message = _message_of(json.loads(answer.text))
    except ValueError:
        message = answer.text[:200]
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
