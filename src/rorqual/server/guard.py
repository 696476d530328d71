"""What every request passes before a handler: limits, hosts, origins; and what is noted of it.

Plain ASGI, outermost. Bodies are counted while they arrive and never decompressed. In local mode
nobody is asked for a key, so only names of this machine are answered and no foreign page may send
anything: a website must not use the visitor's server (DNS rebinding, cross-site posts).
"""

import time
import traceback
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rorqual.errors import RequestError, RorqualError
from rorqual.platform import Refused
from rorqual.server.door import Door
from rorqual.server.errors import Dialect, dialect_of
from rorqual.server.identity import CHANGE_HEADER, HEADERS
from rorqual.server.replies import common_headers, error_reply, new_request_id
from rorqual.server.services import Services
from rorqual.server.source import source_of, text_headers

LOOPBACK_NAMES: Final = frozenset({"localhost", "127.0.0.1", "[::1]"})
_SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_OWN_SITES: Final = frozenset({"same-origin", "none"})


class Guard:
    """Wraps the application. generating: the paths that its connections ask the door about."""

    def __init__(
        self,
        app: ASGIApp,
        services: Services,
        *,
        generating: Collection[str] = (),
        loopback_only: bool = False,
    ) -> None:
        self._app = app
        self.door = Door(services, generating, self._check)
        self._services = services
        config = services.config
        self._max_body_bytes = config.http.max_body_bytes
        self._proxies = frozenset(config.http.trusted_proxies)
        self._hosts = LOOPBACK_NAMES | {name.lower() for name in config.http.allowed_hosts}
        if loopback_only:
            self._hosts = LOOPBACK_NAMES
        self._checks_origin = services.is_local or loopback_only
        self._checks_host = self._checks_origin or bool(config.http.allowed_hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.monotonic()
        request_id = new_request_id()
        headers = text_headers(scope["headers"])
        dialect = dialect_of(scope["path"])
        self._place(scope, headers, request_id, dialect)
        status = 500
        begun = False

        async def noted_send(message: Message) -> None:
            nonlocal status, begun
            if message["type"] == "http.response.start":
                status, begun = message["status"], True
                message["headers"] = [*message["headers"], *common_headers(request_id)]
            await send(message)

        try:
            self._check(scope["path"], scope["method"], headers)
            await self._app(scope, self._bounded(receive), noted_send)
        except HTTPException as error:
            if not begun:
                await _routing_reply(error, scope)(scope, receive, noted_send)
        except RorqualError as error:
            if not begun:
                await error_reply(error, dialect)(scope, receive, noted_send)
            self._refused(error)
        except Exception as error:  # the edge of the process: noted by kind, never by text
            self._services.log.line(
                "failure", request_id=request_id, kind=type(error).__name__, where=_where(error)
            )
            if not begun:
                await error_reply(error, dialect)(scope, receive, noted_send)
        finally:
            self._note(scope, request_id, status, time.monotonic() - started)

    def _place(
        self, scope: Scope, headers: dict[str, str], request_id: str, dialect: Dialect
    ) -> None:
        """Where the request comes from, for whoever asks later."""
        client = scope.get("client")
        address, secure = source_of(client[0] if client else None, headers, self._proxies)
        scope["rorqual.address"] = address
        scope["rorqual.secure"] = scope.get("scheme") == "https" if secure is None else secure
        scope[HEADERS] = headers
        scope["app"] = self  # so that the router raises what it refuses
        scope["rorqual.request_id"], scope["rorqual.dialect"] = request_id, dialect

    def _check(self, path: str, method: str, headers: Mapping[str, str]) -> None:
        host = _netloc(f"//{headers.get('host', '')}")
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
        if self._checks_host and name not in self._hosts:
            raise RequestError(
                f"Host {name[:100]!r} is not served here; use a loopback name, or add it to "
                "http.allowed_hosts",
                code="misdirected_request",
            )
        if "\0" in path:
            raise RequestError("the path holds U+0000; expected a path", code="not_found")
        is_app = path.startswith("/api/")
        if method not in _SAFE_METHODS:
            if is_app or self._checks_origin:
                self._check_origin(headers, host)
            if is_app and headers.get(CHANGE_HEADER) != "1":
                raise RequestError("X-Rorqual: 1 is missing; send it", code="foreign_origin")
        if headers.get("content-encoding", "identity") != "identity":
            raise RequestError(
                "compressed bodies are not read; send the body as it is",
                code="unsupported_media_type",
            )
        length = headers.get("content-length")
        if length is not None and length.isdigit() and int(length) > self._max_body_bytes:
            raise _too_large(self._max_body_bytes)

    def _check_origin(self, headers: Mapping[str, str], host: str) -> None:
        """No foreign page may change anything; programs send neither header."""
        site, origin = headers.get("sec-fetch-site"), headers.get("origin")
        foreign = site is not None and site not in _OWN_SITES
        if origin is not None and _netloc(origin) != host:
            foreign = True
        if foreign:
            raise RequestError(
                "the request comes from another site; open this server's own page",
                code="foreign_origin",
            )

    def _bounded(self, receive: Receive) -> Receive:
        left = self._max_body_bytes

        async def counted() -> Message:
            nonlocal left
            message = await receive()
            if message["type"] == "http.request":
                left -= len(message.get("body", b""))
                if left < 0:
                    raise _too_large(self._max_body_bytes)
            return message

        return counted

    def _refused(self, error: RorqualError) -> None:
        if isinstance(error, Refused):
            self._services.metrics.refused.labels(error.code).inc()

    def _note(self, scope: Scope, request_id: str, status: int, seconds: float) -> None:
        route = scope.get("rorqual.route", "other")
        metrics = self._services.metrics
        metrics.requests.labels(route, str(status)).inc()
        metrics.request_seconds.labels(route).observe(seconds)
        generation = scope.get("rorqual.generation")
        usage = None if generation is None else generation.usage
        self._services.log.line(
            "request",
            request_id=request_id,
            method=scope["method"],
            route=route,
            status=status,
            seconds=round(seconds, 4),
            failed=scope.get("rorqual.failed"),
            user_id=scope.get("rorqual.user_id"),
            key_id=scope.get("rorqual.key_id"),
            model=None if generation is None else generation.model,
            prompt_tokens=None if usage is None else usage.prompt_tokens,
            completion_tokens=None if usage is None else usage.completion_tokens,
        )


def _routing_reply(error: HTTPException, scope: Scope) -> Response:
    """What the router refuses, in the path's format."""
    known = {404: "not_found", 405: "method_not_allowed"}
    code = known.get(error.status_code, "invalid_request")
    what = "there is no such path" if code == "not_found" else f"{scope['method']} is not possible"
    reply = error_reply(
        RequestError(f"{what}; see /openapi.json", code=code), scope["rorqual.dialect"]
    )
    reply.headers.update(error.headers or {})
    return reply


def _netloc(url: str) -> str:
    """Host and port; "" of what is no address."""
    try:
        return urlsplit(url).netloc.lower()
    except ValueError:  # such as half an IPv6 address
        return ""


def _where(error: BaseException) -> list[str]:
    """The last lines of code, without any value."""
    frames = traceback.extract_tb(error.__traceback__)[-4:]
    return [f"{Path(frame.filename).name}:{frame.lineno}" for frame in frames]


def _too_large(most: int) -> RequestError:
    return RequestError(
        f"the body is larger than {most} bytes; send less, or raise http.max_body_bytes",
        code="request_too_large",
    )
