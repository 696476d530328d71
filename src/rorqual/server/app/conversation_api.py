"""Conversations and runs: durable, owned, resumable."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from rorqual.errors import RequestError
from rorqual.platform import Conversation, Message, NotFound, RunEvent
from rorqual.server.app.bodies import EmptyBody, RunBody, TitleBody
from rorqual.server.app.run_keeper import RunKeeper
from rorqual.server.backends import ChatInput, GenerationRequest, ModelInfo
from rorqual.server.endpoints import Endpoint
from rorqual.server.generation import Generation
from rorqual.server.identity import app_asker, cache_salt
from rorqual.server.replies import json_reply
from rorqual.server.services import Asker, Services
from rorqual.server.times import iso
from rorqual.server.wire.answer import to_json
from rorqual.server.wire.fields import FieldTable, read_json
from rorqual.server.wire.thinking import plan_thinking

_TITLES: Final = FieldTable(TitleBody)
_RUNS: Final = FieldTable(RunBody)
_STATES: Final = {
    "running": "streaming",
    "finished": "complete",
    "stopped": "stopped",
    "failed": "error",
    "interrupted": "interrupted",
}
_FOREIGN_SECONDS: Final = 0.5  # between looks at a run that another process writes
_PAGE: Final = 50
_TITLE_CHARACTERS: Final = 60


class ConversationApi:
    """Handlers of /api/conversations and /api/runs."""

    def __init__(self, services: Services, keeper: RunKeeper) -> None:
        self._services = services
        self._keeper = keeper
        self._conversations = services.platform.conversations

    def endpoints(self) -> list[Endpoint]:
        """Their routes."""
        one = "/api/conversations/{id}"
        page = {"query": {"type": "string"}, "cursor": {"type": "string"}}
        form = {"format": {"type": "string", "enum": ["json", "markdown"]}}
        after = {"after": {"type": "integer"}}
        return [
            Endpoint("GET", "/api/conversations", self.page, "Newest first.", query=page),
            Endpoint("POST", "/api/conversations", self.create, "A new one.", TitleBody,
                     status=201),
            Endpoint("GET", one, self.get, "All branches."),
            Endpoint("PATCH", one, self.rename, "A new title.", TitleBody),
            Endpoint("DELETE", one, self.delete, "Removes it.", status=204),
            Endpoint("GET", f"{one}/export", self.export, "Downloads it.", query=form),
            Endpoint("POST", f"{one}/runs", self.run, "Asks for an answer.", RunBody, status=202,
                     errors=(402, 404)),
            Endpoint("GET", "/api/runs/{id}/events", self.events, "An answer as it is written.",
                     query=after, answer="text/event-stream"),
            Endpoint("POST", "/api/runs/{id}/stop", self.stop, "Ends an answer.", EmptyBody),
        ]  # fmt: skip

    async def page(self, request: Request) -> Response:
        """A page of conversations."""
        asker = await app_asker(self._services, request)
        found, cursor = await self._services.call(
            self._conversations.search,
            asker.user.id,
            query=request.query_params.get("query", ""),
            cursor=request.query_params.get("cursor"),
            limit=_PAGE,
        )
        items = [
            {"id": one.id, "title": one.title, "updated": iso(one.updated_seconds),
             "model": one.model}
            for one in found
        ]  # fmt: skip
        return json_reply({"items": items, "cursor": cursor})

    async def create(self, request: Request) -> Response:
        """A new, empty conversation."""
        asker = await app_asker(self._services, request)
        body, _ = _TITLES.read(read_json(await request.body() or b"{}"))
        made = await self._services.call(self._conversations.create, asker.user.id, body.title)
        return json_reply(_head(made), 201)

    async def get(self, request: Request) -> Response:
        """A conversation with all its messages."""
        asker = await app_asker(self._services, request)
        return json_reply(await self._whole(asker, request.path_params["id"]))

    async def rename(self, request: Request) -> Response:
        """A new title."""
        asker = await app_asker(self._services, request)
        body, _ = _TITLES.read(read_json(await request.body()))
        name = request.path_params["id"]
        await self._services.call(self._conversations.rename, asker.user.id, name, body.title)
        found, _ = await self._services.call(self._conversations.get, asker.user.id, name)
        return json_reply(_head(found))

    async def delete(self, request: Request) -> Response:
        """Removes a conversation with everything in it."""
        asker = await app_asker(self._services, request)
        name = request.path_params["id"]
        await self._services.call(self._conversations.delete, asker.user.id, name)
        return Response(status_code=204)

    async def export(self, request: Request) -> Response:
        """A conversation as a file."""
        asker = await app_asker(self._services, request)
        whole = await self._whole(asker, request.path_params["id"])
        form = request.query_params.get("format", "json")
        if form not in ("json", "markdown"):
            raise RequestError("format: expected json or markdown", param="format")
        if form == "json":
            body, kind, suffix = json.dumps(whole, indent=1, ensure_ascii=False), "json", "json"
        else:
            body, kind, suffix = _markdown(whole), "markdown", "md"
        headers = {"content-disposition": f'attachment; filename="conversation.{suffix}"'}
        data = body.encode("utf-8", "replace")
        main = "application/json" if kind == "json" else "text/markdown; charset=utf-8"
        return Response(data, headers=headers, media_type=main)

    async def run(self, request: Request) -> Response:
        """Adds the user's message, if there is one, and begins an answer."""
        asker = await app_asker(self._services, request)
        body, _ = _RUNS.read(read_json(await request.body()))
        models = self._services.models
        model = models.default if body.model is None else models.name_of(body.model)
        conversation, messages = await self._services.call(
            self._conversations.get, asker.user.id, request.path_params["id"]
        )
        parent_id, path = _asked(messages, body)
        request_id = f"run-{request.scope['rorqual.request_id'].removeprefix('req-')}"
        made = self._request(asker, body, models.get(model).info, path, request_id)
        # Refused here, not in the run, so that the app sees a status and when to come back.
        generation = await Generation.open(self._services, asker, [made])
        try:
            asked = None
            if body.content is not None:
                asked = await self._ask(asker, conversation, body.content, parent_id, model)
            run = await self._services.call(
                self._conversations.start_run,
                asker.user.id,
                conversation.id,
                parent_id=asked or parent_id or "",
                request_id=None if self._services.is_local else request_id,
            )
        except BaseException:
            await generation.close()
            raise
        self._keeper.start(run, generation)
        _, now = await self._services.call(self._conversations.get, asker.user.id, conversation.id)
        by_id = {message.id: message for message in now}
        answer = _message(by_id[run.message_id], [])
        shown = None if asked is None else _message(by_id[asked], [])
        return json_reply(
            {"run_id": run.id, "user_message": shown, "assistant_message": answer}, 202
        )

    async def _ask(
        self,
        asker: Asker,
        conversation: Conversation,
        content: str,
        parent_id: str | None,
        model: str,
    ) -> str:
        """Adds the user's message, which may give the conversation its title; its id."""
        added = await self._services.call(
            self._conversations.add_message,
            asker.user.id,
            conversation.id,
            "user",
            {"content": content, "model": model},
            parent_id=parent_id,
        )
        if not conversation.title:
            title = " ".join(content.split())[:_TITLE_CHARACTERS]
            await self._services.call(
                self._conversations.rename, asker.user.id, conversation.id, title
            )
        return added

    def _request(
        self,
        asker: Asker,
        body: RunBody,
        info: ModelInfo,
        path: list[dict[str, Any]],
        request_id: str,
    ) -> GenerationRequest:
        config = self._services.config.generation
        plan = plan_thinking(info, config, switch=None, effort=body.effort, wanted=body.thinking)
        sampling = {
            "max_tokens": body.max_tokens,
            "temperature": body.temperature,
            "thinking_budget": plan.budget_tokens,
        }
        return GenerationRequest(
            id=request_id,
            model=info.name,
            input=ChatInput(messages=tuple(path), thinking=plan.thinking),
            sampling={name: value for name, value in sampling.items() if value is not None},
            default_tokens=config.max_tokens,
            cache_salt=cache_salt(self._services, asker, None),
        )

    async def stop(self, request: Request) -> Response:
        """Ends a run; the answer comes when the engine has stopped. Twice is once."""
        asker = await app_asker(self._services, request)
        name = request.path_params["id"]
        await self._services.call(self._conversations.request_stop, asker.user.id, name)
        await self._keeper.stop(name)
        run = await self._services.call(self._conversations.run, asker.user.id, name)
        return json_reply({"state": _STATES[run.state]})

    async def events(self, request: Request) -> Response:
        """A run's events after the last one that the reader has seen."""
        asker = await app_asker(self._services, request)
        name = request.path_params["id"]
        last = request.headers.get("last-event-id") or request.query_params.get("after") or "0"
        if not (last.isascii() and last.isdigit() and len(last) < 19):
            raise RequestError("Last-Event-ID: expected a number", param="after")
        await self._services.call(self._conversations.run, asker.user.id, name)
        headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
        stream = self._stream(asker.user.id, name, int(last))
        return StreamingResponse(stream, headers=headers, media_type="text/event-stream")

    async def _stream(self, user_id: str, run_id: str, after: int) -> AsyncIterator[bytes]:
        quiet = self._services.config.http.keep_alive_seconds
        said = asyncio.get_running_loop().time()
        while True:
            run, events = await self._services.call(
                self._conversations.read, user_id, run_id, after_sequence=after
            )
            if events:
                after = events[-1].sequence
                said = asyncio.get_running_loop().time()
                yield b"".join(map(_event, events))
            if any(found.kind == "end" for found in events) or (
                run.state != "running" and not events
            ):
                return
            if asyncio.get_running_loop().time() - said >= quiet:
                said = asyncio.get_running_loop().time()
                yield b": keep-alive\n\n"
            seconds = quiet if self._keeper.is_mine(run_id) else _FOREIGN_SECONDS
            await self._keeper.wait_changed(run_id, seconds)

    async def _whole(self, asker: Asker, conversation_id: str) -> dict[str, Any]:
        def read() -> dict[str, Any]:
            found, messages = self._conversations.get(asker.user.id, conversation_id)
            shown = []
            for message in messages:
                events: list[RunEvent] = []
                if message.run_id is not None and message.run_state == "running":
                    _, events = self._conversations.read(
                        asker.user.id, message.run_id, limit=100_000
                    )
                shown.append(_message(message, events))
            return {**_head(found), "messages": shown}

        return await self._services.call(read)


