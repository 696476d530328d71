"""The public wire formats over HTTP: OpenAI under /v1, DeepSeek at the root, Anthropic's own path.

Each handler reads a body by its field table, makes requests of it, opens a generation and leaves
the rest to `Answering`.
"""

import time
from dataclasses import replace
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from rorqual.platform import Balance
from rorqual.server.answering import Answering
from rorqual.server.backends import GenerationRequest
from rorqual.server.endpoints import Endpoint
from rorqual.server.errors import Dialect
from rorqual.server.generation import Generation
from rorqual.server.identity import cache_salt
from rorqual.server.replies import json_reply
from rorqual.server.services import Asker
from rorqual.server.token_bodies import DETOKENIZE_TABLE, TOKENIZE_TABLE, tokenized_chat
from rorqual.server.wire.anthropic_answer import MessagesAnswer
from rorqual.server.wire.anthropic_body import ANTHROPIC_TABLE, messages_request
from rorqual.server.wire.chat_answer import ChatAnswer
from rorqual.server.wire.chat_body import DEEPSEEK_CHAT, OPENAI_CHAT, chat_request
from rorqual.server.wire.fields import read_json
from rorqual.server.wire.text_answer import TextAnswer
from rorqual.server.wire.text_body import TEXT_TABLE, text_requests
from rorqual.server.wire_handlers import WireHandlers, new_id
from rorqual.units import format_nano


