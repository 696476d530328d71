"""The client of upstreams, against a socket that says exactly what a test wants."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from rorqual.server.backends.http_client import UpstreamClient

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
CHUNKED = HEAD + b"transfer-encoding: chunked\r\n\r\n"
TWO = b'12\r\ndata: {"a": 1}\r\n\r\n\r\n'  # one event, in one chunk
END = b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"


class Upstream:
    """Answers each request with the same pieces, and counts."""

    def __init__(self, *pieces: bytes, closes: bool = False) -> None:
        self.pieces, self.closes = pieces, closes
        self.num_connections = self.num_requests = self.num_left = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.num_connections += 1
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                self.num_requests += 1
                for piece in self.pieces:
                    writer.write(piece)
                    await asyncio.sleep(0.01)
                if self.closes:
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            self.num_left += 1
        finally:
            writer.close()


def talk(upstream: Upstream, do: Callable[[UpstreamClient], Awaitable[None]]) -> None:
    async def run() -> None:
        server = await asyncio.start_server(upstream.serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        url = f"http://127.0.0.1:{port}/v1"
        client = UpstreamClient(url, {}, connect_seconds=5, silence_seconds=0.5)
        try:
            await do(client)
        finally:
            await client.close()
            await asyncio.sleep(0.05)
            server.close()

    asyncio.run(run())


async def events(client: UpstreamClient, found: list[bytes] | None = None) -> list[bytes]:
    found = [] if found is None else found
    answer = await client.ask("GET", "/x", on_events=lambda events, _: found.extend(events))
    assert answer.status == 200
    return found


def test_a_connection_is_used_again_however_the_answer_is_cut() -> None:
    whole = CHUNKED + TWO + END
    pieces = [whole[i : i + 5] for i in range(0, len(whole), 5)]
    upstream = Upstream(*pieces)

    async def do(client: UpstreamClient) -> None:
        for _ in range(3):
            assert await events(client) == [b'{"a": 1}']
            await asyncio.sleep(0.05)

    talk(upstream, do)
    assert (upstream.num_connections, upstream.num_requests) == (1, 3)


def test_an_answer_may_end_with_its_connection() -> None:
    upstream = Upstream(HEAD + b"\r\n", b'data: {"a": 1}\n\n', closes=True)

    async def do(client: UpstreamClient) -> None:
        assert await events(client) == [b'{"a": 1}']
        assert await events(client) == [b'{"a": 1}']

    talk(upstream, do)
    assert upstream.num_connections == 2


@pytest.mark.parametrize(
    ("pieces", "error"),
    [
        ((CHUNKED, TWO), TimeoutError),
        ((b"SSH-2.0-whale\r\n",), ConnectionError),
        ((), TimeoutError),
    ],
)
def test_silence_and_nonsense_are_errors(pieces: tuple[bytes, ...], error: type) -> None:
    async def do(client: UpstreamClient) -> None:
        with pytest.raises(error):
            await events(client)

    talk(Upstream(*pieces), do)


def test_an_answer_that_breaks_off_is_an_error_after_what_came() -> None:
    async def do(client: UpstreamClient) -> None:
        found: list[bytes] = []
        with pytest.raises(ConnectionError):
            await events(client, found)
        assert found == [b'{"a": 1}']

    talk(Upstream(CHUNKED, TWO, closes=True), do)


def test_who_is_cancelled_hangs_up_at_once() -> None:
    upstream = Upstream(CHUNKED, *[TWO] * 1000)

    async def do(client: UpstreamClient) -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(events(client), 0.2)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(events(client), 0.2)
        assert upstream.num_connections == 2  # the first was of no use any more

    talk(upstream, do)
