"""What strangers may do to the listener: floods, slow senders, foreign pages, odd requests."""

import asyncio
import contextlib
import itertools
import socket
import time
from collections.abc import AsyncIterator

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Router

from rorqual.config.server import ServerConfig
from rorqual.errors import ConfigError
from rorqual.server import serving
from rorqual.server.endpoints import Endpoint, EndpointRouter
from rorqual.server.serving import check_bind
from tests.server.conftest import MODEL, Running, ServerFactory

ASK = {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4}


@pytest.fixture(scope="module")
def server(start_server: ServerFactory) -> Running:
    return start_server(
        http={"max_body_bytes": 4096, "max_header_bytes": 2048, "header_seconds": 0.5,
              "body_seconds": 0.5, "max_connections_per_address": 8},
    )  # fmt: skip


def test_a_server_that_is_told_to_end_does_not_wait_for_its_next_look(
    start_server: ServerFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "_TICK_SECONDS", 600.0)
    one = start_server()
    with one.http as http:
        assert http.get("/health").headers["date"]
    one.stop()


def connect(server: Running) -> socket.socket:
    host, port = server.url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=5)


def is_cut_off(connection: socket.socket) -> bool:
    connection.settimeout(20)
    try:
        return connection.recv(1000) == b""
    except ConnectionError:
        return True
    except TimeoutError:
        return False


def answers_again(server: Running) -> bool:
    until = time.monotonic() + 20
    while time.monotonic() < until:
        try:
            with server.http as http:
                return http.get("/health").status_code == 200
        except httpx.TransportError:  # the last connections still count
            time.sleep(0.05)
    return False


def test_a_body_that_is_too_large_is_413(server: Running) -> None:
    with server.http as http:
        told = http.post("/v1/chat/completions", json={"messages": ["x" * 5000]})
        untold = http.post("/v1/chat/completions", content=iter([b"x" * 3000, b"y" * 3000]))
    assert told.status_code == 413 and told.json()["error"]["code"] == "request_too_large"
    assert untold.status_code == 413


def test_a_body_that_comes_with_its_headers_is_told_that_it_is_too_large(server: Running) -> None:
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
    head += b"Transfer-Encoding: chunked\r\n\r\n"
    with connect(server) as connection:
        connection.sendall(head + b"1f40\r\n" + b"x" * 8000 + b"\r\n0\r\n\r\n")
        assert connection.recv(4096).startswith(b"HTTP/1.1 413 ")


def test_compressed_bodies_are_not_read(server: Running) -> None:
    with server.http as http:
        answer = http.post(
            "/v1/chat/completions", content=b"\x1f\x8b", headers={"content-encoding": "gzip"}
        )
    assert answer.status_code == 415


def test_slow_headers_and_bodies_are_cut_off(server: Running) -> None:
    with connect(server) as headers:
        headers.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: ")
        for _ in range(8):  # a byte now and then does not help
            time.sleep(0.1)
            try:
                headers.sendall(b"y")
            except OSError:
                break
        assert is_cut_off(headers)
    with connect(server) as body:
        body.sendall(
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n\r\n{"
        )
        assert is_cut_off(body)
    with connect(server) as silent:
        assert is_cut_off(silent)


def test_headers_that_are_too_large_are_cut_off(server: Running) -> None:
    with connect(server) as connection:
        try:
            for _ in range(200):
                connection.sendall(b"GET /health HTTP/1.1\r\nX: " + b"y" * 900)
        except OSError:
            return
        assert is_cut_off(connection)


def test_one_address_has_so_many_connections(server: Running) -> None:
    assert answers_again(server)  # connections of other tests count no longer
    with contextlib.ExitStack() as held:
        for _ in range(8):  # each has been answered and stays open
            client = held.enter_context(server.http)
            assert client.get("/health").status_code == 200
        with server.http as one_more, pytest.raises(httpx.TransportError):
            one_more.get("/health")
    assert answers_again(server)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "evil.example"}, 421),
        ({"host": "127.0.0.1.evil.example"}, 421),
        ({"host": "[::1"}, 421),
        ({"origin": "http://[x"}, 403),
        ({"origin": "https://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-origin"}, 200),
        ({}, 200),
    ],
)
def test_foreign_pages_cannot_use_a_local_server(
    server: Running, headers: dict, status: int
) -> None:
    with server.http as http:
        answer = http.post("/v1/chat/completions", json=ASK, headers=headers)
    assert answer.status_code == status