class WireApi(WireHandlers):
    """Handlers of the public formats."""

    def endpoints(self) -> list[Endpoint]:
        """Every route of the public formats."""
        chat, text, answers = self.chat, self.text, (402, 404, 422)
        points: list[Endpoint] = []
        for prefix in ("/v1", "", "/beta"):
            body = OPENAI_CHAT.body
            points += [
                Endpoint("POST", f"{prefix}/chat/completions", chat, "Chat.", body,
                         errors=answers, generates=True),
                Endpoint("POST", f"{prefix}/completions", text, "Continue text or fill a gap.",
                         TEXT_TABLE.body, errors=answers, generates=True),
            ]  # fmt: skip
        for prefix in ("/v1", "", "/beta"):
            points += [
                Endpoint("GET", f"{prefix}/models", self.models, "The models."),
                Endpoint("GET", f"{prefix}/models/{{model:path}}", self.model, "One model."),
            ]
        return [
            *points,
            Endpoint("GET", "/user/balance", self.balance, "What is left."),
            Endpoint("GET", "/v1/key", self.key, "The key that the request carries."),
            Endpoint("POST", "/tokenize", self.tokenize, "Ids of a text or conversation.",
                     TOKENIZE_TABLE.body, errors=(404,)),
            Endpoint("POST", "/detokenize", self.detokenize, "Text of ids.",
                     DETOKENIZE_TABLE.body, errors=(404,)),
            Endpoint("POST", "/anthropic/v1/messages", self.messages, "Anthropic's messages.",
                     ANTHROPIC_TABLE.body, errors=(402, 404, 529), generates=True),
            Endpoint("POST", "/anthropic/v1/messages/count_tokens", self.count_tokens,
                     "Tokens of a conversation.", ANTHROPIC_TABLE.body, errors=(404, 529)),
            Endpoint("GET", "/anthropic/v1/models", self.anthropic_models, "The models."),
        ]  # fmt: skip

    # Generation

    async def chat(self, request: Request) -> Answering:
        """OpenAI's and DeepSeek's chat completions."""
        dialect: Dialect = request.scope["rorqual.dialect"]
        table = DEEPSEEK_CHAT if dialect == "deepseek" else OPENAI_CHAT
        asker, body, ignored = await self._read(request, table, reserves=True)
        backend = self._services.models.get(self._model_name(body.model))
        made, plan, unused = chat_request(
            body,
            backend.info,
            self._services.config.generation,
            request_id=new_id(request, "chatcmpl-"),
            cache_salt=cache_salt(self._services, asker, body.user_id or body.user),
            like_deepseek=dialect == "deepseek",
        )
        generation = await Generation.open(self._services, asker, [made])
        options = body.stream_options
        writer = ChatAnswer(
            request_id=made.id,
            model=generation.model,
            created=int(time.time()),
            dialect=dialect,
            num_choices=body.n,
            thinks=plan.is_on,
            logprobs=body.logprobs,
            include_usage=options is not None and options.include_usage,
        )
        return self._answering(generation, writer, body.stream, (*ignored, *unused))

    async def text(self, request: Request) -> Answering:
        """Completions: continued text, filled gaps, scored texts."""
        asker, body, ignored = await self._read(request, TEXT_TABLE, reserves=True)
        backend = self._services.models.get(self._model_name(body.model))
        made = text_requests(
            body,
            backend.info,
            self._services.config.generation,
            request_id=new_id(request, "cmpl-"),
            cache_salt=cache_salt(self._services, asker, body.user_id or body.user),
        )
        echoed: list[str | None] = []
        for one in made:
            prompt = getattr(one.input, "prompt", "")
            if body.echo and not isinstance(prompt, str):
                prompt = backend.detokenize(list(prompt))
            echoed += [prompt if body.echo else None] * body.n
        generation = await Generation.open(self._services, asker, made)
        options = body.stream_options
        writer = TextAnswer(
            request_id=made[0].id,
            model=generation.model,
            created=int(time.time()),
            dialect=request.scope["rorqual.dialect"],
            echoed=echoed,
            logprobs=body.logprobs,
            include_usage=options is not None and options.include_usage,
        )
        return self._answering(generation, writer, body.stream, ignored)

    async def messages(self, request: Request) -> Answering:
        """Anthropic's messages."""
        asker, body, ignored = await self._read(request, ANTHROPIC_TABLE, reserves=True)
        made = self._messages_request(request, asker, body)
        generation = await Generation.open(self._services, asker, [made])
        writer = MessagesAnswer(
            request_id=made.id, model=generation.model, prompt_tokens=generation.prompt_tokens
        )
        return self._answering(generation, writer, body.stream, ignored)

    async def count_tokens(self, request: Request) -> Response:
        """How long a conversation is."""
        raw = read_json(await request.body())
        asker, body, _ = await self._checked(request, ANTHROPIC_TABLE, {"max_tokens": 1, **raw})
        made = self._messages_request(request, asker, body)
        counted = replace(made, sampling={**made.sampling, "max_tokens": 1})
        prepared = await self._services.models.get(made.model).prepare(counted)
        return json_reply({"input_tokens": prepared.prompt_tokens})

    def _messages_request(self, request: Request, asker: Asker, body: Any) -> GenerationRequest:
        backend = self._services.models.get(self._model_name(body.model))
        user_id = None if body.metadata is None else body.metadata.user_id
        made, _ = messages_request(
            body,
            backend.info,
            self._services.config.generation,
            request_id=new_id(request, "msg-"),
            cache_salt=cache_salt(self._services, asker, user_id),
        )
        return made

    # Models, tokens, money

    async def models(self, request: Request) -> Response:
        """Every model that the key may use."""
        asker = await self._asker(request)
        listed = [_model_object(backend.info) for backend in self._services.models]
        if asker.key is not None and asker.key.models is not None:
            listed = [model for model in listed if model["id"] in asker.key.models]
        return json_reply({"object": "list", "data": listed})

    async def model(self, request: Request) -> Response:
        """One model."""
        await self._asker(request)
        name = self._services.models.name_of(request.path_params["model"])
        return json_reply(_model_object(self._services.models.get(name).info))

    async def anthropic_models(self, request: Request) -> Response:
        """Every model, in Anthropic's shape."""
        await self._asker(request)
        listed = [
            {
                "type": "model",
                "id": backend.info.name,
                "display_name": backend.info.title,
                "created_at": _iso(backend.info.created),
            }
            for backend in self._services.models
        ]
        ends = {"first_id": listed[0]["id"], "last_id": listed[-1]["id"]}
        return json_reply({"data": listed, "has_more": False, **ends})

    async def balance(self, request: Request) -> Response:
        """DeepSeek's balance; in local mode there is no money and no lack of it."""
        asker = await self._asker(request)
        if self._services.is_local:
            return json_reply({"is_available": True, "balance_infos": []})
        found: Balance = await self._services.call(
            self._services.platform.ledger.balance, asker.user.id
        )
        total = format_nano(found.available_nano)
        info = {
            "currency": found.currency,
            "total_balance": total,
            "granted_balance": "0.00",
            "topped_up_balance": total,
        }
        return json_reply({"is_available": found.available_nano > 0, "balance_infos": [info]})

    async def key(self, request: Request) -> Response:
        """What the key that asks may do, and what it has spent."""
        asker = await self._asker(request)
        key = asker.key
        if key is None:
            return json_reply({"name": None, "models": None, "cap": None, "spent": 0})
        return json_reply(
            {
                "name": key.name,
                "models": None if key.models is None else list(key.models),
                "cap": key.cap_nano,
                "spent": key.spent_nano,
                "expires": None if key.expires_seconds is None else _iso(key.expires_seconds),
            }
        )

    async def tokenize(self, request: Request) -> Response:
        """Ids of a text, or of a conversation as the model would read it."""
        _, body, _ = await self._read(request, TOKENIZE_TABLE)
        backend = self._services.models.get(self._model_name(body.model))
        if body.messages is not None:
            ids = backend.tokenize_chat(tokenized_chat(body, backend.info))
        else:
            ids = backend.tokenize(body.prompt or "")
        limit = backend.info.context_tokens
        return json_reply({"tokens": ids, "count": len(ids), "max_model_len": limit})

    async def detokenize(self, request: Request) -> Response:
        """Text of ids."""
        _, body, _ = await self._read(request, DETOKENIZE_TABLE)
        backend = self._services.models.get(self._model_name(body.model))
        return json_reply({"prompt": backend.detokenize(body.tokens)})


def _model_object(info: Any) -> dict[str, Any]:
    return {
        "id": info.name,
        "object": "model",
        "created": info.created,
        "owned_by": "rorqual",
        "context_length": info.context_tokens,
        "thinking": info.thinking,
        "signature": info.trust.to_json(),
    }


def _iso(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
