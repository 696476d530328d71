"""uvicorn as we run it: connections with deadlines and caps, and no bind left open by mistake."""

import asyncio
import contextlib
import ipaddress
import socket
import struct
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, Final, cast

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from rorqual.config.http import HttpConfig
from rorqual.config.server import ServerConfig
from rorqual.errors import ConfigError
from rorqual.platform.buckets import address_group
from rorqual.server.answering import READER
from rorqual.server.door import Door
from rorqual.server.guard import Guard
from rorqual.server.services import Services

_TICK_SECONDS: Final = 1.0
_TCP_INFO_BYTES: Final = 128
_BYTES_ACKED_AT: Final = 120  # tcpi_bytes_acked in Linux' struct tcp_info
_BYTES_ACKED: Final = struct.Struct("=Q")


def uvicorn_config(app: Guard, http: HttpConfig) -> uvicorn.Config:
    """Settings of the public listener."""
    return uvicorn.Config(
        app,
        host=http.host,
        port=http.port,
        http=bounded_protocol(http, app.door),
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


class WatchedReader(HttpToolsProtocol):
    """A reader who takes nothing for write_seconds is cut off, whatever the rest of the server
    does meanwhile: generating, waiting for an engine, or done with the request."""

    write_seconds = 30.0
    _reader_timer: asyncio.TimerHandle | None = None
    _taken: int | None = None
    _when_gone: Callable[[], object] | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._reader_timer = self.loop.call_later(self.write_seconds, self._look_at_reader)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._reader_timer is not None:
            self._reader_timer.cancel()
        super().connection_lost(exc)
        if self._when_gone is not None:
            self._when_gone()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope[READER] = self  # type: ignore[typeddict-unknown-key]

    @property
    def is_gone(self) -> bool:
        """Whether what is sent vanishes."""
        return self.transport.is_closing()

    def call_when_gone(self, callback: Callable[[], object] | None) -> None:
        """What to do when the connection is lost."""
        self._when_gone = callback
        if callback is None:
            return
        self.flow.resume_reading()  # it stops at a large body, and who does not read hears nothing
        if self.is_gone:  # it may have been lost already
            self.loop.call_soon(callback)

    def _look_at_reader(self) -> None:
        """Compares with the last look, if something has been waiting since then."""
        unsent = self.transport.get_write_buffer_size()
        taken = _taken_bytes(self.transport, unsent) if unsent else None
        if taken is not None and taken == self._taken:
            self.transport.abort()
            return
        self._taken = taken
        self._reader_timer = self.loop.call_later(self.write_seconds, self._look_at_reader)


class DoorProtocol(WatchedReader):
    """Asks the door about every POST before it becomes a request."""

    door: Door
    _refusal: bytes | None = None  # sent when the request that it is for has come whole
    _stays = True  # whether the connection outlives it

    def on_headers_complete(self) -> None:
        self._unset_keepalive_if_required()  # a refusal in the same packet has set it
        self._refusal = self._at_the_door()
        if self._refusal is None:
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        if self._refusal is None:
            super().on_body(body)

    def on_message_complete(self) -> None:
        if self._refusal is None:
            super().on_message_complete()
            return
        self.transport.write(self._refusal)
        self._refusal = None
        if not self._stays:  # the parser reads nothing that comes behind
            self.transport.close()
        self.on_response_complete()

    def _at_the_door(self) -> bytes | None:
        """The refusal, unless an answer is under way, or there are too many connections."""
        parser, cycle, most = self.parser, self.cycle, self.limit_concurrency
        if parser is None or parser.get_method() != b"POST" or self.flow.write_paused:
            return None
        if cycle is not None and not cycle.response_complete:
            return None
        if most is not None and len(self.connections) >= most:
            return None
        self._stays = parser.get_http_version() == "1.1" and parser.should_keep_alive()
        extra = self.server_state.default_headers
        if not self._stays:
            extra = [*extra, (b"connection", b"close")]
        client = self.client and self.client[0]
        notes = cast("dict[str, Any]", self.scope)
        return self.door.refusal(self.url, self.headers, client, extra, notes)


def bounded_protocol(http: HttpConfig, at_door: Door) -> type[HttpToolsProtocol]:
    """A connection class that shares one count of connections per address, and one door."""
    per_address: Counter[str] = Counter()
    # Behind a trusted proxy all connections come from it, and the proxy has caps of its own.
    uncounted = frozenset(http.trusted_proxies)

    class BoundedProtocol(DoorProtocol):
        """Headers and bodies have absolute deadlines: a slow sender cannot hold a connection."""

        write_seconds = http.write_seconds
        door = at_door

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
            super().data_received(data)
            # Only now: what came whole needs no deadline, and a body that came in the same packet
            # is the guard's to measure and to refuse.
            if not self._in_headers:
                self._set_timer(http.body_seconds)
            elif self._header_bytes > http.max_header_bytes:
                self.transport.abort()
            elif self._header_bytes:
                self._set_timer(http.header_seconds)

        def on_headers_complete(self) -> None:
            self._in_headers = False
            size = sum(len(name) + len(value) + 4 for name, value in self.headers) + len(self.url)
            if size > http.max_header_bytes:
                self.transport.abort()
                return
            self._clear_timer()
            super().on_headers_complete()

        def on_message_complete(self) -> None:
            self._clear_timer()
            self._in_headers, self._header_bytes = True, 0
            super().on_message_complete()

        def _set_timer(self, seconds: float) -> None:
            """Unless it runs already: it is not put off by what comes."""
            if self._timer is None and not self.transport.is_closing():
                self._timer = self.loop.call_later(seconds, self._too_slow)

        def _clear_timer(self) -> None:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

        def _too_slow(self) -> None:
            self._timer = None
            self.transport.abort()

    return BoundedProtocol


def _taken_bytes(transport: asyncio.Transport, unsent: int) -> int:
    """What the other side has taken so far; where the system does not tell, less what waits."""
    connection = transport.get_extra_info("socket")
    if sys.platform != "linux" or connection.family not in (socket.AF_INET, socket.AF_INET6):
        return -unsent
    found = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
    return _BYTES_ACKED.unpack_from(found, _BYTES_ACKED_AT)[0]


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


class _PatientServer(uvicorn.Server):
    """uvicorn looks ten times a second whether it should end; this one is told, and sleeps."""

    def __init__(self, config: uvicorn.Config) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._told = asyncio.Event()
        super().__init__(config)

    @property
    def should_exit(self) -> bool:
        return self._told.is_set()

    @should_exit.setter
    def should_exit(self, value: bool) -> None:  # pyright: ignore[reportIncompatibleVariableOverride]
        if not value:
            self._told.clear()
        elif self._loop is None:
            self._told.set()
        else:  # by a signal, or from another thread
            with contextlib.suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self._told.set)

    async def main_loop(self) -> None:
        self._loop = asyncio.get_running_loop()
        while not await self.on_tick(0):  # the date of all answers, among others
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_TICK_SECONDS):
                    await self._told.wait()


class PublicServer(_PatientServer):
    """The public listener; from the first signal on it takes no new work."""

    def __init__(self, config: uvicorn.Config, services: Services) -> None:
        super().__init__(config)
        self._services = services

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._services.draining = True
        super().handle_exit(sig, frame)


class _AdminServer(_PatientServer):
    """The operator's listener; signals are the public one's."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def run_server(services: Services, app: Guard, admin: ASGIApp | None) -> None:
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
