"""Clients that remember what they got: bare sockets, so that a crowd of them costs little.

A token counts as delivered once its whole line has arrived. Somebody who leaves closes their side
only and reads on: what the server had sent by then was delivered too.
"""

import asyncio
import contextlib
import json
import random
import socket
from dataclasses import dataclass, field
from typing import Any

TEXTS = ("The whale", "The whale swims in the wide ocean and sings. What is 6 times 7?", "def add")


@dataclass
class Delivered:
    """One answer as its client saw it."""

    tokens: int = 0
    ended: bool = False


@dataclass
class World:
    """What the clients saw, by the id under which the books know it."""

    answers: dict[str, Delivered] = field(default_factory=dict)
    statuses: dict[int, int] = field(default_factory=dict)
    num_lost: int = 0  # connections that broke off or were not taken


@dataclass
class Client:
    """Asks again and again. `whole`: answers in one piece, else streams."""

    port: int
    key: str
    whole: bool
    world: World
    rng: random.Random

    async def run(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            try:
                status = await asyncio.wait_for(self._ask(), 120)
            except OSError:
                self.world.num_lost += 1
                status = 0
            self.world.statuses[status] = self.world.statuses.get(status, 0) + 1
            if status != 200:
                await asyncio.sleep(0.05 + 0.2 * self.rng.random())

    async def _ask(self) -> int:
        loop = asyncio.get_running_loop()
        with socket.socket() as connection:
            connection.setblocking(False)
            await loop.sock_connect(connection, ("127.0.0.1", self.port))
            await loop.sock_sendall(connection, self._request())
            lines = Lines(connection)
            head = await _head(lines)
            if head is None:
                self.world.num_lost += 1
                return 0
            status, own_id = head
            if status == 200 and self.whole:
                await self._take_whole(lines, own_id)
            elif status == 200:
                await self._take_stream(lines, own_id)
            return status

    def _request(self) -> bytes:
        rng = self.rng
        body: dict[str, Any] = {
            "prompt": rng.choice(TEXTS) + " " * rng.randrange(4),
            "max_tokens": rng.randrange(1, 48),
            "logprobs": 0,
            "stream": not self.whole,
            "ignore_eos": rng.random() < 0.7,
        }
        data = json.dumps(body).encode()
        late = f"X-Rorqual-Deadline: {0.02 + rng.random():.3f}\r\n" if rng.random() < 0.1 else ""
        return (
            f"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
            f"Authorization: Bearer {self.key}\r\nContent-Length: {len(data)}\r\n{late}"
            "Content-Type: application/json\r\n\r\n"
        ).encode() + data

    async def _take_stream(self, lines: "Lines", own_id: str) -> None:
        answer = self.world.answers.setdefault(own_id, Delivered())
        leaves_after = self.rng.randrange(1, 40) if self.rng.random() < 0.15 else None
        while (line := await lines.next()) is not None:
            if line == b"data: [DONE]":
                answer.ended = True
            elif line.startswith(b"data: "):
                for choice in json.loads(line[6:]).get("choices", ()):
                    answer.tokens += len((choice["logprobs"] or {}).get("tokens", ()))
            if leaves_after is not None and answer.tokens >= leaves_after:
                leaves_after = None
                lines.close_our_side()

    async def _take_whole(self, lines: "Lines", own_id: str) -> None:
        answer = self.world.answers.setdefault(own_id, Delivered())
        while (line := await lines.next()) is not None:
            if line.startswith(b"{"):
                answer.ended = True
                for choice in json.loads(line)["choices"]:
                    answer.tokens += len((choice["logprobs"] or {}).get("tokens", ()))


class Lines:
    """Whole lines of a connection, up to its end or its reset. (asyncio's own reader throws away
    what it has read when a reset follows.)"""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._rest = b""
        self._ready: list[bytes] = []
        self._ended = False

    async def next(self) -> bytes | None:
        """The next line without its end; None where there is none any more."""
        while not self._ready and not self._ended:
            try:
                data = await asyncio.get_running_loop().sock_recv(self._connection, 1 << 16)
            except OSError:
                data = b""
            self._ended = not data
            *whole, self._rest = (self._rest + data).split(b"\n")
            self._ready = [line.removesuffix(b"\r") for line in whole[::-1]]
            if self._ended and self._rest.endswith(b"}"):  # a whole answer has no last line end
                self._ready.append(self._rest)
        return self._ready.pop() if self._ready else None

    def close_our_side(self) -> None:
        """Leaves, but hears what was on its way."""
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_WR)


async def _head(lines: Lines) -> tuple[int, str] | None:
    """(status, the id in the books) of an answer; None if none came."""
    status, own_id = 0, ""
    while (line := await lines.next()) is not None:
        text = line.decode("latin-1").lower()
        if not text:
            return status, own_id
        if text.startswith("http/"):
            status = int(text.split(" ", 2)[1])
        elif text.startswith("x-request-id: "):
            own_id = f"cmpl-{text.split(': ', 1)[1].removeprefix('req-')}"
    return None
