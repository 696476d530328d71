"""The operator's own port: metrics and switches, on loopback only."""

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Router
from starlette.types import ASGIApp

from rorqual.server.endpoints import Endpoint
from rorqual.server.guard import Guard
from rorqual.server.health import Health, metrics_reply
from rorqual.server.replies import json_reply
from rorqual.server.services import Services


def create_admin_app(services: Services) -> ASGIApp:
    """The application of http.admin_port. It has no lifespan: the public one starts the engines."""
    operator = Operator(services)
    endpoints = [*operator.endpoints(), *Health(services).endpoints()]
    router = Router([point.route() for point in endpoints], redirect_slashes=False)
    return Guard(router, services, loopback_only=True)


class Operator:
    """What only who runs the server may see or do."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def endpoints(self) -> list[Endpoint]:
        """Metrics, drain, audit."""
        return [
            Endpoint("GET", "/metrics", self.metrics, "Prometheus.", answer="text/plain"),
            Endpoint("POST", "/admin/drain", self.drain, "Takes no new requests."),
            Endpoint("POST", "/admin/undrain", self.undrain, "Takes requests again."),
            Endpoint("GET", "/admin/audit", self.audit, "Whether the books add up."),
        ]

    async def metrics(self, request: Request) -> Response:
        """The figures, those of engines and queue as they are now."""
        return metrics_reply(self._services)

    async def drain(self, request: Request) -> Response:
        """New requests are refused, those under way end in peace."""
        self._services.draining = True
        return json_reply({"draining": True})

    async def undrain(self, request: Request) -> Response:
        """The opposite."""
        self._services.draining = False
        return json_reply({"draining": False})

    async def audit(self, request: Request) -> Response:
        """Every way in which the books do not add up."""
        problems = await self._services.call(self._services.platform.usage.audit)
        return json_reply({"problems": problems})
