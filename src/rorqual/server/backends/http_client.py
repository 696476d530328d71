"""Exchanges with one upstream over HTTP: its address, its connections, what a request looks like.

A client of our own because much of a gateway's cost is its client's: the libraries for everything
wake a task for each part of an answer. Connections are kept for a moment and used again. Proxies of
the environment and redirects are not followed, and compressed answers are not asked for.
"""

import asyncio
import json
import socket
import ssl
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote, urlsplit

from rorqual.errors import ConfigError
from rorqual.server.backends.http_connection import OnEvents, Reply, UpstreamConnection

_IDLE_SECONDS: Final = 4.0  # servers close idle connections, uvicorn after five
# Made once: json.dumps with options builds an encoder at every call.
_encode: Final = json.JSONEncoder(separators=(",", ":")).encode
_PATH_CHARACTERS: Final = "/%:@!$&'()*+,;=~"


class UpstreamClient:
    """Exchanges with one upstream, by its base URL (https or http)."""

    def __init__(
        self,
        base: str,
        headers: Mapping[str, str],
        *,
        connect_seconds: float,
        silence_seconds: float,
    ) -> None:
        self._host, self._port, self._is_secure, self._path, authority = _address_of(base)
        self._head = _head_of({"Host": authority, **headers})
        self._connect_seconds, self._silence_seconds = connect_seconds, silence_seconds
        self._tls: ssl.SSLContext | None = None
        self._connections: set[UpstreamConnection] = set()
        self._free: list[UpstreamConnection] = []

    async def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        on_events: OnEvents | None = None,
        silence_seconds: float | None = None,
    ) -> Reply:
        """One exchange; body is sent as JSON. OSError where there is no answer, or a broken one.

        With on_events, those of an answer with status 200 are handed to it as they arrive, and the
        reply is there when the stream says that it is whole.
        """
        silence = self._silence_seconds if silence_seconds is None else silence_seconds
        request = f"{method} {self._path}{path} HTTP/1.1\r\n{self._head}"
        if body is None:
            data = b""
        else:
            data = _encode(body).encode()
            request += f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n"
        whole = request.encode() + b"\r\n" + data
        if self._free:
            try:
                return await self._free.pop().ask(whole, on_events, silence)
            except ConnectionError:  # closed while nobody looked, perhaps
                if method != "GET":
                    raise
        return await (await self._connect()).ask(whole, on_events, silence)

    async def close(self) -> None:
        """Ends all connections, and with them the exchanges that go on."""
        for connection in tuple(self._connections):
            connection.close()

    async def _connect(self) -> UpstreamConnection:
        if self._is_secure and self._tls is None:
            self._tls = ssl.create_default_context()
        loop = asyncio.get_running_loop()
        until = loop.time() + self._connect_seconds
        async with asyncio.timeout_at(until):
            found = await loop.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
        for number, (family, _, protocol, _, address) in enumerate(found):
            share = (until - loop.time()) / (len(found) - number)  # one may be a black hole
            try:
                async with asyncio.timeout(share):
                    return await self._connect_to(family, protocol, address)
            except OSError:
                if number == len(found) - 1:
                    raise
        raise ConnectionError(f"{self._host} has no address")

    async def _connect_to(self, family: int, protocol: int, address: Any) -> UpstreamConnection:
        loop = asyncio.get_running_loop()
        sock = socket.socket(family, socket.SOCK_STREAM, protocol)
        try:
            sock.setblocking(False)
            await loop.sock_connect(sock, address)
            _, connection = await loop.create_connection(
                lambda: UpstreamConnection(
                    idle_seconds=_IDLE_SECONDS, on_free=self._free.append, on_lost=self._forget
                ),
                sock=sock,
                ssl=self._tls,
                server_hostname=self._host if self._is_secure else None,
            )
        except BaseException:
            sock.close()
            raise
        self._connections.add(connection)
        return connection

    def _forget(self, connection: UpstreamConnection) -> None:
        self._connections.discard(connection)
        if connection in self._free:
            self._free.remove(connection)


def _address_of(base: str) -> tuple[str, int, bool, str, str]:
    """Host, port, whether it speaks TLS, path, and what the Host header says."""
    error = ConfigError(f"upstream={base}: expected http(s)://HOST[:PORT]/PATH")
    try:
        parts = urlsplit(base)
        host, port = parts.hostname or "", parts.port
        name = host.encode("idna").decode()
    except ValueError:  # a port that is none, a name that cannot be one
        raise error from None
    more = parts.username or parts.password or parts.query or parts.fragment
    if parts.scheme not in ("http", "https") or not name or more:
        raise error
    is_secure = parts.scheme == "https"
    authority = f"[{name}]" if ":" in name else name
    authority += "" if port is None else f":{port}"
    path = quote(parts.path.rstrip("/"), _PATH_CHARACTERS)
    return name, port or (443 if is_secure else 80), is_secure, path, authority


def _head_of(headers: Mapping[str, str]) -> str:
    fixed = {
        "Accept": "application/json, text/event-stream",
        "Accept-Encoding": "identity",
        "User-Agent": "rorqual",
    }
    for name, value in headers.items():
        if not (value.isascii() and value.isprintable()):
            raise ConfigError(f"{name} for an upstream: expected printable ASCII; check its key")
    return "".join(f"{name}: {value}\r\n" for name, value in ({**headers, **fixed}).items())
