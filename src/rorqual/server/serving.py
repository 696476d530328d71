"""uvicorn as we run it: connections with deadlines and caps, and no bind left open by mistake."""

import asyncio
import contextlib
import ipaddress
from collections import Counter
from collections.abc import Iterator
from types import FrameType

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from rorqual.config.http import HttpConfig
from rorqual.config.server import ServerConfig
from rorqual.errors import ConfigError
from rorqual.platform.buckets import address_group
from rorqual.server.services import Services


def uvicorn_config(app: ASGIApp, http: HttpConfig) -> uvicorn.Config:
    """Settings of the public listener."""
    return uvicorn.Config(
        app,
        host=http.host,
        port=http.port,
        http=bounded_protocol(http),
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=int(http.idle_seconds),
        timeout_graceful_shutdown=int(http.drain_seconds),
        limit_concurrency=http.max_connections,
        backlog=1024,
        ssl_certfile=http.tls_certificate,
        ssl_keyfile=http.tls_key,
    )


def bounded_protocol(http: HttpConfig) -> type[HttpToolsProtocol]:
    """A connection class that shares one count of connections per address."""
    per_address: Counter[str] = Counter()
    # Behind a trusted proxy all connections come from it, and the proxy has caps of its own.
    uncounted = frozenset(http.trusted_proxies)

    class BoundedProtocol(HttpToolsProtocol):
        """Headers and bodies have absolute deadlines: a slow sender cannot hold a connection."""

        _timer: asyncio.TimerHandle | None = None
        _group: str | None = None
        _header_bytes = 0
        _in_headers = True

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            address = self.client[0] if self.client else "unix"
            if address not in uncounted and self.client is not None:
                self._group = address_group(address)
                per_address[self._group] += 1
                if per_address[self._group] > http.max_connections_per_address:
                    transport.abort()
                    return
            self._set_timer(http.header_seconds)

        def connection_lost(self, exc: Exception | None) -> None:
            self._clear_timer()
            if self._group is not None:
                per_address[self._group] -= 1
                if not per_address[self._group]:
                    del per_address[self._group]
                self._group = None
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            if self._in_headers:
                self._header_bytes += len(data)
                if self._timer is None:
                    self._set_timer(http.header_seconds)
            super().data_received(data)
            # Only now: a body that came in the same packet is the guard's to measure and to refuse.
            if self._in_headers and self._header_bytes > http.max_header_bytes:
                self.transport.abort()

        def on_headers_complete(self) -> None:
            self._in_headers = False
            size = sum(len(name) + len(value) + 4 for name, value in self.headers) + len(self.url)
            if size > http.max_header_bytes:
                self.transport.abort()
                return
            self._set_timer(http.body_seconds)
            super().on_headers_complete()

        def on_message_complete(self) -> None:
            self._clear_timer()
            self._in_headers, self._header_bytes = True, 0
            super().on_message_complete()

        def _set_timer(self, seconds: float) -> None:
            self._clear_timer()
            self._timer = self.loop.call_later(seconds, self._too_slow)

        def _clear_timer(self) -> None:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

        def _too_slow(self) -> None:
            self._timer = None
            self.transport.abort()

    return BoundedProtocol


def check_bind(config: ServerConfig) -> None:
    """Refuses to listen where strangers could come in unasked or unencrypted."""
    http = config.http
    if is_loopback(http.host):
        return
    if config.mode == "local":
        raise ConfigError(
            f"http.host={http.host} can be reached by others, but mode is local, which asks nobody "
            'for a key; set mode = "platform" or listen on 127.0.0.1'
        )
    if http.tls_certificate is None and not http.trusted_proxies:
        raise ConfigError(
            f"http.host={http.host} would carry keys and passwords in the clear; set "
            "http.tls_certificate and http.tls_key, or http.trusted_proxies if a proxy ends TLS"
        )


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class PublicServer(uvicorn.Server):
    """The public listener; from the first signal on it takes no new work."""

    def __init__(self, config: uvicorn.Config, services: Services) -> None:
        super().__init__(config)
        self._services = services

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._services.draining = True
        super().handle_exit(sig, frame)


class _AdminServer(uvicorn.Server):
    """The operator's listener; signals are the public one's."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def run_server(services: Services, app: ASGIApp, admin: ASGIApp | None) -> None:
    """Serves until a signal, then lets requests under way end, then returns."""
    http = services.config.http
    check_bind(services.config)
    public = PublicServer(uvicorn_config(app, http), services)
    if admin is None or http.admin_port is None:
        await public.serve()
        return
    operator = _AdminServer(
        uvicorn.Config(
            admin,
            host="127.0.0.1",
            port=http.admin_port,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
        )
    )
    beside = asyncio.create_task(operator.serve())
    try:
        await public.serve()
    finally:
        operator.should_exit = True
        await beside
