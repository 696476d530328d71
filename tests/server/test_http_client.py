"""The client of upstreams, against a socket that says exactly what a test wants."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from rorqual.errors import ConfigError
from rorqual.server import certificate as certificate_for
from rorqual.server.backends import http_client, http_connection
from rorqual.server.backends.http_client import UpstreamClient
from rorqual.server.backends.http_connection import Reply

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


def test_what_comes_in_one_packet_is_handed_on_at_once() -> None:
    """So that the last tokens and their end can share one commit."""
    three = b"".join(b'data: {"a": %d}\n\n' % number for number in range(3))
    body = b"%x\r\n%s\r\n" % (len(three), three)
    found: list[tuple[list[bytes], bool]] = []

    async def do(client: UpstreamClient) -> None:
        await client.ask(
            "GET", "/x", on_events=lambda events, is_done: found.append((events, is_done))
        )

    talk(Upstream(CHUNKED + body + END), do)
    assert found == [([b'{"a": 0}', b'{"a": 1}', b'{"a": 2}'], True)]


def test_the_answer_is_there_when_the_stream_says_so_and_its_end_may_be_late() -> None:
    upstream = Upstream(CHUNKED + TWO + END[:-5], b"", b"", END[-5:])

    async def do(client: UpstreamClient) -> None:
        assert await events(client) == [b'{"a": 1}']
        assert await events(client) == [b'{"a": 1}']  # the first connection is not free yet
        await asyncio.sleep(0.1)
        assert await events(client) == [b'{"a": 1}']

    talk(upstream, do)
    assert (upstream.num_connections, upstream.num_requests) == (2, 3)


def test_an_end_that_never_comes_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_connection, "_END_SECONDS", 0.05)
    upstream = Upstream(CHUNKED + TWO + END[:-5])

    async def do(client: UpstreamClient) -> None:
        await events(client)
        await asyncio.sleep(0.2)
        assert upstream.num_left == 1

    talk(upstream, do)


def test_interim_answers_are_passed_over() -> None:
    hints = b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n"

    async def do(client: UpstreamClient) -> None:
        for _ in range(2):
            assert await events(client) == [b'{"a": 1}']

    upstream = Upstream(hints + CHUNKED + TWO + END)
    talk(upstream, do)
    assert upstream.num_connections == 1


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (CHUNKED + TWO + END + b"HTTP/1.1 200 OK\r\n", "nobody asked"),
        (HEAD + b"content-encoding: gzip\r\n\r\n", "not asked for"),
        (HEAD + b"".join(b"x-%d: %s\r\n" % (i, b"y" * 4000) for i in range(40)), "without an end"),
        (HEAD + b"x: " + b"y" * 100_000, "without an end"),
        (b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n" * 2000, "without an end"),
        (HEAD + b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", "HTTP"),
        (b"HTTP/1.1 101 Switching\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n", "HTTP"),
    ],
)
def test_answers_that_cannot_be_trusted_are_errors(answer: bytes, reason: str) -> None:
    async def do(client: UpstreamClient) -> None:
        with pytest.raises(ConnectionError, match=reason):
            await client.ask("GET", "/x")

    talk(Upstream(answer), do)


def test_words_between_two_requests_end_a_connection() -> None:
    """They would be taken for the next request's answer."""
    upstream = Upstream(CHUNKED + TWO + END, HEAD + b"content-length: 0\r\n\r\n")

    async def do(client: UpstreamClient) -> None:
        for _ in range(2):
            assert await events(client) == [b'{"a": 1}']
            await asyncio.sleep(0.05)

    talk(upstream, do)
    assert (upstream.num_connections, upstream.num_requests) == (2, 2)


def test_who_cannot_read_the_events_is_told_and_hangs_up() -> None:
    upstream = Upstream(CHUNKED + TWO, TWO, TWO)

    def refuse(_: list[bytes], __: bool) -> None:
        raise KeyError("choices")

    async def do(client: UpstreamClient) -> None:
        with pytest.raises(KeyError):
            await client.ask("GET", "/x", on_events=refuse)
        await asyncio.sleep(0.05)
        assert upstream.num_left == 1

    talk(upstream, do)


