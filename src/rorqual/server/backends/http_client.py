"""A small HTTP/1.1 client for streams of events from one upstream.

A gateway reads an event for every token it passes on, so what reads them decides what a token
costs. Here bytes go from the socket through one C parser into lines; there is no task, lock or
timer per event. Connections are kept and used again, but never for long: servers close idle ones
(uvicorn after five seconds), and a request must not meet that moment.

Proxies of the environment, redirects and compressed answers are not supported.
"""

import asyncio
import contextlib
import json
import ssl
from collections import deque
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final
from urllib.parse import urlsplit

import httptools

from rorqual.errors import ConfigError

_IDLE_SECONDS: Final = 4.0
_MAX_IDLE: Final = 64
_DRAIN_SECONDS: Final = 1.0  # for the few bytes that end an answer, so that its connection is kept
_PAUSE_BYTES: Final = 1 << 20  # of unread answer; then the upstream has to wait
_MAX_LINE_BYTES: Final = 16 << 20
_PREFIX: Final = b"data:"
_DONE: Final = b"[DONE]"


class _Connection(asyncio.Protocol):
    """One connection, one exchange at a time."""

    def __init__(self, client: "UpstreamClient") -> None:
        self._client = client
        self._loop = asyncio.get_running_loop()
        self._waiter: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._error: Exception | None = None
        self._is_paused = False
        self.is_closed = False
        self.idle_since = 0.0
        self._begin()

    def _begin(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._chunks: deque[bytes] = deque()
        self._num_bytes = 0
        self.heard_seconds = self._loop.time()
        self._has_length = self._keeps_alive = False
        self.has_head = False
        self.is_complete = False
        self.is_abandoned = False

    # What the event loop says

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport

    def data_received(self, data: bytes) -> None:
        if self.is_complete:  # nothing was asked: whatever this is, it is no answer
            self.close()
            return
        self.heard_seconds = self._loop.time()
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(ConnectionError(f"the upstream does not speak HTTP: {error}"))
        if self._num_bytes > _PAUSE_BYTES and not self._is_paused:
            self._is_paused = True
            self._transport.pause_reading()
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_closed = True
        self._client.drop(self)
        if exc is None and self.has_head and not self._has_length:
            self.is_complete = True  # such an answer ends with its connection
        if not self.is_complete and self._error is None:
            self._error = ConnectionError("the upstream closed the connection")
        self._wake()

    # What the parser says

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() in (b"content-length", b"transfer-encoding"):
            self._has_length = True

    def on_headers_complete(self) -> None:
        self.has_head = self.status >= 200  # what comes before is no answer yet

    def on_body(self, data: bytes) -> None:
        self._chunks.append(data)
        self._num_bytes += len(data)

    def on_message_complete(self) -> None:
        self.is_complete = self.has_head
        self._keeps_alive = self._parser.should_keep_alive()  # later it does not know any more
        if self.is_abandoned:
            self.release()

    # What the client does

    @property
    def status(self) -> int:
        """Of the answer whose head has come."""
        return self._parser.get_status_code()

    def send(self, request: bytes) -> None:
        """Begin an exchange."""
        self._begin()
        self._transport.write(request)

    async def wait(self, silence_seconds: float) -> None:
        """Until something came; TimeoutError after so much silence."""
        if self._error is not None:
            raise self._error
        self._waiter = self._loop.create_future()
        if self._timer is None:
            self._timer = self._loop.call_later(silence_seconds, self._look, silence_seconds)
        try:
            await self._waiter
        finally:
            self._waiter = None
        if self._error is not None and not self._chunks:
            raise self._error

    def take(self) -> bytes:
        """What has come of the body."""
        found = b"".join(self._chunks)
        self._chunks.clear()
        self._num_bytes = 0
        if self._is_paused and not self.is_closed:
            self._is_paused = False
            self._transport.resume_reading()
        return found

    def release(self) -> None:
        """The exchange is over: keep the connection, or close it."""
        self._clear_timer()
        if self.is_complete and self._keeps_alive and not self.is_closed:
            self._client.keep(self)
        else:
            self.close()

    def abandon(self) -> None:
        """Nobody reads on: keep the connection if the answer ends within a moment."""
        self._clear_timer()
        self.is_abandoned = True
        self.take()
        self._timer = self._loop.call_later(_DRAIN_SECONDS, self.close)

    def close(self) -> None:
        """Ends the connection at once."""
        self._clear_timer()
        self._transport.abort()

    def _look(self, silence_seconds: float) -> None:
        """One timer a request, moved on as long as something comes."""
        left = self.heard_seconds + silence_seconds - self._loop.time()
        if left <= 0:
            self._timer = None
            self._fail(TimeoutError(f"the upstream said nothing for {silence_seconds:g} s"))
            return
        self._timer = self._loop.call_later(left, self._look, silence_seconds)

    def _fail(self, error: Exception) -> None:
        self._error = error
        self._transport.abort()
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _clear_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class Reply:
    """An answer whose status is known. OSError (ConnectionError, TimeoutError) if it breaks off."""

    def __init__(self, connection: _Connection, silence_seconds: float) -> None:
        self._connection = connection
        self._silence_seconds = silence_seconds
        self.status = connection.status
        self.is_done = False

    async def text(self) -> str:
        """The whole body."""
        parts: list[bytes] = []
        while True:
            parts.append(self._connection.take())
            if self._connection.is_complete:
                return b"".join(parts).decode("utf-8", "replace")
            await self._connection.wait(self._silence_seconds)

    async def events(self) -> AsyncIterator[bytes]:
        """The data of each server-sent event, one line each, as OpenAI's streams are.

        `is_done` tells afterwards whether the stream said that it was whole.
        """
        rest = b""
        while True:
            is_last = self._connection.is_complete
            *lines, rest = (rest + self._connection.take()).split(b"\n")
            for line in [*lines, rest] if is_last else lines:
                if line.startswith(_PREFIX):
                    data = line[len(_PREFIX) :].strip()
                    if data == _DONE:
                        self.is_done = True
                        return
                    yield data
            if is_last:
                return
            if len(rest) > _MAX_LINE_BYTES:
                raise ConnectionError("the upstream sent a line without an end")
            await self._connection.wait(self._silence_seconds)


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
        parts = urlsplit(base)
        if parts.scheme not in ("http", "https") or parts.hostname is None:
            raise ConfigError(f"upstream={base}: expected http(s)://HOST[:PORT]/PATH")
        self._host, self._path = parts.hostname, parts.path.rstrip("/")
        self._ssl = ssl.create_default_context() if parts.scheme == "https" else None
        self._port = parts.port or (443 if self._ssl else 80)
        self._connect_seconds, self._silence_seconds = connect_seconds, silence_seconds
        named = {"Host": parts.netloc.rpartition("@")[2], "Accept-Encoding": "identity", **headers}
        self._headers = "".join(f"{name}: {value}\r\n" for name, value in named.items())
        self._idle: list[_Connection] = []

    @contextlib.asynccontextmanager
    async def ask(
        self, method: str, path: str, body: Any = None, *, silence_seconds: float | None = None
    ) -> AsyncIterator[Reply]:
        """One exchange; the answer is read inside the block. OSError where there is none."""
        silence = self._silence_seconds if silence_seconds is None else silence_seconds
        data = b"" if body is None else json.dumps(body).encode()
        kind = "" if body is None else "Content-Type: application/json\r\n"
        head = (
            f"{method} {self._path}{path} HTTP/1.1\r\n{self._headers}{kind}"
            f"Content-Length: {len(data)}\r\n\r\n"
        )
        connection = await self._send(head.encode("latin-1") + data, silence)
        try:
            yield Reply(connection, silence)
        except BaseException:
            connection.close()  # the upstream need not go on
            raise
        if connection.is_complete:
            connection.release()
        else:
            connection.abandon()

    async def _send(self, request: bytes, silence_seconds: float) -> _Connection:
        """A connection on which the head of the answer has come."""
        while True:
            connection, is_fresh = await self._connection()
            try:
                connection.send(request)
                while not connection.has_head:
                    await connection.wait(silence_seconds)
                return connection
            except ConnectionError:
                connection.close()
                if is_fresh:  # an idle one may have been closed while we wrote
                    raise
            except BaseException:
                connection.close()
                raise

    async def _connection(self) -> tuple[_Connection, bool]:
        loop = asyncio.get_running_loop()
        while self._idle:
            found = self._idle.pop()
            if loop.time() - found.idle_since < _IDLE_SECONDS:
                return found, False
            found.close()
        opening = loop.create_connection(
            lambda: _Connection(self), self._host, self._port, ssl=self._ssl
        )
        _, made = await asyncio.wait_for(opening, self._connect_seconds)
        return made, True

    def keep(self, connection: _Connection) -> None:
        """Takes back a connection whose answer was read to its end."""
        connection.idle_since = asyncio.get_running_loop().time()
        self._idle.append(connection)
        if len(self._idle) > _MAX_IDLE:
            self._idle.pop(0).close()

    def drop(self, connection: _Connection) -> None:
        """Forgets a connection that was closed."""
        if connection in self._idle:
            self._idle.remove(connection)

    def close(self) -> None:
        """Ends the idle connections; the others end with their exchanges."""
        for connection in list(self._idle):
            connection.close()
        self._idle.clear()
