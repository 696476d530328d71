"""The models: those that are served, and for who runs this server those that can be fetched."""

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from rorqual.platform import NotAllowed, Refused
from rorqual.server.app.bodies import EmptyBody
from rorqual.server.endpoints import Endpoint
from rorqual.server.fetcher import Fetch, Offer
from rorqual.server.identity import admin_asker, session_user
from rorqual.server.replies import json_reply
from rorqual.server.services import Services


class ModelApi:
    """Handlers of /api/models."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def endpoints(self) -> list[Endpoint]:
        """Their routes."""
        fetch = "/api/models/{id}/fetch"
        return [
            Endpoint("GET", "/api/models", self.models, "The models.", needs_key=False),
            Endpoint("POST", fetch, self.fetch, "Fetches and loads one.", EmptyBody, status=202),
            Endpoint("DELETE", fetch, self.cancel, "Ends that.", status=204),
        ]

    async def models(self, request: Request) -> Response:
        """Every model, with what the app has to know of it."""
        user = await session_user(self._services, request)
        # Nothing is awaited from here on, so that no model moves from one list to the other.
        models = self._services.models
        listed = [
            {
                "id": backend.info.name,
                "title": backend.info.title,
                "context_length": backend.info.context_tokens,
                "loaded": backend.stats().state == "ready",
                "thinking": backend.info.thinking != "never",
                "default": backend.info.name == models.default,
                "fetchable": False,
                "stored": True,
                "bytes": backend.info.size_bytes,
                "signature": backend.info.trust.to_json(),
                "fetch": None,
            }
            for backend in models
        ]
        if user is not None and user.role == "admin":
            listed += [_offered(offer) for offer in self._services.fetcher.offers()]
        return json_reply({"models": listed})

    async def fetch(self, request: Request) -> Response:
        """Begins it; once, however often it is asked for."""
        services = self._services
        await admin_asker(services, request)
        if services.draining:
            raise Refused("the server is shutting down; try again later", 5.0)
        offer = services.fetcher.offer(request.path_params["id"])
        if not services.is_local and services.config.metering.unpriced == "refused":
            if await services.call(services.platform.prices.current, offer.name) is None:
                raise NotAllowed(
                    f"model {offer.name} has no price, so that nobody could use it; add one under "
                    '[[prices]], or set metering.unpriced = "free"',
                    code="no_price",
                )
        services.fetcher.start(offer.name)
        return json_reply({"state": "fetching"}, 202)

    async def cancel(self, request: Request) -> Response:
        """Ends a fetch or forgets a failure; without one nothing happens."""
        await admin_asker(self._services, request)
        await self._services.fetcher.cancel(request.path_params["id"])
        return Response(status_code=204)


def _offered(offer: Offer) -> dict[str, Any]:
    return {
        "id": offer.name,
        "title": offer.model.title,
        "context_length": offer.model.context_tokens,
        "loaded": False,
        "thinking": offer.model.thinks,
        "default": False,
        "fetchable": True,
        "stored": offer.is_stored,
        "bytes": offer.model.size_bytes,
        "signature": None,
        "fetch": None if offer.fetch is None else _progress(offer.fetch),
    }


def _progress(fetch: Fetch) -> dict[str, Any]:
    error = None if fetch.code is None else {"code": fetch.code, "message": fetch.message}
    return {"state": fetch.state, "received": fetch.received_bytes, "error": error}