def test_an_answer_that_is_no_stream_is_read_whole() -> None:
    upstream = Upstream(b"HTTP/1.1 404 No\r\ncontent-length: 9\r\n\r\nno wh", b"ale\xff")

    async def do(client: UpstreamClient) -> None:
        for _ in range(2):
            answer = await client.ask("POST", "/x", {"a": "\u9cb8"}, on_events=lambda *_: None)
            assert (answer.status, answer.text, answer.is_done) == (404, "no whale\ufffd", False)

    talk(upstream, do)
    assert upstream.num_connections == 1


def test_idle_connections_end_by_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_client, "_IDLE_SECONDS", 0.05)
    upstream = Upstream(CHUNKED + TWO + END)

    async def do(client: UpstreamClient) -> None:
        await asyncio.gather(*(events(client) for _ in range(3)))
        await asyncio.sleep(0.2)
        assert upstream.num_left == 3
        await events(client)

    talk(upstream, do)
    assert upstream.num_connections == 4


@pytest.mark.parametrize(
    "base",
    ["ftp://x/v1", "http://", "http:///v1", "http://x:port/v1", "http://u:p@x/v1", "http://x/v1?a=b",
     "http://" + "x" * 70 + "/v1", "no address"],
)  # fmt: skip
def test_bases_that_are_none_are_refused_by_name(base: str) -> None:
    with pytest.raises(ConfigError, match="expected http"):
        UpstreamClient(base, {}, connect_seconds=1, silence_seconds=1)


def test_a_key_cannot_bring_headers_of_its_own() -> None:
    with pytest.raises(ConfigError, match="Authorization"):
        UpstreamClient(
            "http://x/v1",
            {"Authorization": "Bearer a\r\nx: y"},
            connect_seconds=1,
            silence_seconds=1,
        )


def test_what_a_request_looks_like() -> None:
    seen: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        seen.append(head + await reader.readexactly(7))
        writer.write(b"HTTP/1.1 204 No\r\n\r\n")
        writer.close()

    async def run() -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        base = f"http://127.0.0.1:{port}/a b/"
        headers = {"Authorization": "Bearer k"}
        client = UpstreamClient(base, headers, connect_seconds=5, silence_seconds=5)
        assert (await client.ask("POST", "/x", {"a": 1})).status == 204
        await client.close()
        server.close()

    asyncio.run(run())
    line, *headers = seen[0].partition(b"\r\n\r\n")[0].split(b"\r\n")
    assert line == b"POST /a%20b/x HTTP/1.1"
    names = sorted(header.partition(b":")[0].lower() for header in headers)
    assert names == sorted(
        [b"host", b"authorization", b"accept", b"accept-encoding", b"user-agent", b"content-type",
         b"content-length"]
    )  # fmt: skip
    assert seen[0].endswith(b'{"a":1}')


def test_https_checks_whom_it_talks_to(tmp_path: Path) -> None:
    """A certificate of our own making is refused unless it is trusted, and trusted by its name."""
    certificate, key, _ = certificate_for(tmp_path, "192.168.1.23")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    upstream = Upstream(CHUNKED + TWO + END)

    async def run() -> None:
        server = await asyncio.start_server(upstream.serve, "127.0.0.1", 0, ssl=context)
        port = server.sockets[0].getsockname()[1]
        for name, trusted, refused in (
            ("localhost", False, True),
            ("localhost", True, False),
            ("127.0.0.1", True, True),
        ):
            client = UpstreamClient(
                f"https://{name}:{port}", {}, connect_seconds=5, silence_seconds=5
            )
            with pytest.MonkeyPatch.context() as patch:
                if trusted:
                    patch.setenv("SSL_CERT_FILE", str(certificate))
                if refused:
                    with pytest.raises(ssl.SSLCertVerificationError):
                        await events(client)
                else:
                    assert await events(client) == [b'{"a": 1}']
            await client.close()
            await asyncio.sleep(0.05)
        server.close()

    asyncio.run(run())