def _asked(messages: Sequence[Message], body: RunBody) -> tuple[str | None, list[dict[str, Any]]]:
    """(the message under which something new comes, the conversation as it will be answered)."""
    by_id = {message.id: message for message in messages}
    parent_id, content = body.parent_id, body.content
    if parent_id is not None and parent_id not in by_id:
        raise NotFound(f"message {parent_id[:100]} does not exist; reload the conversation")
    under_user = parent_id is not None and by_id[parent_id].role == "user"
    path = _path(by_id, parent_id)
    if content is None:
        if not under_user:
            raise RequestError(
                "content is null, so parent_id must name a message of the user; name one",
                param="parent_id",
            )
        return parent_id, path
    if under_user:
        raise RequestError(
            "parent_id names a message of the user; a new one goes under an answer, or null",
            param="parent_id",
        )
    if not content.strip():
        raise RequestError("content is empty; write something", param="content")
    return parent_id, [*path, {"role": "user", "content": content}]


def _head(conversation: Conversation) -> dict[str, Any]:
    return {
        "id": conversation.id,
        "title": conversation.title,
        "updated": iso(conversation.updated_seconds),
    }


def _message(message: Message, events: Sequence[RunEvent]) -> dict[str, Any]:
    """A message as the app sees it; of one that is being written, what there is so far."""
    content, reasoning = message.content.get("content", ""), message.content.get("reasoning", "")
    details = {} if message.run_reason is None else _details(message.run_reason)
    for found in events:
        if found.kind == "content":
            content += found.data["text"]
        elif found.kind == "reasoning":
            reasoning += found.data["text"]
        elif found.kind == "start":
            details = {"model": found.data["model"]}
        elif found.kind == "end":
            details = _details(found.data["reason"])
    return {
        "id": message.id,
        "parent_id": message.parent_id,
        "role": message.role,
        "content": content,
        "reasoning": reasoning,
        "created": iso(message.created_seconds),
        "run_id": message.run_id,
        "model": details.get("model") or message.content.get("model"),
        "state": "complete" if message.run_state is None else _STATES[message.run_state],
        "usage": details.get("usage"),
        "error": details.get("error"),
    }


