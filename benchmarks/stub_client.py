"""A client that asks for streams at a fixed rate and notes when each token of the stub came.

Open loop: requests are sent at their moments, whether or not earlier ones were answered, so a slow
server is not asked less. Connections are kept and used again.
"""

import asyncio
import json
import re
from dataclasses import dataclass, field

_TOKEN = re.compile(rb"tok(\d+) ")
_IDLE_SECONDS = 2.0  # servers close idle connections, some after five seconds
_STATUS = re.compile(rb"HTTP/1\.1 (\d+)")


class AnswerBroken(Exception):
    """An answer that is not the stub's, whole and in order."""


@dataclass
class Answer:
    """One stream: seconds from the request to each token and to the end."""

    token_seconds: list[float] = field(default_factory=list)
    seconds: float = 0.0


class ClientProtocol(asyncio.Protocol):
    """One connection, one request at a time."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._buffer = b""
        self._searched = 0
        self._answer = Answer()
        self._sent_seconds = 0.0
        self._done: asyncio.Future[Answer] | None = None
        self.is_open = False
        self.idle_since = 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._transport = transport
        self.is_open = True

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_open = False
        if self._done is not None and not self._done.done():
            self._done.set_exception(AnswerBroken(f"connection lost: {self._buffer[-300:]!r}"))

    def ask(self, request: bytes) -> "asyncio.Future[Answer]":
        """Sends a request; the future is its answer."""
        self._buffer, self._searched, self._answer = b"", 0, Answer()
        self._done = self._loop.create_future()
        self._sent_seconds = self._loop.time()
        self._transport.write(request)
        return self._done

    def data_received(self, data: bytes) -> None:
        now = self._loop.time() - self._sent_seconds
        self._buffer += data
        for found in _TOKEN.finditer(self._buffer, self._searched):
            if int(found[1]) != len(self._answer.token_seconds):
                self._fail("a token is missing")
                return
            self._answer.token_seconds.append(now)
            self._searched = found.end()
        if self._buffer.endswith(b"0\r\n\r\n"):
            self._end(now)

    def _end(self, now: float) -> None:
        status = _STATUS.match(self._buffer)
        if status is None or status[1] != b"200" or b"data: [DONE]" not in self._buffer:
            self._fail("no whole stream")
            return
        self._answer.seconds = now
        assert self._done is not None
        self._done.set_result(self._answer)

    def _fail(self, why: str) -> None:
        assert self._done is not None
        if not self._done.done():
            self._done.set_exception(AnswerBroken(f"{why}: {self._buffer[-300:]!r}"))
        self._transport.abort()

    def close(self) -> None:
        """Ends the connection."""
        self._transport.close()


class Client:
    """Asks one server."""

    def __init__(self, port: int, path: str, model: str, key: str) -> None:
        self._port, self._path, self._model, self._key = port, path, model, key
        self._idle: list[ClientProtocol] = []

    def _request(self, num_tokens: int) -> bytes:
        body = {
            "model": self._model,
            "messages": [{"role": "user", "content": "How many whales are there in the sea?"}],
            "max_tokens": num_tokens,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        data = json.dumps(body).encode()
        head = (
            f"POST {self._path} HTTP/1.1\r\nHost: 127.0.0.1:{self._port}\r\n"
            f"Authorization: Bearer {self._key}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(data)}\r\n\r\n"
        )
        return head.encode() + data

    async def ask(self, num_tokens: int) -> Answer:
        """One stream, checked to hold every token."""
        loop = asyncio.get_running_loop()
        connection = None
        while self._idle and connection is None:
            connection = self._idle.pop()
            if not connection.is_open or loop.time() - connection.idle_since > _IDLE_SECONDS:
                connection.close()
                connection = None
        if connection is None:
            _, connection = await loop.create_connection(ClientProtocol, "127.0.0.1", self._port)
        answer = await asyncio.wait_for(connection.ask(self._request(num_tokens)), 60)
        if len(answer.token_seconds) != num_tokens:
            raise AnswerBroken(f"{len(answer.token_seconds)} tokens; expected {num_tokens}")
        connection.idle_since = loop.time()
        self._idle.append(connection)
        return answer

    async def load(self, num_tokens: int, per_second: float, num_requests: int) -> list[Answer]:
        """So many requests at a steady rate."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        asked: list[asyncio.Task[Answer]] = []
        for number in range(num_requests):
            await asyncio.sleep(began + number / per_second - loop.time())
            asked.append(asyncio.create_task(self.ask(num_tokens)))
        return await asyncio.gather(*asked)

    def close(self) -> None:
        """Ends its connections."""
        for connection in self._idle:
            connection.close()
        self._idle = []
