"""What the handlers of all public formats do alike: who asks, what, and how the answer is sent."""

from collections.abc import Awaitable, Callable
from typing import Any, Final

from starlette.requests import Request

from rorqual.engine import Usage
from rorqual.server.answering import Answering
from rorqual.server.generation import Generation
from rorqual.server.identity import asker_of
from rorqual.server.services import Asker, Services
from rorqual.server.wire.answer import AnswerWriter
from rorqual.server.wire.fields import Body, FieldTable, read_json

IGNORED_HEADER: Final = "x-rorqual-ignored"


class WireHandlers:
    """Base of the handlers of a format."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def _answering(
        self,
        generation: Generation,
        writer: AnswerWriter,
        stream: bool,
        ignored: tuple[str, ...],
        before_end: Callable[[Usage], Awaitable[None]] | None = None,
    ) -> Answering:
        headers = {IGNORED_HEADER: ", ".join(ignored)} if ignored else {}
        return Answering(
            self._services,
            generation,
            writer,
            stream=stream,
            headers=headers,
            before_end=before_end,
        )

    async def _asker(self, request: Request, *, reserves: bool = False) -> Asker:
        asker = await asker_of(self._services, request, reserves=reserves)
        request.scope["rorqual.user_id"] = asker.user.id
        request.scope["rorqual.key_id"] = asker.key_id
        return asker

    async def _read(
        self, request: Request, table: FieldTable[Body], *, reserves: bool = False
    ) -> tuple[Asker, Body, tuple[str, ...]]:
        """Who asks, what, and what is accepted without effect. The key is looked at first.

        reserves: as of `asker_of`.
        """
        asker = await self._asker(request, reserves=reserves)
        return asker, *table.read(read_json(await request.body()))

    async def _checked(
        self, request: Request, table: FieldTable[Body], raw: dict[str, Any]
    ) -> tuple[Asker, Body, tuple[str, ...]]:
        asker = await self._asker(request)
        return asker, *table.read(raw)

    def _model_name(self, asked: str | None) -> str:
        models = self._services.models
        return models.default if asked is None else models.name_of(asked)


def new_id(request: Request, prefix: str) -> str:
    """The answer's id: the request's own, so that logs and ledger find each other."""
    return prefix + request.scope["rorqual.request_id"].removeprefix("req-")
