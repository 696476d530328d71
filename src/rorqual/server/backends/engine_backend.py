"""Our own engine as a backend: text to ids on this side of the link, deltas to chunks.

The tokenizer lives in the front end, so that a request that is too long is refused without asking
the engine, and so that the engine's process only ever sees ids.
"""

import asyncio
from collections.abc import Mapping
from typing import Any, Final

from rorqual.engine import Delta, Request, SamplingParams
from rorqual.engine.continuation import continuation_prompt
from rorqual.engine.fim import fim_prompt
from rorqual.engine.loading import begin_ids
from rorqual.engine.reasoning import ReasoningMarkers
from rorqual.engine.structure import Structure
from rorqual.errors import RequestError
from rorqual.server.backends.base import (
    LONG_CHARACTERS,
    BackendStats,
    ChatInput,
    GenerationRequest,
    ModelInfo,
    OnChunks,
    Prepared,
    TextInput,
    num_characters,
)
from rorqual.server.backends.delta_reader import DeltaReader, EngineCall
from rorqual.server.backends.engine_link import EngineLink
from rorqual.server.backends.forced_calls import force_call
from rorqual.server.backends.strict_calls import StrictFollower, follower_id, strict_schemas
from rorqual.tokenizer import Tokenizer
from rorqual.tokenizer.special import TOOL_CALLS_BEGIN

_RECOMMENDED: Final = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")