def _details(reason: str) -> Mapping[str, Any]:
    """What the end of a run says besides its state: JSON from us, words from a sweeper."""
    if not reason.startswith("{"):
        return {"error": reason or None}
    return json.loads(reason)


def _event(found: RunEvent) -> bytes:
    """One event of a run as the app's interface names them."""
    name, data = found.kind, dict(found.data)
    if name in ("content", "reasoning"):
        name, data = "delta", {name: data["text"]}
    elif name == "end":
        details = _details(str(data["reason"]))
        data = {
            "state": _STATES[str(data["state"])],
            "finish_reason": details.get("finish_reason"),
            "usage": details.get("usage"),
            "error": details.get("error"),
        }
    return f"id: {found.sequence}\nevent: {name}\ndata: {to_json(data)}\n\n".encode(
        "utf-8", "replace"
    )


def _path(by_id: Mapping[str, Message], last: str | None) -> list[dict[str, Any]]:
    """The branch that ends in a message, as the model reads it: thinking is not shown again."""
    path: list[dict[str, Any]] = []
    while last is not None:
        message = by_id[last]
        text = {"role": message.role, "content": message.content.get("content", "")}
        if message.role == "assistant":
            text["reasoning_content"] = ""
        path.append(text)
        last = message.parent_id
    return path[::-1]


def _markdown(whole: Mapping[str, Any]) -> str:
    """Every message under a heading; thinking as a quotation."""
    parts = [f"# {whole['title'] or 'Conversation'}\n"]
    for message in whole["messages"]:
        parts.append(f"## {message['role'].title()}\n")
        if message["reasoning"]:
            parts.append("".join(f"> {line}\n" for line in message["reasoning"].splitlines()))
        parts.append(f"{message['content']}\n")
    return "\n".join(parts)