@pytest.mark.parametrize(
    ("second", "expected"),
    [
        (CHUNKED + TWO + END, 200),
        (b"HTTP/1.1 400 No\r\ncontent-length: 2\r\n\r\nno", 400),
        (CHUNKED + TWO, TimeoutError),
        (None, ConnectionError),
    ],
)
@pytest.mark.parametrize("is_cancelled", [False, True])
def test_the_next_request_may_follow_within_the_packet_that_ends_the_last(
    second: bytes | None, expected: int | type, is_cancelled: bool
) -> None:
    """As when a place becomes free and the next in the queue is submitted at once."""
    connections = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(CHUNKED + TWO + END)
            await reader.readuntil(b"\r\n\r\n")
            if second is not None:
                writer.write(second)
                await reader.readuntil(b"\r\n\r\n")
        writer.close()

    async def run() -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        client = UpstreamClient(url, {}, connect_seconds=5, silence_seconds=0.3)
        later: list[asyncio.Task[Reply]] = []

        def follow(_: list[bytes], is_done: bool) -> None:
            if is_done:
                asked = client.ask("POST", "/x", on_events=lambda *_: None)
                later.append(asyncio.create_task(asked))
                if is_cancelled:
                    asyncio.get_running_loop().call_soon(first.cancel)

        first = asyncio.create_task(client.ask("POST", "/x", on_events=follow))
        if is_cancelled:
            with contextlib.suppress(asyncio.CancelledError):
                await first
        else:
            assert (await first).is_done
        answer = asyncio.wait_for(later[0], 5)
        if isinstance(expected, int):
            assert (await answer).status == expected
        else:
            with pytest.raises(expected):
                await answer
        assert connections == 1
        await client.close()
        await asyncio.sleep(0.05)
        server.close()

    asyncio.run(run())


def test_a_free_connection_that_is_hung_up_is_forgotten() -> None:
    """After an answer without a body, too, whose end no header tells."""
    upstream = Upstream(b"HTTP/1.1 204 No\r\n\r\n", closes=True)

    async def do(client: UpstreamClient) -> None:
        for _ in range(3):
            assert (await client.ask("POST", "/x")).status == 204
            await asyncio.sleep(0.05)

    talk(upstream, do)
    assert upstream.num_connections == 3


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_look_is_repeated_where_the_connection_was_closed_meanwhile(method: str) -> None:
    """What may cost money is not: whoever asked decides."""

    class Closing(Upstream):
        async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self.num_connections += 1
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
                await reader.readuntil(b"\r\n\r\n")
                writer.write(CHUNKED + END)
                await reader.readuntil(b"\r\n\r\n")
            writer.close()

    upstream = Closing()

    async def do(client: UpstreamClient) -> None:
        assert (await client.ask(method, "/x")).status == 200
        if method == "GET":
            assert (await client.ask(method, "/x")).status == 200
        else:
            with pytest.raises(ConnectionError):
                await client.ask(method, "/x")

    talk(upstream, do)
    assert upstream.num_connections == (2 if method == "GET" else 1)


def test_one_address_that_does_not_answer_does_not_hide_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    upstream = Upstream(CHUNKED + TWO + END)

    async def do(client: UpstreamClient) -> None:
        loop = asyncio.get_running_loop()
        connect, lookup = loop.sock_connect, loop.getaddrinfo

        async def two(*given: Any, **more: Any) -> Any:
            return [*await lookup("127.0.0.2", 1, **more), *await lookup(*given, **more)]

        async def black_hole(sock: socket.socket, address: Any) -> None:
            if address[0] == "127.0.0.2":
                await asyncio.sleep(60)
            await connect(sock, address)

        monkeypatch.setattr(loop, "getaddrinfo", two)
        monkeypatch.setattr(loop, "sock_connect", black_hole)
        monkeypatch.setattr(client, "_connect_seconds", 0.4)
        assert await events(client) == [b'{"a": 1}']

    talk(upstream, do)


def test_many_small_pieces_without_a_line_are_read_in_linear_time() -> None:
    """Two hundred thousand pieces; a quadratic reader would take minutes."""
    pieces = b"".join(b"10\r\n%s\r\n" % (b"x" * 16) for _ in range(200_000))
    upstream = Upstream(CHUNKED + pieces + b"0\r\n\r\n")

    async def do(client: UpstreamClient) -> None:
        answer = await asyncio.wait_for(client.ask("GET", "/x", on_events=lambda *_: None), 20)
        assert answer.status == 200

    talk(upstream, do)
