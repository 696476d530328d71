"""A route with what the OpenAPI document says of it, and the document made of such routes."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, Router
from starlette.types import ASGIApp, Lifespan, Receive, Scope, Send

from rorqual import __version__

Handler = Callable[[Request], Awaitable[Response | ASGIApp]]
_REASONS: Final = {
    200: "done",
    201: "made",
    202: "begun",
    204: "done",
    304: "unchanged",
    400: "the request is not right",
    401: "who asks is not known",
    402: "the balance does not cover the worst case",
    403: "not allowed",
    404: "not there, or not yours",
    405: "not with this method",
    409: "in conflict with what is",
    413: "the body is too large",
    415: "bodies of this type are not read",
    421: "this name is not served here",
    422: "a parameter is not right",
    429: "too much for now",
    500: "our fault",
    503: "no room for now",
    529: "no room for now",
}
_ALWAYS: Final = (400, 401, 403, 405, 413, 415, 421, 429, 500, 503)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One method of one path. body: what it reads; query: its parameters, with their types.

    generates: it answers with what a model writes, so it takes a place in the queue.
    """

    method: str
    path: str
    handler: Handler
    summary: str
    body: type[BaseModel] | None = None
    status: int = 200
    answer: str = "application/json"
    errors: tuple[int, ...] = ()
    query: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])
    needs_key: bool = True
    generates: bool = False

    def route(self) -> Route:
        """For Starlette."""
        return Route(self.path, _Handling(self), methods=[self.method])


class EndpointRouter(Router):
    """Starlette's router, which tries one path after another; paths without parameters are found at
    once."""

    def __init__(self, endpoints: Sequence[Endpoint], lifespan: Lifespan[Any]) -> None:
        routes = [point.route() for point in endpoints]
        super().__init__(routes, lifespan=lifespan, redirect_slashes=False)
        self._exact: dict[tuple[str, str], ASGIApp] = {}
        for number, (point, route) in enumerate(zip(endpoints, routes, strict=True)):
            before = [one for one in routes[:number] if point.method in (one.methods or ())]
            taken = any(one.path_regex.match(point.path) for one in before)
            if "{" not in point.path and not taken:
                self._exact[point.method, point.path] = route.app

    async def app(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes a request to its endpoint."""
        if scope["type"] == "http" and not scope.get("root_path"):
            found = self._exact.get((scope["method"], scope["path"]))
            if found is not None:
                await found(scope, receive, send)
                return
        await super().app(scope, receive, send)


class _Handling:
    """An endpoint as an ASGI application: what it raises is the guard's, so nothing catches it on
    the way. The template of the path is noted for logs and metrics."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._handler = endpoint.handler
        self._notes = {
            "rorqual.route": f"{endpoint.method} {endpoint.path}",
            "rorqual.generates": endpoint.generates,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope.update(self._notes)
        answer = await self._handler(Request(scope, receive, send))
        await answer(scope, receive, send)


def openapi_document(endpoints: Sequence[Endpoint]) -> dict[str, Any]:
    """OpenAPI 3.1 of these endpoints."""
    bodies = {point.body for point in endpoints if point.body is not None}
    ordered = sorted(bodies, key=lambda body: body.__name__)
    template = "#/components/schemas/{model}"
    references, definitions = models_json_schema(
        [(body, "validation") for body in ordered], ref_template=template
    )
    named = {body: references[(body, "validation")] for body in ordered}
    paths: dict[str, dict[str, Any]] = {}
    for point in endpoints:
        schema = None if point.body is None else named[point.body]
        path = point.path.replace(":path}", "}")
        paths.setdefault(path, {})[point.method.lower()] = _operation(point, schema)
    schemes = {
        "bearer": {"type": "http", "scheme": "bearer"},
        "key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": "Rorqual", "version": __version__},
        "paths": paths,
        "components": {"schemas": definitions.get("$defs", {}), "securitySchemes": schemes},
    }


def _operation(point: Endpoint, schema: Any) -> dict[str, Any]:
    statuses = {*_ALWAYS, *point.errors}
    if "{" in point.path:
        statuses.add(404)
    answers: dict[str, Any] = {
        str(status): {"description": _REASONS[status], "content": {"application/json": {}}}
        for status in sorted(statuses)
    }
    answers[str(point.status)] = {"description": _REASONS[point.status]}
    if point.status != 204:
        content: dict[str, Any] = {point.answer: {}}
        if point.body is not None and "stream" in point.body.model_fields:
            content["text/event-stream"] = {}
        answers[str(point.status)]["content"] = content
    operation: dict[str, Any] = {"summary": point.summary, "responses": answers}
    names = [part.split("}")[0].split(":")[0] for part in point.path.split("{")[1:]]
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
        for name in names
    ]
    parameters += [
        {"name": name, "in": "query", "required": False, "schema": kind}
        for name, kind in point.query.items()
    ]
    if parameters:
        operation["parameters"] = parameters
    if schema is not None:
        operation["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": schema}},
        }
    if point.needs_key:
        operation["security"] = [{"bearer": []}, {"key": []}]
    return operation
