"""OpenAI's /v1/responses over HTTP: answers that are kept, followed, listed and deleted.

A response is kept when it has ended, before its reader hears so. One that breaks off is not kept.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from rorqual.engine import Usage
from rorqual.errors import RequestError, RorqualError
from rorqual.platform import NotFound, StoredResponse
from rorqual.server.answering import Answering
from rorqual.server.endpoints import Endpoint
from rorqual.server.generation import Generation
from rorqual.server.identity import cache_salt
from rorqual.server.replies import json_reply
from rorqual.server.services import Asker
from rorqual.server.wire.responses_answer import ResponseAnswer
from rorqual.server.wire.responses_body import (
    RESPONSES_TABLE,
    ResponsesBody,
    check_num_items,
    in_these_words,
    response_head,
    responses_request,
)
from rorqual.server.wire.responses_items import (
    Item,
    checked_items,
    is_response_id,
    referred_responses,
)
from rorqual.server.wire_handlers import WireHandlers, new_id

_MAX_LIMIT: Final = 100
_LIMIT: Final = 20
_ONE: Final = "/v1/responses/{id}"


class ResponsesApi(WireHandlers):
    """Handlers of /v1/responses."""

    def endpoints(self) -> list[Endpoint]:
        """Their routes."""
        limit = {"type": "integer", "minimum": 1, "maximum": _MAX_LIMIT}
        order = {"type": "string", "enum": ["asc", "desc"]}
        page = {"after": {"type": "string"}, "limit": limit, "order": order}
        return [
            Endpoint("POST", "/v1/responses", self.create, "Answer, and keep the answer.",
                     RESPONSES_TABLE.body, errors=(402, 404), generates=True),
            Endpoint("GET", _ONE, self.get, "A response that was kept."),
            Endpoint("DELETE", _ONE, self.delete, "Deletes it."),
            Endpoint("GET", f"{_ONE}/input_items", self.input_items, "What was sent for it.",
                     query=page),
            Endpoint("POST", f"{_ONE}/cancel", self.cancel, "Refused: it has ended."),
        ]  # fmt: skip

    async def create(self, request: Request) -> Answering:
        """An answer to items, and to those of the response that they follow."""
        asker, body, ignored = await self._read(request, RESPONSES_TABLE)
        backend = self._services.models.get(self._model_name(body.model))
        response_id = new_id(request, "resp_")
        given = await self._items(asker, body, response_id)
        history = await self._history(asker, body.previous_response_id)
        made, unused = responses_request(
            body,
            [*history, *given],
            backend.info,
            self._services.config.generation,
            request_id=response_id,
            cache_salt=cache_salt(self._services, asker, body.user),
        )
        try:
            generation = await Generation.open(self._services, asker, [made])
        except RequestError as error:
            raise in_these_words(error) from None
        writer = ResponseAnswer(
            response_head(body, generation.model, response_id), logprobs=body.wants_logprobs
        )

        async def keep(usage: Usage) -> None:
            await self._keep(asker, writer.whole(usage), given)

        before_end = keep if body.store else None
        return self._answering(generation, writer, body.stream, (*ignored, *unused), before_end)

    async def get(self, request: Request) -> Response:
        """The response object."""
        _, found = await self._found(request)
        if request.query_params.get("stream", "false") not in ("false", "0"):
            raise RequestError(
                "stream: a response that has ended is not streamed again; leave it out",
                code="unsupported_parameter",
                param="stream",
            )
        return json_reply({**found.body, "output": found.output})

    async def delete(self, request: Request) -> Response:
        """Gone, and gone from what follows it."""
        asker = await self._asker(request)
        name = _named(request)
        await self._services.call(self._services.platform.responses.delete, asker.user.id, name)
        return json_reply({"id": name, "object": "response", "deleted": True})

    async def input_items(self, request: Request) -> Response:
        """A page of the items that were sent for a response, without its history."""
        _, found = await self._found(request)
        limit, order = _page(request)
        items = found.input if order == "asc" else found.input[::-1]
        after = request.query_params.get("after")
        if after:
            places = [index for index, item in enumerate(items) if item["id"] == after]
            if not places:
                raise RequestError("after: no item here has this id; leave it out", param="after")
            items = items[places[0] + 1 :]
        shown = items[:limit]
        return json_reply(
            {
                "object": "list",
                "data": shown,
                "first_id": shown[0]["id"] if shown else None,
                "last_id": shown[-1]["id"] if shown else None,
                "has_more": len(items) > limit,
            }
        )

    async def cancel(self, request: Request) -> Response:
        """What is kept has ended; what is being written ends with its connection."""
        await self._found(request)
        raise RequestError(
            "the response has ended; one that is being written is cancelled by closing its "
            "connection",
            code="response_ended",
        )

    async def _found(self, request: Request) -> tuple[Asker, StoredResponse]:
        asker = await self._asker(request)
        get = self._services.platform.responses.get
        return asker, await self._services.call(get, asker.user.id, _named(request))

    async def _items(
        self, asker: Asker, body: ResponsesBody, response_id: str
    ) -> list[dict[str, Any]]:
        """The input in one form, references followed."""
        config = self._services.config
        if not isinstance(body.input, str):
            check_num_items(body.input, config.generation)
        referred = referred_responses(body.input)
        known: dict[str, Item] = {}
        if referred:
            found: Mapping[str, StoredResponse] = await self._services.call(
                self._services.platform.responses.some,
                asker.user.id,
                referred,
                max_bytes=config.http.max_body_bytes,
            )
            known = {
                item["id"]: item for one in found.values() for item in (*one.input, *one.output)
            }
        return checked_items(body.input, response_id, known)

    async def _history(self, asker: Asker, previous_id: str | None) -> Sequence[Item]:
        """Items of a response and of all before it. They may be as long as a body may be."""
        if previous_id is None:
            return []
        _require_id(previous_id, "previous_response_id")
        config = self._services.config
        found: list[StoredResponse] = await self._services.call(
            self._services.platform.responses.history,
            asker.user.id,
            previous_id,
            max_responses=config.generation.max_messages,
            max_bytes=config.http.max_body_bytes,
        )
        return [item for one in found for item in (*one.input, *one.output)]

    async def _keep(self, asker: Asker, response: dict[str, Any], given: Sequence[Item]) -> None:
        """An answer that is paid for is delivered, kept or not; its `store` says which."""
        rest = {name: value for name, value in response.items() if name != "output"}
        stored = StoredResponse(response["id"], given, response["output"], rest)
        try:
            await self._services.call(
                self._services.platform.responses.save,
                asker.user.id,
                stored,
                previous_id=response["previous_response_id"],
            )
        except RorqualError as error:
            response["store"] = False
            self._services.log.line("failure", request_id=response["id"], kind=type(error).__name__)


def _named(request: Request) -> str:
    name: str = request.path_params["id"]
    _require_id(name, None)
    return name


def _require_id(name: str, param: str | None) -> None:
    """NotFound for what is the id of no response; a database need not be asked."""
    if not is_response_id(name):
        raise NotFound(
            f"response {name[:64]!r} does not exist; expected resp_ and 24 digits", param=param
        )


def _page(request: Request) -> tuple[int, str]:
    """How many items, in which order."""
    limit = request.query_params.get("limit", str(_LIMIT))
    if not (limit.isascii() and limit.isdigit() and 1 <= int(limit[:9]) <= _MAX_LIMIT):
        raise RequestError(f"limit: expected 1 to {_MAX_LIMIT}", param="limit")
    order = request.query_params.get("order", "desc")
    if order not in ("asc", "desc"):
        raise RequestError("order: expected asc or desc", param="order")
    return int(limit), order