class EngineBackend:
    """One model on one engine."""

    def __init__(
        self,
        info: ModelInfo,
        tokenizer: Tokenizer,
        link: EngineLink,
        recommended: Mapping[str, Any],
    ) -> None:
        self._info = info
        self._tokenizer = tokenizer
        self._link = link
        self._defaults: dict[str, Any] = {
            name: recommended[name] for name in _RECOMMENDED if recommended.get(name) is not None
        }
        if recommended.get("do_sample") is False:
            self._defaults = {"temperature": 0.0}
        self._markers = ReasoningMarkers.of(tokenizer)
        self._has_calls = TOOL_CALLS_BEGIN in tokenizer.special_tokens

    @property
    def info(self) -> ModelInfo:
        return self._info

    async def start(self) -> None:
        await self._link.start()

    async def stop(self) -> None:
        await self._link.stop()

    async def prepare(self, request: GenerationRequest) -> Prepared:
        if num_characters(request.input) > LONG_CHARACTERS:
            return await asyncio.to_thread(self._prepare, request)
        return self._prepare(request)

    def submit(self, prepared: Prepared, on_chunks: OnChunks) -> None:
        payload: EngineCall = prepared.payload
        reader = DeltaReader(self._tokenizer, self._markers, payload)

        def on_deltas(deltas: list[Delta]) -> None:
            chunks = reader.read(deltas)
            if not reader.num_open:
                self._link.forget(payload.request.id)
            if reader.wants_end:
                self._link.cancel(payload.request.id)
            if chunks:
                on_chunks(chunks)
            if reader.strict_call is not None and not follower.is_started:
                follower.start(reader.strict_call)

        follower = StrictFollower(self._tokenizer, self._link, payload, reader, on_chunks)
        self._link.submit(payload.request, on_deltas)

    def cancel(self, request_id: str) -> None:
        self._link.cancel(request_id)
        self._link.cancel(follower_id(request_id))

    def stats(self) -> BackendStats:
        found, link = self._link.stats, self._link
        return BackendStats(
            state=link.state,
            num_running=0 if found is None else found.num_running,
            num_waiting=0 if found is None else found.num_waiting,
            completion_tokens=0 if found is None else found.completion_tokens,
            prompt_tokens=0 if found is None else found.prompt_tokens,
            cached_tokens=0 if found is None else found.cached_tokens,
            num_restarts=link.num_restarts,
            last_error=link.last_error or (None if found is None else found.last_error),
            drafted_tokens=0 if found is None else found.drafted_tokens,
            accepted_tokens=0 if found is None else found.accepted_tokens,
            speculation_gain=None if found is None else found.speculation_gain,
        )

    def tokenize(self, text: str) -> list[int]:
        return [*begin_ids(self._tokenizer), *self._tokenizer.encode(text)]

    def tokenize_chat(self, chat: ChatInput) -> list[int]:
        return self._chat_ids(chat)

    def detokenize(self, token_ids: list[int]) -> str:
        if not all(0 <= token < self._tokenizer.vocab_size for token in token_ids):
            raise RequestError(
                f"tokens holds an id outside 0 to {self._tokenizer.vocab_size - 1}; expected ids "
                "of this model's vocabulary",
                param="tokens",
            )
        return self._tokenizer.decode(token_ids)

    def _prepare(self, request: GenerationRequest) -> Prepared:
        given = request.input
        fields: dict[str, Any] = dict(self._defaults)
        fields.update(request.sampling)
        forced = None
        if isinstance(given, ChatInput):
            forced = force_call(self._tokenizer, self._markers, given)
            ids = self._chat_ids(given) if forced is None else forced.prompt_ids
            structure = _structure(given) if forced is None else forced.structure
            if structure is not None:
                fields["structure"] = structure
            if forced is not None:
                fields.pop("thinking_budget", None)
        else:
            ids = self._text_ids(given)
        self._bound(request, fields, len(ids))
        if self._markers is None:
            fields.pop("thinking_budget", None)
        params = SamplingParams(**fields)
        strict = strict_schemas(given) if isinstance(given, ChatInput) else {}
        if strict and params.n > 1:
            raise RequestError("n above 1 with a strict function; send more requests", param="n")
        reads_tools = isinstance(given, ChatInput) and bool(given.tools) and self._has_calls
        payload = EngineCall(
            Request(
                id=request.id,
                prompt_ids=ids,
                params=params,
                cache_salt=request.cache_salt,
                split_reasoning=isinstance(given, ChatInput),
                deadline=request.deadline,
            ),
            reads_tools=reads_tools and forced is None,
            forced=forced,
            one_call=isinstance(given, ChatInput) and given.one_call,
            strict=strict if reads_tools and forced is None else {},
        )
        most = params.n * (params.max_tokens or 0)
        return Prepared(request, len(ids), most, payload)

    def _bound(
        self, request: GenerationRequest, fields: dict[str, Any], prompt_tokens: int
    ) -> None:
        """Refuse a prompt that leaves no room; fill in max_tokens where none was asked."""
        left = self._info.context_tokens - prompt_tokens
        wanted = fields.get("max_tokens")
        param = "messages" if isinstance(request.input, ChatInput) else "prompt"
        if left < (0 if wanted == 0 else 1):
            raise RequestError(
                f"{param} is {prompt_tokens} tokens; the model's context is "
                f"{self._info.context_tokens}, shorten it",
                code="context_length_exceeded",
                param=param,
            )
        if wanted is None:
            fields["max_tokens"] = (
                left if request.default_tokens is None else min(left, request.default_tokens)
            )
        else:
            fields["max_tokens"] = min(wanted, left)
        if fields.get("min_tokens", 0) > fields["max_tokens"]:
            raise RequestError(
                f"min_tokens={fields['min_tokens']} exceeds max_tokens={fields['max_tokens']}; "
                "lower it",
                param="min_tokens",
            )

    def _chat_ids(self, chat: ChatInput) -> list[int]:
        tools = list(chat.tools) if chat.tools and chat.tool_choice != "none" else None
        if chat.continue_last:
            return continuation_prompt(
                self._tokenizer, chat.messages, tools=tools, thinking=chat.thinking
            )
        return self._tokenizer.encode_messages(
            chat.messages, tools=tools, add_generation_prompt=True, thinking=chat.thinking
        )

    def _text_ids(self, text: TextInput) -> list[int]:
        if not isinstance(text.prompt, str):
            return list(text.prompt)
        if text.suffix:
            return fim_prompt(
                self._tokenizer,
                text.prompt,
                text.suffix,
                max_prompt_tokens=self._info.context_tokens - 1,
            )
        return self.tokenize(text.prompt)


def _structure(chat: ChatInput) -> Structure | None:
    """The answer's form, as response_format asks for it."""
    wanted = chat.response_format
    if wanted is None or wanted.get("type") == "text":
        return None
    if wanted.get("type") == "json_object":
        return Structure.json_object()
    return Structure.json_schema(wanted["json_schema"]["schema"], param=chat.schema_param)