def test_unknown_paths_and_methods_are_clean(server: Running) -> None:
    with server.http as http:
        missing = http.get("/v1/nothing")
        wrong = http.put("/v1/chat/completions", json=ASK)
        nul = http.get("/api/conversations/%00")
    assert missing.status_code == 404 and missing.json()["error"]["code"] == "not_found"
    assert wrong.status_code == 405 and wrong.json()["error"]["code"] == "method_not_allowed"
    assert nul.status_code == 404


def test_every_answer_says_which_request_it_is(server: Running) -> None:
    with server.http as http:
        answer = http.post("/v1/chat/completions", json=ASK)
    name = answer.headers["x-request-id"]
    assert answer.json()["id"].endswith(name.removeprefix("req-"))
    deadline = time.monotonic() + 20  # the line is written after its answer has gone
    while not any(name in line for line in list(server.lines)):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    ("fields", "refused"),
    [
        ({"http": {"host": "0.0.0.0"}}, "mode is local"),
        ({"http": {"host": "::"}}, "mode is local"),
        ({"mode": "platform", "http": {"host": "0.0.0.0"}}, "in the clear"),
        ({"mode": "platform", "http": {"host": "0.0.0.0", "trusted_proxies": ["10.0.0.1"]}}, None),
        ({"mode": "platform", "http": {"host": "127.0.0.1"}}, None),
        ({}, None),
    ],
)
def test_an_open_bind_needs_accounts_and_encryption(fields: dict, refused: str | None) -> None:
    config = ServerConfig.model_validate(fields)
    if refused is None:
        check_bind(config)
        return
    with pytest.raises(ConfigError, match=refused):
        check_bind(config)


def test_the_router_finds_what_starlette_finds() -> None:
    """Paths without parameters are looked up, unless an earlier one with parameters takes them."""

    def endpoint(method: str, path: str) -> Endpoint:
        async def answer(request: Request) -> Response:
            return Response(f"{method} {path} {request.path_params}")

        return Endpoint(method, path, answer, "")

    @contextlib.asynccontextmanager
    async def lifespan(_: object) -> AsyncIterator[None]:
        yield

    points = [
        endpoint("GET", "/a"), endpoint("GET", "/a"), endpoint("POST", "/a"),
        endpoint("GET", "/b/{name}"), endpoint("GET", "/b/c"), endpoint("POST", "/b/c"),
        endpoint("GET", "/{rest:path}"),
    ]  # fmt: skip
    ours = EndpointRouter(points, lifespan)
    theirs = Router([point.route() for point in points], redirect_slashes=False)

    async def asked(router: Router, method: str, path: str) -> tuple[int, str, str | None]:
        transport = httpx.ASGITransport(router)
        async with httpx.AsyncClient(transport=transport, base_url="http://a") as http:
            answer = await http.request(method, path)
            return answer.status_code, answer.text, answer.headers.get("allow")

    seen: list[str] = []
    for method, path in itertools.product(
        ("GET", "HEAD", "POST", "PUT"), ("/a", "/a/", "/b/c", "/b/d", "/b", "/", "//a", "/a%2f")
    ):
        found = asyncio.run(asked(ours, method, path))
        assert found == asyncio.run(asked(theirs, method, path)), (method, path)
        seen.append(found[1])
    assert "GET /a {}" in seen and "GET /b/{name} {'name': 'c'}" in seen and "POST /b/c {}" in seen
