"""The application: routes, health, the guard around everything."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

from starlette.requests import Request
from starlette.responses import Response

from rorqual.server.app.account_api import AccountApi
from rorqual.server.app.conversation_api import ConversationApi
from rorqual.server.app.lab_api import LabApi
from rorqual.server.app.model_api import ModelApi
from rorqual.server.app.money_api import MoneyApi
from rorqual.server.app.pages import Pages
from rorqual.server.app.run_keeper import RunKeeper
from rorqual.server.app.tutor_api import TutorApi
from rorqual.server.endpoints import Endpoint, EndpointRouter, openapi_document
from rorqual.server.guard import Guard
from rorqual.server.health import Health
from rorqual.server.pairing import Pairing
from rorqual.server.release_api import ReleaseApi
from rorqual.server.replies import json_reply
from rorqual.server.responses_api import ResponsesApi
from rorqual.server.services import Services
from rorqual.server.wire_api import WireApi

_LAG_SECONDS = 0.5


def create_app(services: Services, pairing: Pairing | None = None) -> Guard:
    """The server as an ASGI application. Its lifespan starts and stops engines and platform."""
    keeper = RunKeeper(services)
    endpoints = public_endpoints(services, keeper)

    async def openapi(request: Request) -> Response:
        return json_reply(openapi_document(endpoints))

    described = Endpoint("GET", "/openapi.json", openapi, "This document.", needs_key=False)
    pages = Pages(services).endpoints()  # the last of them takes every path that is left
    paired = [] if pairing is None else [pairing.endpoint()]

    @contextlib.asynccontextmanager
    async def lifespan(_: object) -> AsyncIterator[None]:
        await services.start()
        lag = asyncio.create_task(_measure_lag(services))
        try:
            yield
        finally:
            services.draining = True
            lag.cancel()
            await asyncio.gather(lag, return_exceptions=True)
            await keeper.drain(services.config.http.drain_seconds)
            await services.stop()

    generating = [point.path for point in endpoints if point.generates]
    # A bare router: errors are the guard's, which knows each format's shape.
    router = EndpointRouter([*endpoints, described, *paired, *pages], lifespan)
    return Guard(router, services, generating=generating)


def public_endpoints(services: Services, keeper: RunKeeper) -> list[Endpoint]:
    """Everything that the OpenAPI document lists."""
    return [
        *WireApi(services).endpoints(),
        *ResponsesApi(services).endpoints(),
        *AccountApi(services).endpoints(),
        *ModelApi(services).endpoints(),
        *ConversationApi(services, keeper).endpoints(),
        *MoneyApi(services).endpoints(),
        *TutorApi(services).endpoints(),
        *LabApi(services).endpoints(),
        *Health(services).endpoints(),
        *ReleaseApi(services).endpoints(),
    ]


async def _measure_lag(services: Services) -> None:
    """How late the event loop wakes: what blocks it shows here first."""
    while True:
        before = time.monotonic()
        await asyncio.sleep(_LAG_SECONDS)
        services.metrics.loop_lag_seconds.set(time.monotonic() - before - _LAG_SECONDS)
